"""Large networks on a CPU: steps of several programs, which hold one gradient and little beside."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_bif.numpyro import localize, moves, outside
from ppl_bif.numpyro.alike import Alike
from ppl_bif.numpyro.gradients import Data

WIDTH, LAYERS, BATCH = 640, 3, 4


def deep(p, x):
    for w in p.values():
        x = jnp.tanh(x @ w)
    return x


def kernel_of(kind, width, **settings):
    keys = jax.random.split(jax.random.key(0), LAYERS)
    weights = {str(i): jax.random.normal(k, (width, width)) / width for i, k in enumerate(keys)}
    model = localize(deep, weights, likelihood="categorical", localization=10.0)
    settings = {"gradient": "minibatch", "step_size": 1e-3, "preconditioner": None} | settings
    return model.make_kernel(kind, batch_size=BATCH, steps_per_draw=2, **settings)


def rows_of(width, rows=12):
    rng = np.random.default_rng(0)
    return np.float32(rng.normal(size=(rows, width))), rng.integers(width, size=rows)


@pytest.mark.parametrize(
    ("kind", "settings", "block"),
    [
        ("SGLD", {}, 200),  # sites of 81: two in a pack
        ("SGLD", {"gradient": "control_variates", "preconditioner": "rmsprop"}, 50),  # in blocks
        ("UnderdampedLangevin", {"preconditioner": "low_rank"}, 50),
    ],
)
def test_steps_of_several_programs_are_those_of_one(kind, settings, block, monkeypatch):
    monkeypatch.setattr(moves, "BLOCK", block)
    data, found = rows_of(9), []
    for least in (1, outside.LARGE):
        monkeypatch.setattr(outside, "LARGE", least)
        kernel = kernel_of(kind, 9, **settings)
        assert outside.is_large(kernel) == (least == 1)
        engine = kernel.bind({"train": data, "query": data}, evaluation_batch_size=None)
        state = engine.start([0, 1], 0)
        state = engine.advance(engine.adapt(state, [state]), 3)
        found.append(engine.draws(state, 2, 8, most=8, names=list(kernel.model.mode))[1])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), *found)


@pytest.mark.parametrize("measure", [False, True])
def test_a_gradient_needs_little_beside_itself(measure):
    kernel, data = kernel_of("SGLD", WIDTH), Data.of(rows_of(WIDTH))
    data = jax.tree.map(jnp.asarray, data)
    arguments = Alike(kernel), kernel.model.held, (), jax.random.key(0), kernel.model.mode, data
    program = outside._estimate.lower(*arguments, measure=measure).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2.5 * 4 * WIDTH**2


def test_noise_needs_a_block():
    site = jnp.zeros((WIDTH, WIDTH * 10))
    program = moves._with_noise.lower([site], jax.random.key(0), 1.0, 1.0).compile()
    assert program.memory_analysis().temp_size_in_bytes < 8 * 4 * moves.BLOCK


def test_a_step_uses_up_the_weights_it_is_given(monkeypatch):
    monkeypatch.setattr(outside, "LARGE", 1)
    data = rows_of(9)
    engine = kernel_of("SGLD", 9).bind({"train": data, "query": data}, evaluation_batch_size=None)
    start = engine.start([0], 0)
    moved = engine.advance(start, 2, keep=True)
    assert not any(w.is_deleted() for w in start.z.values())
    engine.draws(moved, 2, 1, most=1, names=[])
    assert all(w.is_deleted() for w in moved.z.values())


def test_noise_of_blocks_is_noise():
    size = 2 * moves.BLOCK + 1000
    noise = moves.with_noise(jax.random.key(0), {"w": jnp.ones(size)}, 3.0, 0.5)["w"] - 3
    blocks = noise[: 2 * moves.BLOCK].reshape(2, -1)
    assert abs(noise.std() / 0.5 - 1) < 5 / (2 * size) ** 0.5
    assert abs(noise.mean()) < 5 * 0.5 / size**0.5
    assert abs(jnp.corrcoef(blocks)[0, 1]) < 5 / moves.BLOCK**0.5
    assert abs(noise[2 * moves.BLOCK :].std() / 0.5 - 1) < 5 / 2000**0.5
