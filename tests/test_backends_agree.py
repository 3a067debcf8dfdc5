"""Pyro and NumPyro give the same scores for the same trained network, within their errors."""

import numpy as np
import pytest

import ppl_bif as bif

pytestmark = [pytest.mark.pyro, pytest.mark.numpyro, pytest.mark.slow]


def test_digits_mlp(record_property):
    import jax.numpy as jnp

    import ppl_bif.numpyro
    import ppl_bif.pyro
    from ppl_bif_models import digits, digits_jax, digits_torch

    data = digits.load()
    network = digits_torch.train(digits_torch.mlp(), *data.train)
    layers = [m for m in network if hasattr(m, "weight")]
    params = {
        str(i): {"weight": jnp.asarray(m.weight.T.detach()), "bias": jnp.asarray(m.bias.detach())}
        for i, m in enumerate(layers)
    }
    settings = {"likelihood": "categorical", "localization": 1000.0}
    step = {"step_size": 1.2e-4, "batch_size": 128, "steps_per_draw": 5}
    scores = []
    for kernel in (
        ppl_bif.pyro.SGLD(ppl_bif.pyro.localize(network, **settings), **step),
        ppl_bif.numpyro.SGLD(ppl_bif.numpyro.localize(digits_jax.mlp, params, **settings), **step),
    ):
        run = bif.sample(
            kernel, train=data.train, query=(data.query_x[:50], data.query_y[:50]),
            chains=4, draws=1000, warmup=100,
        )  # fmt: skip
        scores.append(bif.influence(run, shrink=None))
    pearson = np.corrcoef(*(s["influence"].values.ravel() for s in scores))[0, 1]
    errors = np.hypot(*(s["mcse"].values for s in scores))
    within = np.abs(scores[0]["influence"] - scores[1]["influence"]).values <= 1.96 * errors
    record_property(
        "found", f"Pearson {pearson:.4f}, within 1.96 combined errors {within.mean():.3f}"
    )
    assert pearson >= 0.95
    assert 0.92 <= within.mean() <= 0.97
