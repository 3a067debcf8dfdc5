"""The local learning coefficient, against its closed form for linear models."""

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.blocks import mean_error
from ppl_bif.schema import inference_data
from tests.series import ar1, run_of
from tests.truth import make_linear


def at_minimum(linear):
    """The same rows, with the trained weights where their loss is least."""
    best = np.linalg.lstsq(linear.x, linear.y, rcond=None)[0]
    return linear._replace(mode=best)


def exact(linear):
    """Return beta times the rise of each row's expected loss over that at w*."""
    mean, covariance = linear.mean(), linear.covariance()
    residual, before = linear.y - linear.x @ mean, linear.y - linear.x @ linear.mode
    spread = np.einsum("na,ab,nb->n", linear.x, covariance, linear.x)
    return linear.beta * (residual**2 + spread - before**2) / 2


def drawn(linear, chains=4, draws=2000, seed=0):
    """A run of independent draws from the exact posterior."""
    rng = np.random.default_rng(seed)
    w = rng.multivariate_normal(linear.mean(), linear.covariance(), size=(chains, draws))
    normalizer = np.log(2 * np.pi) / 2
    loglik = -((linear.y - w @ linear.x.T) ** 2) / 2 - normalizer
    distance = np.linalg.norm(w - linear.mode, axis=-1)
    at_mode = (linear.y - linear.x @ linear.mode) ** 2 / 2 + normalizer
    return run_of(
        loglik,
        loglik,
        stats={"distance": distance},
        constant={"train_loss_at_mode": ("train", at_mode)},
        attrs={
            "inverse_temperature": linear.beta,
            "localization": linear.gamma,
            "num_weights": len(linear.mode),
        },
    )


def half_trace(linear):
    curvature = linear.beta * np.linalg.eigvalsh(linear.x.T @ linear.x)
    return (curvature / (curvature + linear.gamma)).sum() / 2


@pytest.mark.parametrize(("d", "beta", "gamma"), [(2, 1.0, 50.0), (6, 0.2, 100.0), (6, 1.0, 1e-3)])
def test_it_is_half_the_weights_that_the_data_hold(d, beta, gamma):
    linear = at_minimum(make_linear(300, d, beta=beta, gamma=gamma))
    found = bif.learning_coefficient(drawn(linear))
    truth = half_trace(linear)
    assert exact(linear).sum() == pytest.approx(truth)
    assert abs(found["learning_coefficient"] - truth) < 3 * found["mcse"]
    assert found["mcse"] < 0.02 * truth, "tight enough to see a bias"
    assert abs(found["held"] - (d / 2 - truth)) < 3 * found["held_mcse"]
    assert bool(found["resolved"])
    if gamma < 1:
        assert found["learning_coefficient"] == pytest.approx(d / 2, rel=0.05)


def test_rows_carry_their_parts_of_it():
    linear = at_minimum(make_linear(300, 4, gamma=50.0))
    found = bif.learning_coefficient(drawn(linear))
    off = (found["contribution"] - exact(linear)) / found["contribution_mcse"]
    assert 0.9 < float((np.abs(off) < 1.96).mean()) < 0.99
    np.testing.assert_allclose(found["contribution"].sum(), found["learning_coefficient"])


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_errors_are_those_of_repeated_runs(rho):
    series = ar1(np.random.default_rng(0), (4 * 400, 1000), rho).reshape(400, 4, 1000, 1)
    means = series.mean(axis=(1, 2))[:, 0]
    claimed = np.array([mean_error(one)[0] for one in series])
    assert np.sqrt((claimed**2).mean()) == pytest.approx(means.std(), rel=0.1)
    assert 0.9 < (np.abs(means) < 1.96 * claimed).mean() < 0.98


def test_chains_that_lie_apart_show_and_widen_the_error():
    linear = at_minimum(make_linear(100, 3, gamma=10.0))
    run = drawn(linear, draws=500)
    before = bif.learning_coefficient(run)
    run["log_likelihood"]["train_obs"][3] -= 0.05
    after = bif.learning_coefficient(run)
    assert after["chain_value"][3] > after["chain_value"][0] + 10 * after["chain_mcse"][0]
    assert after["mcse"] > 3 * before["mcse"]


def test_a_model_that_is_sampled(backend):
    linear = at_minimum(make_linear(400, 5, beta=0.5, gamma=100.0))
    model = backend.linear(linear.mode, localization=linear.gamma, inverse_temperature=linear.beta)
    step = 0.5 / np.linalg.eigvalsh(linear.precision()).max()
    kernel = backend.SGLD(model, step_size=step, batch_size=400, steps_per_draw=8)
    data = {"train": linear.data, "query": linear.data}
    found = bif.learning_coefficient(bif.sample(kernel, **data, draws=1000, warmup=10, seed=3))
    # Of the law that the chain has, whose variance is a few per cent above the posterior's.
    covariance = linear.sgld_covariance(step, 400)
    truth = linear.beta / 2 * np.trace(linear.x.T @ linear.x @ covariance)
    assert truth == pytest.approx(half_trace(linear), rel=0.15)
    assert found["mcse"] < 0.03 * truth
    assert abs(found["learning_coefficient"] - truth) < 3 * found["mcse"]
    held = linear.gamma / 2 * np.trace(covariance)
    assert abs(found["held"] - held) < 3 * found["held_mcse"]
    assert found.attrs["num_weights"] == 5


def test_weights_that_are_no_minimum_are_told():
    linear = make_linear(300, 4, gamma=1.0)
    linear = linear._replace(mode=linear.mode + 1.0)
    with pytest.warns(UserWarning, match=r"negative.*no minimum.*Train further"):
        found = bif.learning_coefficient(drawn(linear))
    assert not bool(found["resolved"])
    assert found["learning_coefficient"] == pytest.approx(exact(linear).sum(), rel=0.01)


def test_tokens_are_summed():
    rng = np.random.default_rng(0)
    loglik = -rng.random((2, 100, 5, 3))
    dims = ("chain", "draw", "train", "train_token")
    groups = {
        "log_likelihood": xr.Dataset({"train_obs": (dims, loglik)}),
        "constant_data": xr.Dataset({"train_loss_at_mode": (dims[2:], np.full((5, 3), 0.1))}),
    }
    found = bif.learning_coefficient(inference_data(groups, {}))
    np.testing.assert_allclose(found["contribution"], -loglik.sum(axis=3).mean(axis=(0, 1)) - 0.3)
    assert "held" not in found


def test_losses_at_the_trained_weights_are_needed():
    run = run_of(*[np.random.default_rng(0).normal(size=(2, 50, 3))] * 2)
    with pytest.raises(ValueError, match=r"no 'train_loss_at_mode' in constant_data: pass"):
        bif.learning_coefficient(run)
    with pytest.raises(ValueError, match="a finite loss for each of 3 rows; got 2 of which 1"):
        bif.learning_coefficient(run, loss_at_mode=[0.1, np.nan])
    assert bif.learning_coefficient(run, loss_at_mode=np.zeros(3)).sizes["train"] == 3


def test_a_run_without_traces_is_refused():
    run = drawn(make_linear(50, 2), draws=20)
    likelihood = run["log_likelihood"]
    sums = likelihood["train_obs"].rename(train="kept").rename("train_sums")
    kept = {
        "log_likelihood": xr.Dataset({"train_obs": likelihood["train_obs"], "train_sums": sums})
    }
    with pytest.raises(ValueError, match="stream=False"):
        bif.learning_coefficient(inference_data(kept, {}))
