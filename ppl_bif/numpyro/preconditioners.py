"""Preconditioners: coordinates in which the local posterior is rounder, fixed after warm-up.

Each is a small record that a kernel is built with; ``fit`` gives its *root* S, symmetric, at the
weights of some chains. Kernels move in coordinates u with w = w* + S u, so P = S S.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppl_bif.checks import positive, whole
from ppl_bif.numpyro.curvature import hessian_product, lanczos, share_out, spread_rows
from ppl_bif.numpyro.gradients import Data, Minibatch
from ppl_bif.numpyro.model import LocalizedModel

__all__ = ["LowRank", "Preconditioner", "RMSprop", "Root", "as_preconditioner", "scaled"]

Weights = Mapping[str, Array]


class Root(NamedTuple):
    """A symmetric root S = D + V' diag(c) V.

    Attributes
    ----------
    diagonal
        D by site, shaped like the weights; None for the identity.
    directions
        V by site, orthonormal ``(k, ...)``; None for none.
    change
        c, ``(k,)``.
    """

    diagonal: dict[str, Array] | None = None
    directions: dict[str, Array] | None = None
    change: Array | None = None


class Preconditioner(Protocol):
    """What kernels ask of a preconditioner."""

    @property
    def name(self) -> str:
        """What it is called in the record."""
        ...

    def identity(self, model: LocalizedModel) -> Root:
        """Return the S of before the fit: 1, in the form of what ``fit`` gives.

        Programs depend on the form: one for all S needs to be compiled once.
        """
        ...

    def fit(self, model: LocalizedModel, weights: Weights, data: Data, key: Array) -> Root:
        """Adapt to weights ``(chain, ...)`` by site."""
        ...


def scaled(root: Root, vector: Weights) -> dict[str, Array]:
    """Multiply by S a vector, which is used up."""
    out: dict[str, Array] = dict(vector)
    along: Any = None
    if root.directions is not None:
        along = root.change * sum(
            jnp.tensordot(root.directions[name], v, axes=v.ndim) for name, v in out.items()
        )
    if root.diagonal is not None:
        out = {name: _times(v, root.diagonal[name]) for name, v in out.items()}
    if root.directions is not None:
        out = {name: _bent(v, along, root.directions[name]) for name, v in out.items()}
    return out


@partial(jax.jit, donate_argnums=0)
def _times(v: Array, diagonal: Array) -> Array:
    return v * diagonal


@partial(jax.jit, donate_argnums=0)
def _bent(v: Array, along: Array, directions: Array) -> Array:
    return v + jnp.tensordot(along, directions, axes=1)


class LowRank(NamedTuple):
    """Level the stiffest directions: those of the mean Hessian over the chains, by Lanczos.

    Directions of the ``rank`` largest curvatures are given that of the next one, so that the step
    is bounded by the rest. The Hessian is averaged over the chains' pilot draws, because curvature
    at the draws differs from that at w*; rows are shared out among them. Costs 2 rank + 10
    Hessian-vector products once, and memory rank times the weights.

    Attributes
    ----------
    rank
        Number of directions.
    """

    rank: int = 16

    @property
    def name(self) -> str:
        """What it is called in the record."""
        return f"low_rank({self.rank})"

    def identity(self, model: LocalizedModel) -> Root:
        """Return directions that change nothing."""
        rank = self._rank(model)
        if rank == 0:
            return Root()
        still = {name: jnp.zeros((rank, *w.shape), w.dtype) for name, w in model.mode.items()}
        return Root(None, still, jnp.zeros(rank, model.dtype))

    def fit(self, model: LocalizedModel, weights: Weights, data: Data, key: Array) -> Root:
        """Find the stiffest directions."""
        _, unravel = ravel_pytree(model.mode)
        rows = share_out(spread_rows(model, data), len(next(iter(weights.values()))))
        mean = jax.vmap(
            lambda w, some, v: hessian_product(model, data, w, some)(v), in_axes=(0, 0, None)
        )
        size, dtype = model.num_weights, next(iter(weights.values())).dtype
        rank = self._rank(model)
        if rank == 0:
            return Root()
        values, vectors = lanczos(
            lambda v: mean(dict(weights), rows, v).mean(0), size, dtype, rank=rank + 1
        )
        floor = jnp.maximum(values[-1], model.precision)
        change = jnp.minimum(jnp.sqrt(floor / jnp.maximum(values[:-1], floor)), 1.0) - 1
        return Root(None, jax.vmap(unravel)(vectors[:-1]), change)

    def _rank(self, model: LocalizedModel) -> int:
        return min(whole("rank", self.rank), model.num_weights - 1)


class RMSprop(NamedTuple):
    """Divide by the root mean square of minibatch gradients, adapted in warm-up, then frozen.

    Li et al. 2016 without their correction term, which a frozen preconditioner does not need.
    P = 1 / (floor + rms), scaled to mean 1.

    Attributes
    ----------
    decay
        Of the running mean square.
    floor
        Added to each rms, as a share of the mean rms.
    batch_size, batches
        Rows of each gradient, and gradients averaged.
    """

    decay: float = 0.99
    floor: float = 0.1
    batch_size: int = 64
    batches: int = 200

    @property
    def name(self) -> str:
        """What it is called in the record."""
        return f"rmsprop(decay={self.decay:g}, floor={self.floor:g})"

    def identity(self, model: LocalizedModel) -> Root:
        """Return a diagonal of ones."""
        return Root({name: jnp.ones_like(w) for name, w in model.mode.items()})

    def fit(self, model: LocalizedModel, weights: Weights, data: Data, key: Array) -> Root:
        """Average squared gradients over minibatches and chains."""
        positive("floor", self.floor)
        gradient = Minibatch(min(self.batch_size, data.rows))

        def one(at: Weights, key: Array) -> dict[str, Array]:
            found = gradient(model, (), key, at, data).gradient
            return {name: g**2 for name, g in found.items()}

        def update(mean: dict[str, Array], key: Array) -> tuple[dict[str, Array], None]:
            keys = jax.random.split(key, len(next(iter(weights.values()))))
            squares = jax.vmap(one)(dict(weights), keys)
            return {
                n: self.decay * m + (1 - self.decay) * squares[n].mean(0) for n, m in mean.items()
            }, None

        zero = {name: jnp.zeros_like(w[0]) for name, w in weights.items()}
        mean, _ = jax.lax.scan(update, zero, jax.random.split(key, self.batches))
        rms = {name: jnp.sqrt(m / (1 - self.decay**self.batches)) for name, m in mean.items()}
        typical = ravel_pytree(rms)[0].mean()
        metric = {name: 1 / (self.floor * typical + r) for name, r in rms.items()}
        level = ravel_pytree(metric)[0].mean()
        return Root({name: jnp.sqrt(m / level) for name, m in metric.items()})


_NAMED: dict[str, Preconditioner] = {"low_rank": LowRank(), "rmsprop": RMSprop()}


def as_preconditioner(value: Any) -> Preconditioner | None:
    """Resolve None, a name or a record.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if value is None or hasattr(value, "fit"):
        return value
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]
    raise ValueError(
        f"preconditioner must be None, one of {tuple(_NAMED)}, LowRank(rank=...) or RMSprop(...); "
        f"got {value!r}"
    )
