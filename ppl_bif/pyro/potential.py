"""The potential -log p(w, data) of a model, on all rows or rescaled from some of them."""

from collections.abc import Mapping
from typing import Any

from pyro import poutine
from torch import Tensor

from ppl_bif.pyro.model import OBSERVED, PLATE, LocalizedModel

__all__ = ["potential"]


def potential(
    model: LocalizedModel,
    weights: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Evaluate U(w) = -log p(w, data) through Pyro's handlers.

    Parameters
    ----------
    model
        A localized model.
    weights
        Values of its sites.
    args, kwargs
        All of the data, as the model takes it.
    rows
        Indices ``(m,)`` put in place of the plate's, which then rescales by n/m; all if None.

    Returns
    -------
    energy : Tensor, ()
        U(w), or its unbiased estimate from ``rows``.
    log_likelihood : Tensor, (m,) or (m, token)
        Of the rows seen, not tempered.
    """
    values = dict(weights) if rows is None else {**weights, PLATE: rows}
    # Conditioned sites, unlike substituted ones, keep their place in the joint density.
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    observed = trace.nodes[OBSERVED]
    pointwise = getattr(observed["fn"], "pointwise", observed["unscaled_log_prob"])
    return -trace.log_prob_sum(), pointwise
