"""Copula and remainder against laws that are known: one a copula's, one that no copula has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_bif.blocks import choose_blocks, product_time
from ppl_bif.copula import copula_covariance, normal_scores
from ppl_bif.covariance import block_covariance
from tests.series import factors

REPLICATES, DRAWS, CHAINS, SCALE = 12, 500, 4, 0.4


def lognormal(rng, draws=DRAWS, spread=1.0):
    """Jointly lognormal losses: margins with long tails, a Gaussian copula."""
    a, b, log_covariance = factors(rng, draws, scale=SCALE, rho=0.5, train=250)
    own = np.random.default_rng(7)
    loadings = [SCALE * own.normal(size=(3, x.shape[2])) for x in (a, b)]
    level = np.outer(*(np.exp(spread**2 * (1 + (x**2).sum(0)) / 2) for x in reversed(loadings)))
    return -np.exp(spread * a), -np.exp(spread * b), level * np.expm1(spread**2 * log_covariance)


def squares(rng, draws=DRAWS):
    """Gaussian log-likelihoods, squares of shared normals: no Gaussian copula joins them."""
    own = np.random.default_rng(8)
    x, offset = own.normal(size=(3, 250)), 0.7 * own.normal(size=250)
    values = rng.normal(size=(CHAINS, draws, 3)) @ x + offset
    joint = x[:, :12].T @ x
    truth = np.outer(offset[:12], offset) * joint + joint**2 / 2
    return -(values**2) / 2, -(values[..., :12] ** 2) / 2, truth


def estimates(train, query):
    time = max(product_time(train, query), product_time(normal_scores(train), normal_scores(query)))
    how = {"blocks": choose_blocks(len(train), train.shape[1], time), "time": time}
    raw = block_covariance(train, query, **how)
    return raw, copula_covariance(train, query, raw, **how)


# At 200 draws, intervals of squares cover .88 before they are widened (test_calibration).
@pytest.mark.parametrize(("law", "draws"), [(lognormal, 200), (lognormal, 1000), (squares, 1000)])
def test_intervals_cover_and_signs_are_no_more_often_wrong_than_said(law, draws, record_property):
    rng = np.random.default_rng(0)
    covered, said, wrong = [], [], []
    for _ in range(REPLICATES):
        train, query, truth = law(rng, draws)
        _, found = estimates(train, query)
        covered.append(np.abs(found.mean - truth) <= 1.96 * found.sd)
        sure = found.false_sign < 0.1
        said.append(found.false_sign[sure])
        wrong.append((np.sign(found.mean) != np.sign(truth))[sure])
    record_property("found", f"{law.__name__}, {draws} draws: covered {np.mean(covered):.3f}")
    assert 0.92 <= np.mean(covered) <= 0.97, np.mean(covered)
    assert np.concatenate(wrong).mean() <= np.concatenate(said).mean()


def test_nearer_the_truth_than_the_sample_covariance():
    rng = np.random.default_rng(1)
    raws, founds = [], []
    for _ in range(REPLICATES):
        train, query, truth = lognormal(rng, 250)
        raw, found = estimates(train, query)
        raws.append(np.mean((raw.value - truth) ** 2))
        founds.append(np.mean((found.mean - truth) ** 2))
    assert np.mean(founds) < 0.5 * np.mean(raws)


@pytest.mark.parametrize(("law", "settings"), [(lognormal, {"spread": 0.5}), (squares, {})])
def test_consistent(law, settings):
    train, query, truth = law(np.random.default_rng(2), 6_000, **settings)
    _, found = estimates(train, query)
    slope = (found.mean * truth).sum() / (truth**2).sum()
    assert abs(slope - 1) < 0.03
    assert np.corrcoef(found.mean.ravel(), truth.ravel())[0, 1] > 0.99


@given(st.integers(0, 99), st.sampled_from([-3.0, 0.01, 50.0]), st.sampled_from([-2.0, 0.0, 400.0]))
def test_units_and_constants_do_not_matter(seed, scale, level):
    rng = np.random.default_rng(seed)
    train, query = rng.normal(size=(2, 40, 5)), rng.normal(size=(2, 40, 3))
    how = {"blocks": 5, "time": 1.0}

    def found(train):
        return copula_covariance(train, query, block_covariance(train, query, **how), **how)

    plain, changed = found(train), found(scale * train + level)
    np.testing.assert_allclose(changed.mean, scale * plain.mean, rtol=1e-4, atol=1e-6 * abs(scale))
    np.testing.assert_allclose(changed.sd, abs(scale) * plain.sd, rtol=1e-4)
    np.testing.assert_allclose(changed.false_sign, plain.false_sign, rtol=1e-4)


def test_a_row_that_does_not_move():
    rng = np.random.default_rng(3)
    train, query = rng.normal(size=(2, 50, 4)), rng.normal(size=(2, 50, 2))
    train[..., 1], query[..., 0] = -1e-7, 5.0
    raw = block_covariance(train, query, blocks=5)
    found = copula_covariance(train, query, raw, blocks=5, time=1.0)
    assert np.isfinite(np.stack(found)).all()
    for still in (found.mean[:, 1], found.mean[0], found.sd[:, 1], found.sd[0]):
        assert (still == 0).all()
    assert (found.false_sign[0] == 1).all()


def test_noise_alone_is_not_resolved():
    rng = np.random.default_rng(4)
    _, found = estimates(*(rng.standard_t(4, size=(4, 250, rows)) for rows in (500, 4)))
    assert (found.false_sign < 0.025).mean() < 0.01
