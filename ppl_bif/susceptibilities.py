"""How a component of a network answers a change of the data: covariances under its own weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.blocks import RESOLVED_ERRORS, mean_error
from ppl_bif.covariance import covariance_with_errors
from ppl_bif.learning import losses_at_mode
from ppl_bif.schema import inverse_temperature, root_attrs
from ppl_bif.streaming import refuse_streamed
from ppl_bif.tiles import Estimate
from ppl_bif.traces import Parts, Traces, refuse_unsampled, traces

__all__ = ["susceptibility"]


def susceptibility(
    runs: Mapping[str, Any],
    *,
    full: Any = None,
    train: str = "train_obs",
    query: str = "query_obs",
    by: Any = "sequence",
) -> xr.Dataset:
    r"""Estimate how the expected loss of each component answers more weight on each query.

    Of a component C, weights that are sampled while all others stay at w\*, the observable is
    phi_C(w) = L(w) - L(w\*), with L the mean loss of the training points. The susceptibility to the
    query q (Baker et al. 2025) is

        chi_C(q) = -Cov_C( phi_C, l_q(w) - L(w) ),

    under the local posterior of the component. With a share h of the data moved to q, E_C[phi_C]
    changes by n beta chi h to first order. **Negative: what lowers the loss of all through these
    weights lowers that of q still more; positive: more weight on q raises the component's loss.**

    Parameters
    ----------
    runs
        By name of the component, runs of :func:`ppl_bif.sample` over the same data, each of a model
        with other sites: ``localize(net, sites="*layer1*", localization=..., ...)``. Localization
        and inverse temperature have to be the same.
    full
        A run with all weights. Then the mean of l_q - L that is taken off is that under the whole
        posterior, as in the paper's estimator (its appendix C.4), and chi is
        -E_C[phi_C (l_q - L)] + E_C[phi_C] E[l_q - L]: to the covariance is added E_C[phi_C] times
        how much harder q is, against all, for the whole network than for the component alone.
    train, query
        Variables of ``log_likelihood``: where L is from, and the queries.
    by
        What a point is of rows that hold tokens, as in :func:`ppl_bif.influence`; tokens of a point
        are summed.

    Returns
    -------
    xarray.Dataset
        Dims (component, query): ``susceptibility``, in squared nats; ``mcse``, its Monte Carlo
        standard error; ``resolved``, whether it is more than two of them from 0. The attribute
        ``n_beta`` is the number of training points times beta.
        :func:`ppl_bif.learning_coefficient` of each run is the component's weight-refined learning
        coefficient (Wang et al. 2024).

    Raises
    ------
    ValueError
        If there are no runs, they differ in rows, localization or temperature, or keep no traces.
    BIFError
        As :func:`ppl_bif.influence`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def run(size):  # a component that moves the loss of a by 2, that of b by 1, of c not at all
    ...     moved = size * rng.normal(size=(4, 500, 1)) * np.array([2.0, 1.0, 0.0])
    ...     loglik = xr.Dataset({"y": (("chain", "draw", "row"), -moved)}, {"row": list("abc")})
    ...     return xr.DataTree.from_dict({"log_likelihood": loglik})
    >>> found = susceptibility({"large": run(1.0), "small": run(0.1)})
    >>> found["susceptibility"].sel(component="large", query=["a", "c"]).round(0).values.tolist()
    [-1.0, 1.0]
    """
    if not runs:
        raise ValueError("runs must hold at least one component's run")
    seen = {name: _look(run, train, query, by) for name, run in runs.items()}
    whole = None if full is None else _look(full, train, query, by)
    _check_alike(seen if whole is None else {**seen, "full": whole})
    found = [
        _restricted(one) if whole is None else _against(one, whole, runs[name])
        for name, one in seen.items()
    ]
    value, mcse = np.stack(found, axis=1)
    first = next(iter(seen.values()))
    dims = ("component", "query")
    return xr.Dataset(
        {
            "susceptibility": (dims, value),
            "mcse": (dims, mcse),
            "resolved": (dims, np.abs(value) > RESOLVED_ERRORS * mcse),
        },
        coords={"component": list(seen), "query": first.query.ids}
        | {f"query_{name}": ("query", known) for name, known in first.query.coords.items()},
        attrs={"n_beta": len(first.rows.ids) * first.beta, "inverse_temperature": first.beta},
    )


class _Seen(NamedTuple):
    """A run as its susceptibilities need it.

    Attributes
    ----------
    rows, query
        Traces of both sides.
    mean
        L, the mean loss of the training points, ``(chain, draw, 1)``.
    apart
        l_q - L, ``(chain, draw, query)``.
    beta, gamma
        Inverse temperature, and localization if known.
    """

    rows: Traces
    query: Traces
    mean: np.ndarray
    apart: np.ndarray
    beta: float
    gamma: Any


def _look(run: Any, train: str, query: str, by: Any) -> _Seen:
    refuse_unsampled(run)
    refuse_streamed(run)
    rows, explained = traces(run, train, query, None, Parts(by))
    total = np.sum([rows.read(piece).sum(axis=2, dtype=float) for piece in rows.pieces()], axis=0)
    mean = -total[..., None] / len(rows.ids)
    apart = -explained.read(slice(0, len(explained.ids))) - mean
    gamma = root_attrs(run).get("localization")
    return _Seen(rows, explained, mean, apart, inverse_temperature(run), gamma)


def _check_alike(seen: Mapping[str, _Seen]) -> None:
    """Raise where runs differ in anything but their components."""
    first, *others = seen
    for name in others:
        for what, one, other in (
            ("training ids", seen[first].rows.ids, seen[name].rows.ids),
            ("query ids", seen[first].query.ids, seen[name].query.ids),
            ("inverse temperature", seen[first].beta, seen[name].beta),
            ("localization", seen[first].gamma, seen[name].gamma),
        ):
            if not np.array_equal(one, other):
                raise ValueError(
                    f"runs of components must be alike but for their sites; the {what} of "
                    f"{first!r} and {name!r} differ"
                )


def _restricted(one: _Seen) -> Estimate:
    """Susceptibilities ``(query,)`` under the component's own posterior."""
    found = covariance_with_errors(one.mean, one.apart)
    return Estimate(-found.value[:, 0], found.mcse[:, 0])


def _against(one: _Seen, full: _Seen, run: Any) -> Estimate:
    """Susceptibilities ``(query,)`` with l_q - L centred under the whole posterior."""
    at_mode = losses_at_mode(run, one.rows).sum() / len(one.rows.ids)
    phi = one.mean - at_mode
    series = -phi * (one.apart - full.apart.mean(axis=(0, 1)))
    # The two runs have no noise in common.
    mcse = np.hypot(mean_error(series), phi.mean() * mean_error(full.apart))
    return Estimate(series.mean(axis=(0, 1)), mcse)
