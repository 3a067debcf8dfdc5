"""What expectations become under other weights of the data, without sampling again."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.approximation import Weights, importance_weights
from ppl_bif.blocks import RESOLVED_ERRORS, block_means, blocks_against
from ppl_bif.schema import inverse_temperature, pareto_smoothed
from ppl_bif.traces import Parts, Traces, refuse_unsampled, traces
from ppl_bif.weighted import covariance_under

__all__ = ["reweight"]

# First order is called not enough where the second adds so large a part of it, and is resolved.
CURVED_SHARE = 0.25


def reweight(
    idata: Any,
    weights: Any,
    *,
    observable: Any = None,
    groups: Any = None,
    train: Any = "train_obs",
    query: Any = "query_obs",
) -> xr.Dataset:
    r"""Foretell the shift of expectations when rows are dropped, doubled or weighted otherwise.

    With weights $v_i$ on the log-likelihoods in place of 1, and
    $L = \beta \sum_i (v_i - 1) \log p_i$, $\E[\phi]$ becomes $\E[\phi \exp(L)] / \E[\exp(L)]$. To
    first order the shift is $\Cov(L, \phi)$, the sum of the rows' influences times the change of
    their weights (Giordano, Broderick & Jordan 2018); to second order a half of the third cumulant
    of L, L and $\phi$ is added. Importance sampling, with Pareto-smoothed weights (Vehtari et al.
    2024), stands beside them.

    Parameters
    ----------
    idata
        Any InferenceData or DataTree with pointwise log-likelihoods.
    weights
        A mapping from rows' ids (or groups') to weights, the others staying at 1: ``{"Choate": 0}``
        drops a school. Or an array ``(row,)``, or ``(scenario, row)`` for several at once; a
        DataArray's first coordinate names the scenarios.
    observable
        As in :func:`ppl_bif.influence`; by default the query's log-likelihoods.
    groups
        Weight groups of rows, as in :func:`ppl_bif.influence`.
    train, query
        Variables of ``log_likelihood``, as in :func:`ppl_bif.influence`.

    Returns
    -------
    xarray.Dataset
        Dims (scenario, query), in units of the observable: ``mean``, as it is; ``shift`` to first
        order and ``mcse``; ``second_order`` and ``importance``, the shift by these, each with its
        ``..._mcse``; ``curved``, where second order adds more than a quarter of the first and more
        than two of its own errors. By scenario ``pareto_k``: above 0.7 importance sampling is not
        to be trusted. A UserWarning says where first order is not enough.

    Raises
    ------
    ValueError
        If a row is unknown, weights are negative or not finite, or their shape is wrong.
    BIFError
        As :func:`ppl_bif.influence`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(4, 1000)) / 2  # the mean of four observations, sd 1, flat prior
    >>> y = np.array([-1.0, 0.0, 0.0, 1.0])
    >>> loglik = xr.Dataset({"y": (("chain", "draw", "row"), -((y - theta[..., None]) ** 2) / 2)})
    >>> posterior = xr.Dataset({"theta": (("chain", "draw"), theta)})
    >>> run = xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": loglik})
    >>> found = reweight(run, {3: 0}, observable="theta")  # the mean of three is -1/3
    >>> found["importance"].round(1).item(), bool(found["curved"].item())
    (-0.3, False)
    """
    refuse_unsampled(idata)
    rows, explained = traces(idata, train, query, observable, Parts(groups=groups))
    plan = _plan(weights, rows.ids)
    beta = inverse_temperature(idata)
    tilt = beta * _tilts(rows, plan.values - 1)
    phi = explained.read(slice(0, len(explained.ids))).astype(float)
    known = importance_weights(idata, rows.chains)
    base = (
        Weights(np.ones(tilt.shape[:2]), np.zeros(tilt.shape[:2]), 0.0) if known is None else known
    )
    own = None if known is None else known.values
    middle = (base.values[..., None] * tilt).mean(axis=1, keepdims=True)
    # Chains of MCMC each have their own mean; independent draws have one.
    bent = tilt - (middle if known is None else middle.mean(axis=0))
    first, second, added = (
        covariance_under(own, one, phi) for one in (tilt, tilt + bent**2 / 2, bent**2 / 2)
    )
    weighted = [_importance(tilt[..., s], phi, base) for s in range(tilt.shape[2])]
    curved = (np.abs(added.value) > CURVED_SHARE * np.abs(first.value)) & (
        np.abs(added.value) > RESOLVED_ERRORS * added.mcse
    )
    dims = ("scenario", "query")
    layers = {
        "shift": first.value.T,
        "mcse": first.mcse.T,
        "second_order": second.value.T,
        "second_order_mcse": second.mcse.T,
        "importance": np.stack([one.shift for one in weighted]),
        "importance_mcse": np.stack([one.mcse for one in weighted]),
        "curved": curved.T,
    }
    found = xr.Dataset(
        {"mean": ("query", (base.values[..., None] * phi).mean(axis=(0, 1)))}
        | {name: (dims, values) for name, values in layers.items()}
        | {"pareto_k": ("scenario", np.array([one.k for one in weighted]))},
        coords={"scenario": plan.names, "query": explained.ids},
        attrs={"inverse_temperature": beta, "chains_used": rows.chains},
    )
    _warn(found)
    return found


class _Plan(NamedTuple):
    """Weights ``(scenario, row)`` and what the scenarios are called."""

    names: np.ndarray
    values: np.ndarray


def _plan(weights: Any, ids: np.ndarray) -> _Plan:
    if isinstance(weights, Mapping):
        values, known = np.ones((1, len(ids))), {one: at for at, one in enumerate(ids)}
        for row, weight in weights.items():
            if row not in known:
                raise ValueError(f"there is no row {row!r}; there are {ids[:5].tolist()} ...")
            values[0, known[row]] = weight
        if len(known) < len(ids):
            raise ValueError(
                "several rows have the same id: weight them together by groups=, or pass an array"
            )
    else:
        values = np.atleast_2d(np.asarray(weights, float))
    if values.ndim != 2 or values.shape[1] != len(ids):
        raise ValueError(
            f"weights must be of {len(ids)} rows, (row,) or (scenario, row); got {values.shape}"
        )
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("weights must be finite and at least 0")
    named = isinstance(weights, xr.DataArray) and weights.ndim == 2
    names = weights[weights.dims[0]].values if named else np.arange(len(values))
    return _Plan(names, values)


def _tilts(rows: Traces, change: np.ndarray) -> np.ndarray:
    """Sum log-likelihoods times the change of their weights, ``(chain, draw, scenario)``."""
    if not change.any():
        raise ValueError("all weights are 1: nothing changes")
    moved = [piece for piece in rows.pieces() if change[:, piece].any()]
    return np.sum([rows.read(part).astype(float) @ change[:, part].T for part in moved], axis=0)


class _Weighted(NamedTuple):
    """Shifts and errors by importance sampling, ``(query,)``, and Pareto's k."""

    shift: np.ndarray
    mcse: np.ndarray
    k: float


def _importance(tilt: np.ndarray, phi: np.ndarray, base: Weights) -> _Weighted:
    log_weights, k = pareto_smoothed((base.log_ratios + tilt).ravel())
    weights = tilt.size * np.exp(log_weights).reshape(*tilt.shape, 1)
    now = base.values[..., None]
    mean = (now * phi).mean(axis=(0, 1))
    shift = (weights * phi).mean(axis=(0, 1)) - mean
    # The delta method: of the ratio, less the mean as it is.
    series = weights * (phi - mean - shift) - now * (phi - mean)
    blocks = blocks_against(tilt[..., None], series).blocks
    means = block_means(series, blocks).reshape(-1, phi.shape[2])
    return _Weighted(shift, means.std(axis=0, ddof=1) / np.sqrt(len(means)), k)


def _warn(found: xr.Dataset) -> None:
    curved = found["curved"].any("query")
    if curved.any():
        some = found["scenario"].values[curved.values][:5].tolist()
        good = float(found["pareto_k"].where(curved).max()) <= 0.7
        advice = "importance" if good else "second_order, or a new fit (pareto_k is above 0.7)"
        warnings.warn(f"first order is not enough in scenarios {some}: take {advice}", stacklevel=3)
