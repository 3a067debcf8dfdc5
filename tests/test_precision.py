"""Networks computed in half precision around float32 masters, and where they run."""

import numpy as np
import pytest

import ppl_bif as bif
from tests.backends import random_layers

ROWS, BFLOAT16_DIGITS = 64, 2.0**-8

# Random weights are far from the mode of their posterior.
pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return np.float32(rng.normal(size=(ROWS, 4))), rng.integers(3, size=ROWS)


def network(backend, **settings):
    return backend.mlp(random_layers([4, 16, 3]), localization=50.0, **settings)


def run(backend, data, model, *, draws=3, **settings):
    kernel = backend.SGLD(model, batch_size=ROWS, steps_per_draw=1, **settings)
    return bif.sample(
        kernel, train=data, query=data, chains=2, draws=draws, warmup=0, save_weights=True
    )


def moved(idata, model):
    first = {name: w.values[0, 0] for name, w in idata["posterior"].data_vars.items()}
    apart = [first[name] - np.asarray(model.mode[name]) for name in sorted(first)]
    return np.concatenate([a.ravel() for a in apart])


def table(backend, ids, values, seen=None, **settings):
    """Localize a network that looks rows up and multiplies them by its second input."""
    if backend.name == "numpyro":
        import jax.numpy as jnp

        def apply(params, ids, x):
            seen.extend(map(str, (ids.dtype, x.dtype, params["w"].dtype)))
            return params["w"][ids] * x

        return backend.localize(
            apply, {"w": jnp.float32(values)}, likelihood="normal", localization=1.0, **settings
        )
    import torch

    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(values))

        def forward(self, ids, x):
            seen.extend(str(t.dtype).removeprefix("torch.") for t in (ids, x, self.w))
            return self.w[ids] * x

    return backend.localize(Table(), likelihood="normal", localization=1.0, **settings)


def test_log_likelihoods_are_near_those_of_float32_and_single(backend, data):
    exact, cast = network(backend), network(backend, compute_dtype="bfloat16")
    expected, found = (backend.log_likelihood(model, data) for model in (exact, cast))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 16 * BFLOAT16_DIGITS
    assert backend.log_joint(cast, data) == pytest.approx(
        backend.log_joint(exact, data), rel=BFLOAT16_DIGITS
    )


def test_gradients_are_near_those_of_float32(backend, data):
    expected, found = (
        moved(run(backend, data, model, draws=2, step_size=1e-3, temperature=0.0), model)
        for model in (network(backend), network(backend, compute_dtype="bfloat16"))
    )
    apart = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < apart < 8 * BFLOAT16_DIGITS


def test_steps_that_bfloat16_cannot_tell_are_made(backend, data):
    # Noise of 3e-5 a step, where bfloat16 weights of 0.5 are 0.002 apart.
    exact, cast = (
        run(backend, data, network(backend, **settings), step_size=1e-9, draws=40)
        for settings in ({}, {"compute_dtype": "bfloat16"})
    )
    assert all(weights.dtype == np.float32 for weights in cast["posterior"].data_vars.values())
    expected, found = (idata["sample_stats"]["distance"].values for idata in (exact, cast))
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert found[:, -1].min() > 4 * found[:, 0].max()


def test_floating_inputs_are_cast_and_integers_are_not(backend):
    # 257 is not a number of bfloat16.
    values, seen = np.arange(300, dtype=np.float32) / 256, []
    ids = np.array([0, 255, 257, 299])
    model = table(backend, ids, values, seen, compute_dtype="bfloat16")
    x = np.float32([1, 1, 1, 2])
    found = backend.log_likelihood(model, (ids, x, np.float32([0, 0, 0, 0])))
    assert seen[0].startswith("int")
    assert seen[1:3] == ["bfloat16", "bfloat16"]
    expected = -((x * values[ids]) ** 2) / 2 - np.log(2 * np.pi) / 2
    np.testing.assert_allclose(found, expected, rtol=4 * BFLOAT16_DIGITS)


def test_weights_of_half_precision_are_sampled_in_float32(backend, data):
    exact = network(backend)
    names = {name: np.asarray(w) for name, w in exact.mode.items()}
    if backend.name == "numpyro":
        import jax.numpy as jnp

        params = {name: jnp.asarray(w, jnp.bfloat16) for name, w in names.items()}
        half = backend.localize(
            lambda p, x: jnp.tanh(x @ p["W0"] + p["b0"]) @ p["W1"] + p["b1"],
            params,
            likelihood="categorical",
            localization=50.0,
        )
    else:
        from torch import nn

        module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).bfloat16()
        half = backend.localize(module, likelihood="categorical", localization=50.0)
    assert half.settings["compute_dtype"] == "bfloat16"
    idata = run(backend, data, half, step_size=1e-9)
    assert all(weights.dtype == np.float32 for weights in idata["posterior"].data_vars.values())
    assert idata.attrs["dtype"] == "float32"
    assert idata.attrs["compute_dtype"] == "bfloat16"


def test_runs_of_other_types_are_told_apart(backend):
    fingerprints = {
        network(backend, **settings).fingerprint()
        for settings in ({}, {"compute_dtype": "bfloat16"}, {"compute_dtype": "float32"})
    }
    assert len(fingerprints) == 3


@pytest.mark.parametrize("name", ["int32", "half", "bf16", 16])
def test_types_that_are_none_are_refused(backend, name):
    with pytest.raises(ValueError, match=r"compute_dtype must be None or one of .*'bfloat16'"):
        network(backend, compute_dtype=name)


def test_a_device_by_name(backend, data):
    expected = backend.log_likelihood(network(backend), data)
    found = backend.log_likelihood(network(backend, device="cpu"), data)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["tpux", "cpu:99x", "cuda:77"])
def test_devices_that_are_not_there_are_refused(backend, name):
    with pytest.raises(ValueError, match=r"device must be 'auto', 'cpu', or such as 'cuda'"):
        network(backend, device=name)


@pytest.mark.parametrize(("free", "method"), [(10**4, "sequential"), (10**9, "vectorized")])
def test_chains_move_together_where_the_device_has_room(backend, data, monkeypatch, free, method):
    model = network(backend)
    monkeypatch.setattr(type(model), "free_memory", lambda self: free)
    idata = run(backend, data, model, step_size=1e-9)
    assert idata.attrs["chain_method"] == method


def test_what_a_gradient_keeps_of_a_row_is_known(backend, data):
    # The input, 16 units before and after tanh, 3 logits: some of them, not many times that.
    assert 4 * 16 <= network(backend).memory_per_row(data) <= 4 * 200
