"""Loops outside of compiled programs, on a CPU, for networks that convolve and for large ones.

XLA's convolutions there are several times slower inside a loop than outside of one; and a program
of many steps holds several copies of the weights. So steps are gone through in Python, chain by
chain, and chains and rows of networks that convolve in scoring. A step of a large network is
several programs: the gradient, and the move of each site. Gradients of more than 2,048 rows and
what warm-up does beside steps still loop inside.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.data import Batch, batches, map_arrays
from ppl_bif.numpyro.alike import Alike
from ppl_bif.numpyro.gradients import Data, Estimate
from ppl_bif.numpyro.model import Held

__all__ = ["advance", "convolves", "is_large", "on_cpu", "score"]

# From so many weights on, calls from Python take next to nothing of a step.
LARGE = 2**22


def on_cpu(model: Any) -> bool:
    """Say whether a model's weights are on one CPU."""
    return model.device.platform == "cpu" and not model.laid


def convolves(model: Any, batch: Batch) -> bool:
    """Say whether a network has convolutions, by a trace of one row."""
    row = map_arrays(lambda a: a[:1], batch)
    return "conv_general_dilated" in str(_one_row.trace(model, model.mode, row).jaxpr)


def is_large(kernel: Any) -> bool:
    """Say whether a kernel's step is to be several programs."""
    return kernel.by_site and kernel.model.num_weights >= LARGE


def advance(program: Alike, held: Held, state: Any, train: Data, steps: int) -> Any:
    """Make one draw, so many steps on, as ``kernel.advance`` does; may use up the weights."""
    kernel, draw, count = program.of, int(state.i[0]), int(steps)
    step = partial(_step_by_site if is_large(kernel) else _step, program, held)
    moved = []
    for chain in _chains(state):
        chain = chain._replace(acceptance=jnp.zeros_like(chain.acceptance))
        for i in range(count):
            chain = step(chain, train, kernel.measures(draw, i, count))
        moved.append(chain)
    return _end(program, _together(moved), steps)


def score(model: Alike, held: Held, weights: Mapping[str, Array], batch: Batch, size: int) -> Array:
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


def _chains(state: Any) -> list[Any]:
    """Return each chain as a state of one."""
    count = len(state.i)
    return [state] if count == 1 else [_chain(state, chain) for chain in range(count)]


def _together(states: Sequence[Any]) -> Any:
    return states[0] if len(states) == 1 else _joined(states)


@jax.jit
def _chain(state: Any, chain: Array) -> Any:
    own = jax.tree.map(lambda a: a[chain][None], state._replace(shared=None))
    return own._replace(shared=state.shared)


@jax.jit
def _joined(states: Sequence[Any]) -> Any:
    own = [state._replace(shared=None) for state in states]
    whole = jax.tree.map(lambda *each: jnp.concatenate(each), *own)
    return whole._replace(shared=states[0].shared)


@partial(jax.jit, static_argnums=0)
def _step(kernel: Alike, held: Held, state: Any, train: Data, measure: Array) -> Any:
    return kernel.of.on(kernel.of.model.holding(held)).step(state, train, measure)


def _step_by_site(kernel: Alike, held: Held, state: Any, train: Data, measure: bool) -> Any:
    return kernel.of.by(_Compiled(kernel, held)).step(state, train, measure)


class _Compiled(NamedTuple):
    """The gradient estimator of a kernel as a program of its own."""

    kernel: Alike
    held: Held

    def __call__(self, model: Any, *args: Any, measure: bool) -> Estimate:
        return _estimate(self.kernel, self.held, *args, measure)


@partial(jax.jit, static_argnames=("kernel", "measure"))
def _estimate(
    kernel: Alike, held: Held, stored: Any, key: Array, weights: Any, data: Data, measure: bool
) -> Estimate:
    model = kernel.of.model.holding(held)
    return kernel.of.gradient(model, stored, key, weights, data, measure=measure)


def _end(kernel: Alike, state: Any, steps: int) -> Any:
    own = state._replace(shared=None, step_size=None)
    ended = _ended(kernel, own, steps)
    return ended._replace(shared=state.shared, step_size=state.step_size)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _ended(kernel: Alike, own: Any, steps: Array) -> Any:
    return kernel.of.end(own, steps)


@partial(jax.jit, static_argnums=0)
def _score(model: Alike, held: Held, weights: Any, chain: Array, batch: Batch) -> Array:
    own = {name: w[chain] for name, w in weights.items()}
    return model.of.holding(held).log_likelihood(own, batch)
