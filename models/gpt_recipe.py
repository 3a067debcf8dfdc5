"""What the GPTs in PyTorch, Flax and Equinox share: their shape, and how they are trained."""

from typing import NamedTuple

__all__ = ["BETAS", "CLIP", "DECAY", "RISING", "STEP", "Shape"]

STEP, DECAY, CLIP, RISING = 3e-3, 0.05, 1.0, 0.05
BETAS = 0.9, 0.98


class Shape(NamedTuple):
    """How large a GPT is.

    Attributes
    ----------
    vocabulary, context
        Tokens it knows, and how many it sees at most.
    width, layers, heads
        Of the residual stream; blocks; heads of each.
    """

    vocabulary: int
    context: int
    width: int = 128
    layers: int = 4
    heads: int = 4
