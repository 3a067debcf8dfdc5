"""Rows of a minibatch: drawn without replacement, without ranking all of the data."""

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.kernel import MANY_ROWS, spare_draws

__all__ = ["draw_rows"]


def draw_rows(key: Array, num_rows: int, size: int) -> Array:
    """Draw a uniform subset of ``0 ... num_rows - 1``, ``(size,)``, in random order.

    The first different ones of somewhat more draws with replacement: whichever values they take,
    all subsets are alike. Where the subset is a large share of all rows, those of the largest of
    as many uniforms.

    Examples
    --------
    >>> rows = draw_rows(jax.random.key(0), 1000, 64)
    >>> rows.shape, len(set(rows.tolist()))
    ((64,), 64)
    """
    if MANY_ROWS * size > num_rows:
        return jax.lax.top_k(jax.random.uniform(key, (num_rows,)), size)[1]
    spare = spare_draws(size)
    drawn, turns = jax.random.randint(key, (spare,), 0, num_rows), jnp.arange(spare)
    earliest = jnp.full(num_rows, spare).at[drawn].min(turns)
    fresh = earliest[drawn] == turns
    places = jnp.where(fresh, jnp.cumsum(fresh) - 1, size)
    return jnp.zeros(size, drawn.dtype).at[places].set(drawn, mode="drop")
