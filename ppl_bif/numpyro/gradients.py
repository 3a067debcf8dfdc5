"""Gradient estimators: unbiased estimates of the gradient of the potential, with their noise."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.potential import potential

__all__ = ["Estimate", "energy_gradient", "minibatch", "minibatch_with_noise"]

Weights = Mapping[str, Array]
Gradient = Callable[..., tuple[dict[str, Array], Array]]


class Estimate(NamedTuple):
    """An estimate of the gradient of the potential.

    Attributes
    ----------
    gradient
        By site, shaped like the weights.
    loss
        Mean loss of the rows seen, ``()``.
    noise
        Estimated total variance of ``gradient`` over minibatches, ``()``; NaN where not measured.
    """

    gradient: dict[str, Array]
    loss: Array
    noise: Array


def energy_gradient(model: LocalizedModel) -> Gradient:
    """Return ``(weights, args, kwargs, rows) -> (gradient, loss)`` of the potential."""

    def gradient(
        weights: Weights, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: Array | None
    ) -> tuple[dict[str, Array], Array]:
        def energy(values: Weights) -> tuple[Array, Array]:
            return potential(model, values, args, kwargs, rows)

        return jax.grad(energy, has_aux=True)(dict(weights))

    return gradient


def minibatch(
    gradient: Gradient,
    key: Array,
    weights: Weights,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    num_rows: int,
    batch_size: int,
) -> Estimate:
    """Estimate the gradient from rows drawn without replacement (all of them: exactly)."""
    rows = _draw(key, num_rows, batch_size)
    estimate, loss = gradient(weights, args, kwargs, rows)
    exact = batch_size == num_rows
    return Estimate(estimate, loss, jnp.asarray(0.0 if exact else jnp.nan))


def minibatch_with_noise(
    gradient: Gradient,
    key: Array,
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
        return minibatch(gradient, key, weights, args, kwargs, **size)
    rows = _draw(key, num_rows, batch_size)
    assert rows is not None
    first = batch_size // 2
    share = first / batch_size
    g1, loss1 = gradient(weights, args, kwargs, rows[:first])
    g2, loss2 = gradient(weights, args, kwargs, rows[first:])
    squares = sum(jnp.sum((g1[name] - g2[name]) ** 2) for name in g1)
    return Estimate(
        {name: share * g1[name] + (1 - share) * g2[name] for name in g1},
        share * loss1 + (1 - share) * loss2,
        (1 - batch_size / num_rows) * share * (1 - share) * squares,
    )


def _draw(key: Array, num_rows: int, batch_size: int) -> Array | None:
    if batch_size == num_rows:
        return None
    # The largest of n uniforms are a uniform subset, several times quicker than a permutation.
    return jax.lax.top_k(jax.random.uniform(key, (num_rows,)), batch_size)[1]
