"""What integrators do to vectors by site: a few sites at a time and in place, where run in Python.

Each is a compiled function of one site, or of a pack of small ones, that uses up its vectors.
Within a compiled step they are parts of it, and the compiler decides what is held.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["added", "kicked", "with_noise"]

Weights = Mapping[str, Array]
Sites = list[Array]
Move = Callable[..., tuple[Array, ...]]

# Sites of up to so many weights together get their noise from one call of the generator, which
# takes a second to compile. That of larger sites is drawn in blocks on a CPU: they stay in its
# cache, and what the generator needs, six times what it gives, is that of a block.
BLOCK = 2**18


def added(weights: Weights, change: Weights, times: Any = 1.0) -> dict[str, Array]:
    """Return weights, which are used up, plus ``times`` a change."""
    return {name: _added(w, change[name], times) for name, w in weights.items()}


def with_noise(key: Array, vector: Weights, times: Any, heat: Any) -> dict[str, Array]:
    """Return ``times`` a vector, which is used up, plus noise N(0, heat^2)."""
    found: dict[str, Array] = {}
    for names, own in _packs(key, vector):
        sites = _with_noise([vector[n] for n in names], own, times, heat)
        found |= zip(names, sites, strict=True)
    return found


def kicked(
    key: Array, momentum: Weights, gradient: Weights, h: Any, kept: Any, heat: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Kick a momentum and change part of it for noise; momentum and gradient are used up.

    v1 = v - h/2 g, and v2 = ``kept`` v1 + N(0, heat^2).

    Returns
    -------
    v2, drift : dict of str to Array
        The drift is h/2 (v1 + v2).
    """
    after: dict[str, Array] = {}
    drift: dict[str, Array] = {}
    for names, own in _packs(key, momentum):
        at = [momentum[n] for n in names], [gradient[n] for n in names]
        v, d = _kicked(*at, own, h, kept, heat)
        after |= zip(names, v, strict=True)
        drift |= zip(names, d, strict=True)
    return after, drift


@partial(jax.jit, donate_argnums=0)
def _added(w: Array, change: Array, times: Any) -> Array:
    return w + times * change


@partial(jax.jit, donate_argnums=0)
def _with_noise(v: Sites, key: Array, times: Any, heat: Any) -> Sites:
    return _moved(lambda noise, v: (times * v + heat * noise,), key, v)[0]


@partial(jax.jit, donate_argnums=(0, 1))
def _kicked(v: Sites, g: Sites, key: Array, h: Any, kept: Any, heat: Any) -> list[Sites]:
    def move(noise: Array, v: Array, g: Array) -> tuple[Array, Array]:
        before = v - h / 2 * g
        after = kept * before + heat * noise
        return after, h / 2 * (before + after)

    return _moved(move, key, v, g)


def _packs(key: Array, vector: Weights) -> Iterator[tuple[list[str], Array]]:
    """Pack sites of one type that follow each other, each pack with a key of its own."""
    packs: list[list[str]] = []
    size, dtype = 0, None
    for name, v in vector.items():
        if packs and v.dtype == dtype and size + v.size <= BLOCK:
            packs[-1].append(name)
            size += v.size
        else:
            packs.append([name])
            size, dtype = v.size, v.dtype
    yield from zip(packs, jax.random.split(key, len(packs)), strict=True)


def _moved(move: Move, key: Array, *at: Sites) -> list[Sites]:
    """Apply ``move(noise, *site)``, which gives arrays like those of ``at``, to each site."""

    def whole(key: Array, *at: Sites) -> list[Sites]:
        moved = [move(*each) for each in zip(_noise(key, at[0]), *at, strict=True)]
        return [list(each) for each in zip(*moved, strict=True)]

    if sum(site.size for site in at[0]) <= BLOCK:
        return whole(key, *at)
    return jax.lax.platform_dependent(key, *at, cpu=partial(_in_blocks, whole), default=whole)


def _noise(key: Array, like: Sites) -> Sites:
    """Return standard normal arrays like some others."""
    if len(like) == 1:
        # Of its own shape, so that each device of a mesh draws its part: the numbers are the same.
        return [jax.random.normal(key, like[0].shape, like[0].dtype)]
    ends = np.cumsum([a.size for a in like])
    flat = jax.random.normal(key, (ends[-1],), like[0].dtype)
    return [flat[end - a.size : end].reshape(a.shape) for a, end in zip(like, ends, strict=True)]


def _in_blocks(whole: Callable[..., list[Sites]], key: Array, *at: Sites) -> list[Sites]:
    """Do the same to blocks of one site, each with a key of its own, in place."""
    shape, (count, rest) = at[0][0].shape, divmod(at[0][0].size, BLOCK)

    def block(i: Any, done: Sequence[Array], size: int = BLOCK) -> list[Array]:
        parts = [[jax.lax.dynamic_slice(a, (i * BLOCK,), (size,))] for a in done]
        moved = whole(jax.random.fold_in(key, i), *parts)
        return [
            jax.lax.dynamic_update_slice(a, part, (i * BLOCK,))
            for a, (part,) in zip(done, moved, strict=True)
        ]

    done = jax.lax.fori_loop(0, count, block, [site.ravel() for (site,) in at])
    if rest:
        done = block(jnp.int32(count), done, rest)
    return [[a.reshape(shape)] for a in done]
