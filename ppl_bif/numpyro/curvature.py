"""Largest curvature of the potential at the trained weights, which bounds the step size."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppl_bif.data import num_rows
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.potential import potential

__all__ = ["curvature"]


def curvature(
    model: LocalizedModel,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    iterations: int = 30,
    max_rows: int = 1024,
) -> Array:
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
    Array, ()
        In units of 1 / weight^2: a full-batch SGLD step is stable below 4 over it.
    """
    rows = num_rows(dict(kwargs) or args)
    chosen = jnp.linspace(0, rows - 1, min(rows, max_rows)).astype(int)
    mode, unravel = ravel_pytree(model.mode)

    def gradient(flat: Array) -> Array:
        energy = lambda w: potential(model, unravel(w), args, kwargs, chosen)[0]  # noqa: E731
        return jax.grad(energy)(flat)

    def improve(_: int, direction: Array) -> Array:
        product = jax.jvp(gradient, (mode,), (direction,))[1]
        return product / jnp.linalg.norm(product)

    start = jax.random.normal(jax.random.key(0), mode.shape, mode.dtype)
    top = jax.lax.fori_loop(0, iterations, improve, start / jnp.linalg.norm(start))
    return jnp.abs(jnp.vdot(top, jax.jvp(gradient, (mode,), (top,))[1]))
