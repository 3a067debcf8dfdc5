"""Samplers of BlackJAX draw from the same posterior, through the same door as every kernel."""

import blackjax
import jax.numpy as jnp
import numpy as np

import ppl_bif as bif
from ppl_bif.numpyro import localize
from ppl_bif.numpyro.blackjax import BlackJAX
from tests.truth import make_linear

CHAINS, DRAWS = 200, 100


def run_of(algorithm, **settings):
    linear = make_linear(100, 3)
    model = localize(
        lambda p, x: x @ p["w"],
        {"w": jnp.asarray(linear.mode, jnp.float32)},
        likelihood="normal",
        localization=linear.gamma,
    )
    x, y = linear.data
    return linear, bif.sample(
        BlackJAX(model, algorithm, **settings),
        train=(x, y),
        query=(x[:10], y[:10]),
        chains=CHAINS,
        draws=DRAWS,
        save_weights=True,
        progress=False,
    )


def test_hmc_is_tuned_and_exact():
    def hmc(logdensity, step_size):
        return blackjax.hmc(logdensity, step_size, jnp.ones(3), num_integration_steps=6)

    linear, run = run_of(hmc, name="hmc, 6 steps", steps_per_draw=2)
    draws = run["posterior"]["w"].values.reshape(-1, 3).astype(float)
    exact = linear.covariance()
    assert np.linalg.norm(np.cov(draws.T) - exact) < 0.03 * np.linalg.norm(exact)
    off = (draws.mean(0) - linear.mean()) / np.sqrt(np.diag(exact))
    assert np.abs(off).max() < 0.03
    assert 0.7 < run["sample_stats"]["acceptance"].mean() < 0.9
    assert run.attrs["kernel"] == "BlackJAX hmc, 6 steps"
    scores = bif.influence(run, shrink=None)["influence"].values
    expected = linear.influence(linear.x[:10], linear.y[:10], exact)
    assert np.linalg.norm(scores - expected) < 0.05 * np.linalg.norm(expected)


def test_an_unadjusted_sampler_keeps_its_step():
    def mclmc(logdensity, step_size):
        return blackjax.mclmc(logdensity, L=0.3, step_size=step_size)

    _, run = run_of(mclmc, name="mclmc", adjusted=False, step_size=0.02, steps_per_draw=1)
    assert run.attrs["step_size"] == np.float32(0.02)
    assert "acceptance" not in run["sample_stats"]
