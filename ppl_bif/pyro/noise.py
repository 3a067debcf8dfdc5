"""Noise of minibatch gradients, told from some of their coordinates.

So that a gradient need not be kept until there is another to hold it against.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_bif.kernel import spacing

__all__ = ["Sketch", "noise_of_halves", "sketch", "squared_distance"]

Sketch = dict[str, Tensor]


def sketch(gradient: Mapping[str, Tensor]) -> Sketch:
    """Keep evenly spaced coordinates of each site, ``(chain, coordinate)``; all of a small one.

    They are scaled so that squared norms are, about, those of the whole.
    """
    kept = {}
    for name, g in gradient.items():
        flat = g.reshape(len(g), -1)
        some = flat[:, :: spacing(flat.shape[1])]
        # A copy, which does not hold on to the rest.
        kept[name] = some * (flat.shape[1] / some.shape[1]) ** 0.5
    return kept


def squared_distance(a: Sketch, b: Sketch) -> Tensor:
    """Squared norm of the difference of two gradients, ``(chain,)``."""
    return torch.stack([(a[n] - b[n]).square().sum(1) for n in a]).sum(0)


def noise_of_halves(first: Sketch, whole: Sketch, *, size: int, num_rows: int) -> Tensor:
    """Variance of n/m times a sum over m rows, from the sum over the first m1 = m // 2 of them.

    The estimates g1, g2 of the two parts, n times the means over their rows, give
    Var(g) = (1 - m/n) m1 m2 / m^2 E||g1 - g2||^2.
    """
    half = size // 2
    one = {n: g / half for n, g in first.items()}
    other = {n: (g - first[n]) / (size - half) for n, g in whole.items()}
    share = half / size
    return (num_rows - size) * num_rows * share * (1 - share) * squared_distance(one, other)
