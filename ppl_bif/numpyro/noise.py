"""Noise of minibatch gradients, told from some of their coordinates.

So that a gradient need not be kept until there is another to hold it against.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from ppl_bif.kernel import spacing

__all__ = ["Sketch", "noise_of_halves", "sketch", "squared_distance"]

Sketch = dict[str, Array]


def sketch(gradient: Mapping[str, Array]) -> Sketch:
    """Keep evenly spaced coordinates of each site, ``(coordinate,)``; all of a small one.

    They are scaled so that squared norms are, about, those of the whole.
    """
    kept = {}
    for name, g in gradient.items():
        some = g.ravel()[:: spacing(g.size)]
        kept[name] = some * (g.size / some.size) ** 0.5
    return kept


def squared_distance(a: Sketch, b: Sketch) -> Array:
    """Squared norm of the difference of two gradients, ``()``."""
    return sum(jnp.sum((a[n] - b[n]) ** 2) for n in a)


def noise_of_halves(first: Sketch, whole: Sketch, *, size: int, num_rows: int) -> Array:
    """Variance of n/m times a sum over m rows, from the sum over the first m1 = m // 2 of them.

    The estimates g1, g2 of the two parts, n times the means over their rows, give
    Var(g) = (1 - m/n) m1 m2 / m^2 E||g1 - g2||^2.
    """
    half = size // 2
    one = {n: g / half for n, g in first.items()}
    other = {n: (g - first[n]) / (size - half) for n, g in whole.items()}
    share = half / size
    return (num_rows - size) * num_rows * share * (1 - share) * squared_distance(one, other)
