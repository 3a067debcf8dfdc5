"""What integrators do to vectors by site: a site at a time and in place, where run in Python.

Each is a compiled function of one site that uses up its first argument. Within a compiled step
they are parts of it, and the compiler decides what is held.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["added", "with_noise"]

Weights = Mapping[str, Array]

# Noise of larger sites is drawn in blocks on a CPU: they stay in its cache, and what the generator
# needs, six times what it gives, is that of a block.
BLOCK = 2**18


def added(weights: Weights, change: Weights, times: float | Array = 1.0) -> dict[str, Array]:
    """Add ``times`` a change to weights, which are used up."""
    return {name: _added(w, change[name], times) for name, w in weights.items()}


def with_noise(
    key: Array, vector: Weights, times: float | Array, heat: Array
) -> dict[str, Array]:
    """Return ``times`` a vector, which is used up, plus noise N(0, heat^2)."""
    keys = jax.random.split(key, len(vector))
    return {
        name: _with_noise(v, k, times, heat)
        for k, (name, v) in zip(keys, vector.items(), strict=True)
    }


@partial(jax.jit, donate_argnums=0)
def _added(w: Array, change: Array, times: float | Array) -> Array:
    return w + times * change


@partial(jax.jit, donate_argnums=0)
def _with_noise(v: Array, key: Array, times: float | Array, heat: Array) -> Array:
    if v.size <= BLOCK:
        return _noisy(v, key, times, heat)
    return jax.lax.platform_dependent(v, key, times, heat, cpu=_in_blocks, default=_noisy)


def _noisy(v: Array, key: Array, times: float | Array, heat: Array) -> Array:
    return times * v + heat * jax.random.normal(key, v.shape, v.dtype)


def _in_blocks(v: Array, key: Array, times: float | Array, heat: Array) -> Array:
    flat, whole = v.ravel(), v.size // BLOCK

    def block(i: Array, done: Array, size: int = BLOCK) -> Array:
        part = jax.lax.dynamic_slice(done, (i * BLOCK,), (size,))
        part = _noisy(part, jax.random.fold_in(key, i), times, heat)
        return jax.lax.dynamic_update_slice(done, part, (i * BLOCK,))

    flat = jax.lax.fori_loop(0, whole, block, flat)
    if rest := v.size % BLOCK:
        flat = block(jnp.int32(whole), flat, rest)
    return flat.reshape(v.shape)
