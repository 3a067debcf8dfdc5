"""Products with second derivatives."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["hessian_times"]

Weights = TypeVar("Weights", Tensor, dict[str, Tensor])


def hessian_times(function: Callable[[Weights], Tensor], at: Weights, vector: Weights) -> Weights:
    """Multiply the Hessian of a scalar function of a tensor, or of named ones, by a vector.

    Back through the derivative along the vector, which takes less than going back twice: that is
    left to networks with operations that have no forward derivative.
    """
    _load_forward_rules()
    # Fused attention has neither a forward nor a second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        # What PyTorch says of a missing rule; a network's own error comes again below.
        with suppress(RuntimeError):
            return torch.func.grad(lambda w: torch.func.jvp(function, (w,), (vector,))[1])(at)
        return torch.func.vjp(torch.func.grad(function), at)[1](vector)[0]


@cache
def _load_forward_rules() -> None:
    """Let PyTorch compile what it does at first use, with a warning about itself."""
    zero = torch.zeros(())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (zero,), (zero,))
