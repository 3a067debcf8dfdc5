"""Likelihoods: from outputs of a network and targets to a distribution and pointwise values."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ppl_bif.checks import LIKELIHOODS
from ppl_bif.data import Batch, target
from ppl_bif.pyro.graphs import FEW
from ppl_bif.signatures import describe, num_arguments
from ppl_bif.text import IGNORED

__all__ = ["Likelihood", "as_likelihood"]


class Likelihood(NamedTuple):
    """How outputs explain targets.

    Attributes
    ----------
    name
        What is recorded of it.
    observe
        ``(outputs, batch) -> (distribution, value)``, batch shape ``(row,)``.
    pointwise
        ``(outputs, batch) -> log-likelihoods``, ``(row,)`` or ``(row, token)``.
    """

    name: str
    observe: Callable[[Any, Batch], tuple[TorchDistributionMixin, Any]]
    pointwise: Callable[[Any, Batch], Tensor]


def as_likelihood(likelihood: Any) -> Likelihood:
    """Resolve a name, a callable to a distribution, or a callable to log-likelihoods.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is neither a name nor a callable of one or two arguments.
    """
    if isinstance(likelihood, str):
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood must be one of {LIKELIHOODS}; got {likelihood!r}")
        if likelihood == "tokens":
            return _from_pointwise(likelihood, _token_log_likelihood)
        named = _from_distribution(likelihood, _NAMED[likelihood])
        if likelihood == "categorical":
            return named._replace(pointwise=_categorical_log_likelihood)
        return named
    if not callable(likelihood):
        raise TypeError(
            f"likelihood must be one of {LIKELIHOODS}, a callable from outputs to a Pyro "
            f"distribution, or a callable (outputs, batch) -> log-likelihoods; got {likelihood!r}"
        )
    if num_arguments(likelihood, "likelihood") == 1:
        return _from_distribution(describe(likelihood), likelihood)
    return _from_pointwise(describe(likelihood), likelihood)


def _from_distribution(name: str, build: Callable[[Any], TorchDistributionMixin]) -> Likelihood:
    def observe(outputs: Any, batch: Batch) -> tuple[TorchDistributionMixin, Any]:
        return build(outputs), target(batch)

    def pointwise(outputs: Any, batch: Batch) -> Tensor:
        return build(outputs).log_prob(target(batch))

    return Likelihood(name, observe, pointwise)


def _from_pointwise(name: str, pointwise: Callable[[Any, Batch], Tensor]) -> Likelihood:
    def observe(outputs: Any, batch: Batch) -> tuple[TorchDistributionMixin, Any]:
        values = pointwise(outputs, batch)
        per_row = values.sum(-1) if values.ndim > 1 else values
        unit = dist.Unit(per_row, validate_args=False)
        unit.pointwise = values
        return unit, per_row.new_empty((*per_row.shape, 0))

    return Likelihood(name, observe, pointwise)


def _categorical(outputs: Tensor) -> TorchDistributionMixin:
    return dist.Categorical(logits=outputs)


def _bernoulli(outputs: Tensor) -> TorchDistributionMixin:
    return dist.Bernoulli(logits=outputs).to_event(outputs.ndim - 1)


def _normal(outputs: Tensor) -> TorchDistributionMixin:
    return dist.Normal(outputs, 1.0).to_event(outputs.ndim - 1)


def _categorical_log_likelihood(outputs: Tensor, batch: Batch) -> Tensor:
    return _of_labels(outputs, target(batch))


def _token_log_likelihood(outputs: Tensor, batch: Batch) -> Tensor:
    labels = target(batch)
    values = _of_labels(outputs, torch.where(labels == IGNORED, 0, labels))
    return torch.where(labels == IGNORED, 0.0, values)


def _of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities of labels ``(...)`` under logits ``(..., class)``.

    Those of ``dist.Categorical``, in fewer operations.
    """
    axis = -1
    if logits.device.type == "cpu" and logits.shape[-1] < FEW:
        logits, axis = logits.mT.contiguous(), -2
    return logits.log_softmax(axis).gather(axis, labels.long().unsqueeze(axis)).squeeze(axis)


_NAMED = {"categorical": _categorical, "bernoulli": _bernoulli, "normal": _normal}
