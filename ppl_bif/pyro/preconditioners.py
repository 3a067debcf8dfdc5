"""Preconditioners: coordinates in which the local posterior is rounder, fixed after warm-up.

Each is a small record that a kernel is built with; ``fit`` gives its *root* S, symmetric, at the
weights of some chains. Kernels move in coordinates u with w = w* + S u, so P = S S.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ppl_bif.checks import positive, whole
from ppl_bif.pyro.chainwise import flatten, unflatten
from ppl_bif.pyro.curvature import hessian_product, lanczos, share_out, spread_rows
from ppl_bif.pyro.gradients import Data, Gradients, Minibatch

__all__ = ["LowRank", "Preconditioner", "RMSprop", "Root", "as_preconditioner", "scaled"]

Weights = Mapping[str, Tensor]


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

    diagonal: dict[str, Tensor] | None = None
    directions: dict[str, Tensor] | None = None
    change: Tensor | None = None

    @property
    def identity(self) -> bool:
        """Whether it changes nothing."""
        return self.diagonal is None and self.directions is None


class Preconditioner(Protocol):
    """What kernels ask of a preconditioner."""

    @property
    def name(self) -> str:
        """What it is called in the record."""
        ...

    def fit(
        self,
        gradients: Gradients,
        weights: Weights,
        data: Data,
        generator: torch.Generator | None,
    ) -> Root:
        """Adapt to weights ``(chain, ...)`` by site."""
        ...


def scaled(root: Root, vector: Weights) -> dict[str, Tensor]:
    """Multiply by S, each chain of vectors ``(chain, ...)``."""
    out = dict(vector)
    if root.diagonal is not None:
        out = {name: root.diagonal[name] * v for name, v in out.items()}
    if root.directions is not None:
        flat = {name: v.reshape(len(v), -1) for name, v in root.directions.items()}
        along = torch.stack([v.reshape(len(v), -1) @ flat[n].T for n, v in vector.items()]).sum(0)
        change = root.change * along
        out = {name: v + (change @ flat[name]).view_as(v) for name, v in out.items()}
    return out


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

    def fit(
        self,
        gradients: Gradients,
        weights: Weights,
        data: Data,
        generator: torch.Generator | None,
    ) -> Root:
        """Find the stiffest directions."""
        model, flat = gradients.model, flatten(weights)
        rank = min(whole("rank", self.rank), model.num_weights - 1)
        if rank == 0:
            return Root()
        rows = share_out(spread_rows(model, data), len(flat))
        each = hessian_product(model, data, weights, rows)
        (values,), (vectors,) = lanczos(
            lambda v: each(v.expand_as(flat)).mean(0, keepdim=True), flat[:1], rank=rank + 1
        )
        floor = values[-1].clamp_min(model.precision)
        change = (floor / values[:-1].maximum(floor)).sqrt().clamp_max(1.0) - 1
        return Root(None, unflatten(vectors[:-1], weights), change)


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

    def fit(
        self,
        gradients: Gradients,
        weights: Weights,
        data: Data,
        generator: torch.Generator | None,
    ) -> Root:
        """Average squared gradients over minibatches and chains."""
        positive("floor", self.floor)
        estimator = Minibatch(min(self.batch_size, data.rows))
        mean = {name: torch.zeros_like(w[0]) for name, w in weights.items()}
        for _ in range(self.batches):
            found = estimator(gradients, (), generator, weights, data).gradient
            squares = {name: g.square().mean(0) for name, g in found.items()}
            mean = {n: self.decay * m + (1 - self.decay) * squares[n] for n, m in mean.items()}
        rms = {name: (m / (1 - self.decay**self.batches)).sqrt() for name, m in mean.items()}
        typical = _mean(rms)
        metric = {name: 1 / (self.floor * typical + r) for name, r in rms.items()}
        level = _mean(metric)
        return Root({name: (m / level).sqrt() for name, m in metric.items()})


def _mean(values: Weights) -> Tensor:
    return torch.cat([v.flatten() for v in values.values()]).mean()


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
