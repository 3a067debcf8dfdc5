"""How local a prior is: what its draws do to the loss of the network."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.numpyro.curvature import spread_rows
from ppl_bif.numpyro.gradients import Data
from ppl_bif.numpyro.model import LocalizedModel

__all__ = ["rise_at_prior"]

DRAWS = 16


def rise_at_prior(model: LocalizedModel, data: Data, localization: Any) -> Array:
    r"""Mean rise of the loss of a target over that at w*, in nats, by draws of $N(w^*, I/\gamma)$.

    Of up to 1,024 evenly spread rows, fewer where they have very many logits; of tokens, those
    that count.
    """
    some, mode = data.take(spread_rows(model, data)), dict(model.mode)
    before = model.log_likelihood(model.cast(mode), some)
    leaves, structure = jax.tree.flatten(mode)

    def rise(key: Array) -> Array:
        keys = jax.random.split(key, len(leaves))
        moved = [
            w + jax.random.normal(k, w.shape, w.dtype) / jnp.sqrt(localization)
            for w, k in zip(leaves, keys, strict=True)
        ]
        values = model.log_likelihood(model.cast(jax.tree.unflatten(structure, moved)), some)
        return jnp.sum(before - values)

    rises = jax.lax.map(rise, jax.random.split(jax.random.key(0), DRAWS))
    return rises.mean() / jnp.maximum(jnp.sum(before != 0), 1)
