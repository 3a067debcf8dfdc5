"""The potential -log p(w, data) of a model, on all rows or rescaled from some of them."""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array
from numpyro.infer.util import log_density

from ppl_bif.numpyro.model import OBSERVED, PLATE

__all__ = ["potential"]


def potential(
    model: Callable[..., None],
    weights: Mapping[str, Array],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rows: Array | None = None,
) -> tuple[Array, Array]:
    """Evaluate U(w) = -log p(w, data) through NumPyro's handlers.

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
    energy : Array, ()
        U(w), or its unbiased estimate from ``rows``.
    log_likelihood : Array, (m,) or (m, token)
        Of the rows seen, not tempered.
    """
    values = dict(weights) if rows is None else {**weights, PLATE: rows}
    log_joint, trace = log_density(model, args, dict(kwargs), values)
    observed = trace[OBSERVED]
    pointwise = getattr(observed["fn"], "pointwise", None)
    return -log_joint, observed["fn"].log_prob(observed["value"]) if pointwise is None else (
        pointwise
    )
