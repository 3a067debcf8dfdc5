"""The infinitesimal jackknife, against its closed form and the bootstrap of a wrong model."""

import numpy as np
import pytest

import ppl_bif as bif
from tests.conjugate import Regression, regression


@pytest.fixture(scope="module")
def known():
    return regression(rows=200, noise=2.0)


def sandwich(known):
    """The sum of squared influences: covariance x_i r_i, less what the mean of them is."""
    mean, covariance = known.posterior(np.ones(len(known.y)))
    scores = (known.x * (known.y - known.x @ mean)[:, None]) @ covariance
    return len(scores) * np.cov(scores.T, bias=False)


def test_it_is_the_sandwich(known):
    found = bif.jackknife(known.draws())
    exact = sandwich(known)
    off = (found["covariance"].values - exact) / found["covariance_mcse"].values
    assert np.abs(off).max() < 3.5
    np.testing.assert_allclose(np.diag(found["covariance"]), np.diag(exact), rtol=0.05)


def test_it_is_within_a_tenth_of_the_bootstrap(known):
    rng = np.random.default_rng(3)
    counts = rng.multinomial(200, np.full(200, 1 / 200), size=4000)
    means = np.stack([known.posterior(some)[0] for some in counts])
    found = bif.jackknife(known.draws())
    np.testing.assert_allclose(found["sd"], means.std(axis=0), rtol=0.1)
    # The model takes the noise for 1, and half of it has a larger spread than that.
    assert found["sd"][1] > 2 * found["posterior_sd"][1]


def test_noise_of_few_draws_does_not_add_to_it(known):
    exact = np.diag(sandwich(known))
    few = [
        np.diag(bif.jackknife(known.draws(draws=100, seed=seed))["covariance"])
        for seed in range(40)
    ]
    error = np.std(few, axis=0) / np.sqrt(len(few))
    assert (np.abs(np.mean(few, axis=0) - exact) < 3 * error).all()
    assert (error < 0.05 * exact).all(), "tight enough to see a bias"


def test_rows_in_groups_are_sampled_together(known):
    twice = Regression(np.repeat(known.x, 2, axis=0), np.repeat(known.y, 2))
    run = twice.draws()
    apart = bif.jackknife(run)
    together = bif.jackknife(run, groups=np.repeat(np.arange(200), 2))
    ratio = together["sd"] / apart["sd"]
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=0.03)


def test_two_rows_are_too_few(known):
    with pytest.raises(ValueError, match="at least three rows"):
        bif.jackknife(known.draws(draws=100), groups="half")
