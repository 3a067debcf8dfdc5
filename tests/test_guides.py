"""Draws of guides, weighted: against posteriors that are known exactly, in both backends."""

from functools import cache

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.approximation import LOG_RATIO, importance_weights
from ppl_bif.schema import inference_data
from ppl_bif.weighted import weighted_correlation, weighted_covariance
from tests.backends import BACKENDS, marked
from tests.conjugate import regression

SETTINGS = {"chains": 4, "draws": 1000}
STEPS = {"AutoNormal": 1200, "AutoLaplaceApproximation": 400, "AutoDelta": 5}


@pytest.fixture(scope="module")
def known():
    found = regression(rows=30)
    # Slopes that depend on each other, which a mean-field guide cannot say.
    return found._replace(x=found.x + np.array([0.0, 0.35]))


@pytest.fixture(scope="module", params=marked(BACKENDS))
def guided(request, known):
    """Give a function from the name of a guide to its draws."""
    return {"numpyro": _numpyro, "pyro": _pyro}[request.param](known)


def _numpyro(known):
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    from ppl_bif.numpyro import from_guide

    def model(x, y):
        slope = numpyro.sample("slope", dist.Normal(jnp.zeros(2), 10**0.5).to_event(1))
        numpyro.deterministic("double", 2 * slope)
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(x @ slope, 1), obs=y)

    data = jnp.asarray(known.x), jnp.asarray(known.y)

    @cache
    def fit(name):
        guide = getattr(autoguide, name)(model)
        svi = SVI(model, guide, numpyro.optim.Adam(0.03), Trace_ELBO())
        return guide, svi.run(jax.random.key(0), STEPS[name], *data, progress_bar=False).params

    def draw(name, **settings):
        return from_guide(model, *fit(name), args=data, **{**SETTINGS, **settings})

    return draw


