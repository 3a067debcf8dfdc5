"""How local a prior is: what its draws do to the loss of the network."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppl_bif.kernel import PRIOR_DRAWS
from ppl_bif.numpyro.curvature import spread_rows
from ppl_bif.numpyro.gradients import Data
from ppl_bif.numpyro.model import LocalizedModel

__all__ = ["rise_at_prior"]


def rise_at_prior(model: LocalizedModel, data: Data, localization: Any) -> Array:
    r"""Mean rise of the loss of a target over that at w*, in nats, by draws of $N(w^*, I/\gamma)$.

    Of up to 1,024 evenly spread rows, fewer where they have very many logits; of tokens, those
    that count.
    """
    some = data.take(spread_rows(model, data))
    before = model.log_likelihood(model.cast(model.mode), some)
    # Of all weights at once: each call of the generator takes most of a second to compile.
    mode, unravel = ravel_pytree(dict(model.mode))

    def rise(key: Array) -> Array:
        noise = jax.random.normal(key, mode.shape, mode.dtype)
        moved = unravel(mode + noise / jnp.sqrt(localization))
        return jnp.sum(before - model.log_likelihood(model.cast(moved), some))

    rises = jax.lax.map(rise, jax.random.split(jax.random.key(0), PRIOR_DRAWS))
    return rises.mean() / jnp.maximum(jnp.sum(before != 0), 1)
