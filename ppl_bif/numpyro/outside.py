"""Loops outside of compiled programs, for networks that convolve on a CPU.

XLA's convolutions there are several times slower inside a loop than outside of one. So steps are
gone through in Python, and so are chains and rows in scoring. Gradients of more than 2,048 rows
and what warm-up does beside steps still loop inside.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.data import Batch, batches, map_arrays
from ppl_bif.kernel import MEASURE_EVERY
from ppl_bif.numpyro.gradients import Data

__all__ = ["advance", "convolves_on_cpu", "score"]


def convolves_on_cpu(model: Any, batch: Batch) -> bool:
    """Say whether a network has convolutions, by a trace of one row, and runs on a CPU."""
    if model.device.platform != "cpu":
        return False
    row = map_arrays(lambda a: a[:1], batch)
    return "conv_general_dilated" in str(_one_row.trace(model, model.mode, row).jaxpr)


def advance(kernel: Any, held: Any, state: Any, train: Data, steps: int) -> Any:
    """Make one draw, so many steps on, as ``kernel.advance`` does."""
    measured = int(state.i[0]) % MEASURE_EVERY == 0
    state = state._replace(acceptance=jnp.zeros_like(state.acceptance))
    for i in range(int(steps)):
        state = _step(kernel, held, state, train, measured and i == int(steps) - 1)
    return _end(kernel, state, steps)


def score(model: Any, held: Any, weights: Mapping[str, Array], batch: Batch, size: int) -> Array:
    """Log-likelihoods of all rows of all chains, so many at a time, ``(chain, row[, token])``."""
    parts = list(batches(batch, size))
    chains = len(next(iter(weights.values())))
    return jnp.stack(
        [
            jnp.concatenate([_score(model, held, weights, chain, part) for part in parts])
            for chain in range(chains)
        ]
    )


# Jitted for its cache of traces alone.
@partial(jax.jit, static_argnums=0)
def _one_row(model: Any, weights: Any, row: Batch) -> Array:
    return model.log_likelihood(weights, row)


@partial(jax.jit, static_argnums=0)
def _step(kernel: Any, held: Any, state: Any, train: Data, measure: Array) -> Any:
    return kernel.on(kernel.model.holding(held)).step(state, train, measure)


@partial(jax.jit, static_argnums=0)
def _end(kernel: Any, state: Any, steps: Array) -> Any:
    return kernel.end(state, steps)


@partial(jax.jit, static_argnums=0)
def _score(model: Any, held: Any, weights: Any, chain: Array, batch: Batch) -> Array:
    own = {name: w[chain] for name, w in weights.items()}
    return model.holding(held).log_likelihood(own, batch)
