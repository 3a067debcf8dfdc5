"""States of every kernel as arrays and back: what comes after is the same to the bit."""

import importlib

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.backends import random_layers

KERNELS = [
    ("SGLD", {"batch_size": 4, "gradient": "partition", "preconditioner": "rmsprop"}),
    ("UnderdampedLangevin", {"preconditioner": "low_rank"}),
    ("HMC", {}),
]


def make_data(rows):
    rng = np.random.default_rng(rows)
    return rng.normal(size=(rows, 3)).astype(np.float32), rng.integers(2, size=rows)


def through_a_file(arrays):
    return load(save({name: np.array(array, order="C") for name, array in arrays.items()}))


def check(kernel):
    data = {"train": make_data(10), "query": make_data(3)}
    engine = kernel.bind(data, evaluation_batch_size=None)
    state = engine.start([0, 2], 5)
    state = engine.advance(engine.adapt(state, [state]), 3)
    own = through_a_file(engine.pack(state, shared=False))
    tuned = through_a_file(engine.pack(engine.without_weights(state), shared=True))
    _, expected = engine.draws(state, 2, 3, most=4, names=[])

    other = kernel.bind(data, evaluation_batch_size=None)
    fresh = other.start([0, 2], 5)
    like = other.unpack(other.pack(fresh, shared=False) | tuned, fresh)
    again = other.start([0, 2], 5, like=other.without_weights(like))
    _, found = other.draws(other.unpack(own, again), 2, 3, most=4, names=[])
    for name, values in expected.likelihood.items():
        np.testing.assert_array_equal(values, found.likelihood[name])
    with pytest.raises(KeyError):
        other.unpack({}, other.start([0, 2], 5))
    cut = {name: array[..., :1] if array.ndim else array for name, array in own.items()}
    with pytest.raises(ValueError, match="of a state is"):
        other.unpack(cut, other.start([0, 2], 5))


@pytest.mark.parametrize(("name", "settings"), KERNELS)
def test_what_comes_after_is_the_same(backend, name, settings):
    kernel = getattr(importlib.import_module(f"ppl_bif.{backend.name}"), name)
    model = backend.mlp(random_layers([3, 4, 2]), localization=10.0)
    check(kernel(model, step_size=1e-3, **settings))


@pytest.mark.numpyro
def test_samplers_of_blackjax():
    blackjax = pytest.importorskip("blackjax")
    import jax.numpy as jnp

    from ppl_bif.numpyro.blackjax import BlackJAX
    from tests.backends import get_backend

    def hmc(logdensity, step_size):
        return blackjax.hmc(logdensity, step_size, jnp.ones(26), num_integration_steps=2)

    model = get_backend("numpyro").mlp(random_layers([3, 4, 2]), localization=10.0)
    check(BlackJAX(model, hmc, name="hmc", step_size=0.01))
