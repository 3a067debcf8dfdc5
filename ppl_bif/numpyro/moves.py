"""What integrators do to vectors by site: a site at a time and in place, where run in Python.

Each is a compiled function of one site that uses up its first argument. Within a compiled step
they are parts of it, and the compiler decides what is held.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["added", "kicked", "with_noise"]

Weights = Mapping[str, Array]
Move = Callable[..., tuple[Array, ...]]

# Noise of larger sites is drawn in blocks on a CPU: they stay in its cache, and what the generator
# needs, six times what it gives, is that of a block.
BLOCK = 2**18


def added(weights: Weights, change: Weights, times: Any = 1.0) -> dict[str, Array]:
    """Return weights, which are used up, plus ``times`` a change."""
    return {name: _added(w, change[name], times) for name, w in weights.items()}


def with_noise(key: Array, vector: Weights, times: Any, heat: Any) -> dict[str, Array]:
    """Return ``times`` a vector, which is used up, plus noise N(0, heat^2)."""
    keys = jax.random.split(key, len(vector))
    return {n: _with_noise(v, k, times, heat) for k, (n, v) in zip(keys, vector.items())}


def kicked(
    key: Array, momentum: Weights, gradient: Weights, h: Any, kept: Any, heat: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Kick a momentum and change it for another; both arguments are used up.

    v1 = v - h/2 g, and v2 = ``kept`` v1 + N(0, heat^2).

    Returns
    -------
    v2, drift : dict of str to Array
        Where to goes h/2 (v1 + v2).
    """
    keys = jax.random.split(key, len(momentum))
    found = {
        n: _kicked(v, gradient[n], k, h, kept, heat) for k, (n, v) in zip(keys, momentum.items())
    }
    return {n: after for n, (after, _) in found.items()}, {n: d for n, (_, d) in found.items()}


@partial(jax.jit, donate_argnums=0)
def _added(w: Array, change: Array, times: Any) -> Array:
    return w + times * change


@partial(jax.jit, donate_argnums=0)
def _with_noise(v: Array, key: Array, times: Any, heat: Any) -> Array:
    return _moved(lambda noise, v: (times * v + heat * noise,), key, v)[0]


@partial(jax.jit, donate_argnums=(0, 1))
def _kicked(v: Array, g: Array, key: Array, h: Any, kept: Any, heat: Any) -> tuple[Array, ...]:
    def move(noise: Array, v: Array, g: Array) -> tuple[Array, Array]:
        before = v - h / 2 * g
        after = kept * before + heat * noise
        return after, h / 2 * (before + after)

    return _moved(move, key, v, g)


def _moved(move: Move, key: Array, *at: Array) -> tuple[Array, ...]:
    """Apply ``move(noise, *at)``, which gives arrays like those of ``at``."""

    def whole(key: Array, *at: Array) -> tuple[Array, ...]:
        return move(jax.random.normal(key, at[0].shape, at[0].dtype), *at)

    if at[0].size <= BLOCK:
        return whole(key, *at)
    return jax.lax.platform_dependent(key, *at, cpu=partial(_in_blocks, whole), default=whole)


def _in_blocks(move: Move, key: Array, *at: Array) -> tuple[Array, ...]:
    """Apply ``move(key, *at)`` block by block, each with a key of its own, in place."""
    count, rest = divmod(at[0].size, BLOCK)

    def block(i: Any, done: tuple[Array, ...], size: int = BLOCK) -> tuple[Array, ...]:
        parts = [jax.lax.dynamic_slice(a, (i * BLOCK,), (size,)) for a in done]
        parts = move(jax.random.fold_in(key, i), *parts)
        return tuple(
            jax.lax.dynamic_update_slice(a, p, (i * BLOCK,)) for a, p in zip(done, parts)
        )

    done = jax.lax.fori_loop(0, count, block, tuple(a.ravel() for a in at))
    if rest:
        done = block(jnp.int32(count), done, rest)
    return tuple(a.reshape(at[0].shape) for a in done)
