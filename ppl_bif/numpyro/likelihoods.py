"""Likelihoods: from outputs of a network and targets to a distribution and pointwise values."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from ppl_bif.checks import LIKELIHOODS
from ppl_bif.data import Batch, target
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
    observe: Callable[[Any, Batch], tuple[dist.Distribution, Any]]
    pointwise: Callable[[Any, Batch], Array]


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
        return _from_distribution(likelihood, _NAMED[likelihood])
    if not callable(likelihood):
        raise TypeError(
            f"likelihood must be one of {LIKELIHOODS}, a callable from outputs to a NumPyro "
            f"distribution, or a callable (outputs, batch) -> log-likelihoods; got {likelihood!r}"
        )
    if num_arguments(likelihood, "likelihood") == 1:
        return _from_distribution(describe(likelihood), likelihood)
    return _from_pointwise(describe(likelihood), likelihood)


def _from_distribution(name: str, build: Callable[[Any], dist.Distribution]) -> Likelihood:
    def observe(outputs: Any, batch: Batch) -> tuple[dist.Distribution, Any]:
        return build(outputs), target(batch)

    def pointwise(outputs: Any, batch: Batch) -> Array:
        return build(outputs).log_prob(target(batch))

    return Likelihood(name, observe, pointwise)


def _from_pointwise(name: str, pointwise: Callable[[Any, Batch], Array]) -> Likelihood:
    def observe(outputs: Any, batch: Batch) -> tuple[dist.Distribution, Any]:
        values = pointwise(outputs, batch)
        per_row = values.sum(-1) if values.ndim > 1 else values
        unit = dist.Unit(per_row)
        unit.pointwise = values
        return unit, jnp.zeros((*per_row.shape, 0))

    return Likelihood(name, observe, pointwise)


def _categorical(outputs: Array) -> dist.Distribution:
    return dist.Categorical(logits=outputs)


def _bernoulli(outputs: Array) -> dist.Distribution:
    return dist.Bernoulli(logits=outputs).to_event(outputs.ndim - 1)


def _normal(outputs: Array) -> dist.Distribution:
    return dist.Normal(outputs, 1.0).to_event(outputs.ndim - 1)


def _token_log_likelihood(outputs: Array, batch: Batch) -> Array:
    labels = target(batch)
    values = dist.Categorical(logits=outputs).log_prob(jnp.where(labels == IGNORED, 0, labels))
    return jnp.where(labels == IGNORED, 0.0, values)


_NAMED = {"categorical": _categorical, "bernoulli": _bernoulli, "normal": _normal}
