"""Largest curvatures of the potential, by Hessian-vector products: they bound the step size."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppl_bif.kernel import rows_looked_at
from ppl_bif.numpyro.gradients import Data
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.potential import potential

__all__ = ["hessian_product", "lanczos", "share_out", "spread_rows", "top_curvature"]


def spread_rows(model: LocalizedModel, data: Data) -> Array:
    """Choose up to 1,024 evenly spread rows, fewer where they have very many logits."""
    count = rows_looked_at(data.rows, model.logits_per_row(data.batch))
    return jnp.linspace(0, data.rows - 1, count).astype(int)


def share_out(rows: Array, chains: int) -> Array:
    """Give each chain as many rows of its own, or all where they are fewer, ``(chain, m)``."""
    if len(rows) < chains:
        return jnp.broadcast_to(rows, (chains, len(rows)))
    return rows[: len(rows) - len(rows) % chains].reshape(-1, chains).T


def hessian_product(
    model: LocalizedModel, data: Data, weights: Mapping[str, Array], rows: Array
) -> Callable[[Array], Array]:
    """Return v -> (beta H + gamma I) v at some weights, on flat vectors.

    The Hessian is that of some rows, rescaled to all.
    """
    flat, unravel = ravel_pytree(dict(weights))

    def gradient(at: Array) -> Array:
        return jax.grad(lambda w: potential(model, unravel(w), *data, rows)[0])(at)

    return lambda vector: jax.jvp(gradient, (flat,), (vector,))[1]


def top_curvature(product: Callable[[Array], Array], size: int, dtype: Any) -> Array:
    """Largest eigenvalue of a symmetric product, by 12 steps of Lanczos, ``()``."""
    return lanczos(product, size, dtype, rank=1)[0][0]


def lanczos(
    product: Callable[[Array], Array], size: int, dtype: Any, *, rank: int
) -> tuple[Array, Array]:
    """Find the ``rank`` largest eigenpairs of a symmetric product.

    Returns
    -------
    values : Array, (rank,)
        Largest first.
    vectors : Array, (rank, size)
    """
    steps = min(size, 2 * rank + 10)

    def extend(i: int, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, diagonal, beside = found
        image = product(basis[i])
        diagonal = diagonal.at[i].set(jnp.vdot(image, basis[i]))
        # Orthogonalized twice against all: float32 would lose it otherwise.
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        length = jnp.linalg.norm(image)
        following = image / jnp.maximum(length, jnp.finfo(dtype).tiny)
        return basis.at[i + 1].set(following), diagonal, beside.at[i].set(length)

    basis = jnp.zeros((steps + 1, size), dtype).at[0].set(_start(size, dtype))
    empty = jnp.zeros(steps, dtype)
    basis, diagonal, beside = jax.lax.fori_loop(0, steps, extend, (basis, empty, empty))
    small = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    values, vectors = jnp.linalg.eigh(small)
    order = jnp.argsort(-values)[:rank]
    return values[order], vectors[:, order].T @ basis[:-1]


def _start(size: int, dtype: Any) -> Array:
    start = jax.random.normal(jax.random.key(0), (size,), dtype)
    return start / jnp.linalg.norm(start)