def _pyro(known):
    import pyro
    import torch
    from pyro import distributions as dist
    from pyro.infer import SVI, Trace_ELBO, autoguide

    from ppl_bif.pyro import from_guide

    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 10**0.5).to_event(1))
        pyro.deterministic("double", 2 * slope)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x @ slope, 1), obs=y)

    data = torch.tensor(known.x, dtype=torch.float32), torch.tensor(known.y, dtype=torch.float32)

    @cache
    def fit(name):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = getattr(autoguide, name)(model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
        for _ in range(STEPS[name]):
            svi.step(*data)
        return guide

    def draw(name, **settings):
        return from_guide(model, fit(name), args=data, **{**SETTINGS, **settings})

    return draw


@pytest.fixture(scope="module")
def mean_field(guided):
    return guided("AutoNormal")


@pytest.fixture(scope="module")
def laplace(guided):
    return guided("AutoLaplaceApproximation")


def influence(known):
    """Exact: the covariance of a slope with log p_i is S x_i (y_i - x_i mean)."""
    mean, covariance = known.posterior(np.ones(len(known.y)))
    return covariance @ (known.x * (known.y - known.x @ mean)[:, None]).T


def test_a_mean_field_guide_is_put_right_by_its_weights(known, mean_field):
    assert 0 < mean_field.attrs["pareto_k"] < 0.6
    found = bif.influence(mean_field, observable="slope")
    off = (found["influence"].values - influence(known)) / found["mcse"].values
    assert np.sqrt(np.mean(off**2)) < 1.6
    slope = (found["influence"].values * influence(known)).sum() / (influence(known) ** 2).sum()
    assert slope == pytest.approx(1, abs=0.05)
    assert found.attrs["effective_draws"] < 4000
    assert found.attrs["shrink"] == "none"


def test_left_to_itself_it_is_wrong(known, guided):
    own = guided("AutoNormal", weighted=False)
    assert 0 < own.attrs["pareto_k"] < 0.6
    found = bif.influence(own, observable="slope", shrink=None)["influence"].values
    assert (found * influence(known)).sum() / (influence(known) ** 2).sum() < 0.95


def test_laplace_of_a_gaussian_is_exact(known, laplace):
    assert laplace.attrs["effective_draws"] == pytest.approx(4000, rel=0.01)
    covariance = known.posterior(np.ones(len(known.y)))[1]
    draws = laplace["posterior"]["slope"].values.reshape(-1, 2)
    np.testing.assert_allclose(np.cov(draws.T), covariance, rtol=0.07, atol=1e-4)
    found = bif.influence(laplace, observable="slope")
    off = (found["influence"].values - influence(known)) / found["mcse"].values
    assert np.sqrt(np.mean(off**2)) < 1.6


def test_mean_field_reweighted_and_jackknifed(known, mean_field):
    reweight_and_jackknife(known, mean_field)


def test_laplace_reweighted_and_jackknifed(known, laplace):
    reweight_and_jackknife(known, laplace)


def reweight_and_jackknife(known, run):
    rows = len(known.y)
    found = bif.reweight(run, 1 - 0.5 * np.eye(rows), observable="slope")
    before = known.posterior(np.ones(rows))[0]
    exact = np.stack([known.posterior(w)[0] - before for w in 1 - 0.5 * np.eye(rows)])
    for name in ("second_order", "importance"):
        off = (found[name].values - exact) / found[f"{name}_mcse"].values
        assert np.sqrt(np.mean(off**2)) < 1.6, name
    np.testing.assert_allclose(found["mean"], before, atol=0.03)
    scores = (influence(known) - influence(known).mean(axis=1, keepdims=True)).T
    sandwich = scores.T @ scores * rows / (rows - 1)
    jack = bif.jackknife(run, observable="slope")
    np.testing.assert_allclose(jack["sd"], np.sqrt(np.diag(sandwich)), rtol=0.08)
    sd = np.sqrt(np.diag(known.posterior(np.ones(rows))[1]))
    np.testing.assert_allclose(jack["posterior_sd"], sd, rtol=0.05)


def test_what_is_recorded(mean_field, known):
    posterior, likelihood = mean_field["posterior"], mean_field["log_likelihood"]
    assert set(posterior.data_vars) == {"slope", "double"}
    np.testing.assert_allclose(posterior["double"], 2 * posterior["slope"], rtol=1e-6)
    assert likelihood["y"].shape == (4, 1000, 30)
    slope = posterior["slope"].values[0, 0]
    residual = known.y - known.x @ slope
    expected = -(residual**2) / 2 - np.log(2 * np.pi) / 2
    np.testing.assert_allclose(likelihood["y"].values[0, 0], expected, rtol=1e-3, atol=1e-4)
    ratio = mean_field["sample_stats"]["log_importance_ratio"].values
    # Up to a constant, the ratio is the known joint density less that of a normal of the draws.
    joint = likelihood["y"].values.sum(axis=2) - (posterior["slope"].values ** 2).sum(axis=2) / 20
    flat = posterior["slope"].values.reshape(-1, 2)
    own = -(((flat - flat.mean(axis=0)) / flat.std(axis=0)) ** 2).sum(axis=1) / 2
    rest = ratio.ravel() - (joint.ravel() - own)
    assert rest.std() < 0.1 * ratio.std()


def test_top_is_that_of_weighted_scores(mean_field):
    best = bif.top(mean_field, k=3, observable="slope")
    expected = bif.top(bif.influence(mean_field, observable="slope"), k=3)
    xr.testing.assert_allclose(best, expected)
    with pytest.raises(ValueError, match="weighted draws are not shrunk"):
        bif.influence(mean_field, observable="slope", shrink="eb")


def test_a_point_is_no_guide(guided):
    with pytest.raises(ValueError, match="all draws of the guide are the same"):
        guided("AutoDelta", draws=5)


def weighted_run(spread, seed=0, draws=2000):
    """Draws from a normal of another spread than the posterior's 1, with exact ratios."""
    z = spread * np.random.default_rng(seed).normal(size=(4, draws))
    ratio = -(z**2) / 2 + (z / spread) ** 2 / 2 + np.log(spread)
    rows = z[..., None] * np.array([1.0, -2.0]) + np.array([5.0, 3.0])
    return inference_data(
        {
            "log_likelihood": xr.Dataset({"y": (("chain", "draw", "row"), rows)}),
            "sample_stats": xr.Dataset({"log_importance_ratio": (("chain", "draw"), ratio)}),
        },
        {},
    )


def test_errors_are_those_of_other_draws():
    exact = np.array([[1.0, -2.0], [-2.0, 4.0]])
    found = [bif.influence(weighted_run(1.5, seed, 100)) for seed in range(200)]
    values = np.stack([one["influence"].values for one in found])
    errors = np.stack([one["mcse"].values for one in found])
    np.testing.assert_allclose(values.mean(axis=0), exact, rtol=0.03)
    np.testing.assert_allclose(errors.mean(axis=0), values.std(axis=0), rtol=0.15)


def test_correlations_are_within_one():
    found = bif.influence(weighted_run(1.5), kind="correlation")
    np.testing.assert_allclose(found["influence"], [[1, -1], [-1, 1]], atol=1e-9)
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        a = rng.normal(size=(1, 300, 1))
        b = 0.6 * a + 0.8 * rng.normal(size=a.shape)
        one = weighted_correlation(a, b, rng.uniform(0, 2, size=(1, 300)))
        values.append(one.value[0, 0])
        errors.append(one.mcse[0, 0])
    assert np.mean(values) == pytest.approx(0.6, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_equal_weights_are_none():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 50, 3)), rng.normal(size=(4, 50, 2))
    found = weighted_covariance(a, b, np.full((4, 50), 3.0))
    both = np.concatenate([a, b], axis=2).reshape(-1, 5)
    np.testing.assert_allclose(found.value, np.cov(both.T)[3:, :3])


@pytest.mark.parametrize("more", [1, 3, 100])
def test_ratios_that_differ_by_rounding_are_trusted(more):
    # An exact guide's, of which a few are one step of float32 above the others.
    ratios = np.full((4, 500), np.float32(-50))
    ratios[0, :more] = np.nextafter(np.float32(-50), np.float32(0))
    weights = importance_weights(
        {"sample_stats": xr.Dataset({LOG_RATIO: (("chain", "draw"), ratios)})}, [0, 1, 2, 3]
    )
    assert weights.k == 0
    np.testing.assert_allclose(weights.values, 1, rtol=1e-5)


def test_draws_too_far_off_are_warned_of():
    with pytest.warns(UserWarning, match="far off the posterior: pareto_k is"):
        bif.influence(weighted_run(0.4))
