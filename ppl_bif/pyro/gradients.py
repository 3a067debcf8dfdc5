"""Gradient estimators: unbiased estimates of the gradient of the potential, with their noise."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_bif.pyro.chainwise import Chainwise
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.potential import potential

__all__ = ["Estimate", "energy_gradient", "minibatch", "minibatch_with_noise"]

Weights = Mapping[str, Tensor]
Gradient = Callable[..., tuple[dict[str, Tensor], Tensor]]


class Estimate(NamedTuple):
    """An estimate of the gradient of the potential, for each chain.

    Attributes
    ----------
    gradient
        By site, ``(chain, ...)``.
    loss
        Mean loss of the rows seen, ``(chain,)``.
    noise
        Estimated total variance of ``gradient`` over minibatches, ``(chain,)``; NaN where not
        measured.
    """

    gradient: dict[str, Tensor]
    loss: Tensor
    noise: Tensor


def energy_gradient(model: LocalizedModel) -> Gradient:
    """Return ``(weights, args, kwargs, rows) -> (gradient, loss)`` of the potential, chainwise."""
    mapped = Chainwise(partial(_one_chain, model))

    def gradient(
        weights: Weights, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        chosen = () if rows is None else (rows,)
        return mapped((dict(weights), chosen), (args, dict(kwargs)))

    return gradient


def _one_chain(
    model: LocalizedModel,
    weights: Weights,
    chosen: tuple[Tensor, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[dict[str, Tensor], Tensor]:
    def energy(values: Weights) -> tuple[Tensor, Tensor]:
        return potential(model, values, args, kwargs, *chosen)

    return torch.func.grad(energy, has_aux=True)(weights)


def minibatch(
    gradient: Gradient,
    generator: torch.Generator | None,
    weights: Weights,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    num_rows: int,
    batch_size: int,
) -> Estimate:
    """Estimate the gradient from rows drawn without replacement (all of them: exactly)."""
    rows = _draw(generator, weights, num_rows, batch_size)
    estimate, loss = gradient(weights, args, kwargs, rows)
    exact = batch_size == num_rows
    return Estimate(estimate, loss, torch.full_like(loss, 0.0 if exact else torch.nan))


def minibatch_with_noise(
    gradient: Gradient,
    generator: torch.Generator | None,
    weights: Weights,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    num_rows: int,
    batch_size: int,
) -> Estimate:
    """Do as :func:`minibatch`, and measure the noise from the two halves of the minibatch.

    The halves g1, g2 of sizes m1, m2 give Var(g) = (1 - m/n) m1 m2 / m^2 E||g1 - g2||^2, at the
    price of the one gradient.
    """
    if batch_size in (1, num_rows):
        size = {"num_rows": num_rows, "batch_size": batch_size}
        return minibatch(gradient, generator, weights, args, kwargs, **size)
    rows = _draw(generator, weights, num_rows, batch_size)
    assert rows is not None
    first = batch_size // 2
    share = first / batch_size
    g1, loss1 = gradient(weights, args, kwargs, rows[:, :first])
    g2, loss2 = gradient(weights, args, kwargs, rows[:, first:])
    squares = torch.stack([(g1[n] - g2[n]).square().flatten(1).sum(1) for n in g1]).sum(0)
    return Estimate(
        {name: share * g1[name] + (1 - share) * g2[name] for name in g1},
        share * loss1 + (1 - share) * loss2,
        (1 - batch_size / num_rows) * share * (1 - share) * squares,
    )


def _draw(
    generator: torch.Generator | None, weights: Weights, num_rows: int, batch_size: int
) -> Tensor | None:
    if batch_size == num_rows:
        return None
    example = next(iter(weights.values()))
    # The largest of n uniforms are a uniform subset, drawn for all chains at once.
    ranks = torch.rand(len(example), num_rows, generator=generator, device=example.device)
    return ranks.topk(batch_size, dim=1, sorted=False).indices
