"""Largest curvature of the potential at the trained weights, which bounds the step size."""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_bif.data import num_rows
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.potential import potential

__all__ = ["curvature"]

Vector = dict[str, Tensor]


def curvature(
    model: LocalizedModel,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    iterations: int = 30,
    max_rows: int = 1024,
) -> float:
    """Estimate the top eigenvalue of beta H + gamma I at w* by power iteration.

    Parameters
    ----------
    model
        The localized model.
    args, kwargs
        Training data, as the model takes it.
    iterations
        Hessian-vector products, each the cost of about two gradients.
    max_rows
        Rows used; evenly spread ones where there are more.

    Returns
    -------
    float
        In units of 1 / weight^2: a full-batch SGLD step is stable below 4 over it.
    """
    rows = num_rows(dict(kwargs) or args)
    example = next(iter(model.mode.values()))
    chosen = torch.linspace(0, rows - 1, min(rows, max_rows), device=example.device).long()

    def gradient(weights: Vector) -> Vector:
        return torch.func.grad(lambda w: potential(model, w, args, kwargs, chosen)[0])(weights)

    generator = torch.Generator().manual_seed(0)
    start = {n: torch.randn(w.shape, generator=generator).to(w) for n, w in model.mode.items()}
    top = _scaled(start, 1 / _dot(start, start) ** 0.5)
    with pyro.validation_enabled(False):
        # The graph of the gradient is built once; each product goes back through it.
        pull = torch.func.vjp(gradient, dict(model.mode))[1]
        for _ in range(iterations):
            product = pull(top, retain_graph=True)[0]
            top = _scaled(product, 1 / _dot(product, product) ** 0.5)
        return abs(_dot(top, pull(top)[0]))


def _dot(a: Vector, b: Vector) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))


def _scaled(vector: Vector, factor: float) -> Vector:
    return {name: factor * value for name, value in vector.items()}
