"""Scores as a table ``(query, train)``, and what they foretell, as one ``(subset, query)``."""

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["outcomes", "outcomes_by_seed", "row_numbers", "table"]


def table(scores: Any, ids: xr.Dataset | None = None) -> np.ndarray:
    """Return scores as floats ``(query, train)``, all finite.

    Parameters
    ----------
    scores
        A Dataset with ``influence``, a DataArray (query, train), or an array.
    ids
        Whose ``query`` and ``train`` rows are to be found by their ids, and in their order.

    Raises
    ------
    ValueError
        If rows are missing, or scores are not finite.
    """
    if isinstance(scores, xr.Dataset):
        scores = scores["influence"]
    if isinstance(scores, xr.DataArray):
        for dim in ("query", "train"):
            if ids is not None and dim in ids.coords and dim in scores.coords:
                scores = _picked(scores, dim, ids[dim].values)
        scores = scores.transpose("query", "train").values
    found = np.asarray(scores, float)
    if found.ndim != 2:
        raise ValueError(f"scores must be (query, train); got {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError("scores are not all finite: did the method diverge?")
    return found


def outcomes_by_seed(truth: xr.Dataset, output: str) -> np.ndarray:
    """Return what became of queries, ``(subset, seed, query)``: larger is better, all finite.

    Parameters
    ----------
    truth
        What :func:`ppl_bif.evaluation.retrain` gave.
    output
        Of the truth. ``loss`` is better when smaller, so it changes sign.

    Raises
    ------
    ValueError
        If the truth has no such output, or values are not finite.
    """
    outputs = [str(name) for name in truth.data_vars if name != "mask"]
    if output not in outputs:
        raise ValueError(f"the truth has no {output!r}; it has {outputs}")
    values = truth[output].transpose("subset", "seed", "query").values.astype(float)
    bad = ~np.isfinite(values).all(axis=(0, 1))
    if bad.any():
        raise ValueError(
            f"{output} of queries {np.flatnonzero(bad)[:5].tolist()} is not finite after some "
            "retraining: leave these queries out, or see why training failed"
        )
    return -values if output == "loss" else values


def outcomes(truth: xr.Dataset, output: str) -> np.ndarray:
    """Return the mean over seeds of :func:`outcomes_by_seed`, ``(subset, query)``."""
    return outcomes_by_seed(truth, output).mean(axis=1)


def row_numbers(given: Any, rows: int, name: str) -> np.ndarray:
    """Return numbers of rows as an array, all of them from 0 to below ``rows``.

    Raises
    ------
    ValueError
        If one is not.
    """
    found = np.asarray(given)
    if not found.size:
        return found.astype(int)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be numbers of rows; got {found.dtype}")
    bad = found[(found < 0) | (found >= rows)]
    if bad.size:
        raise ValueError(f"{name} must be numbers of rows, 0 to {rows - 1}; got {bad[:5].tolist()}")
    return found.astype(int)


def _picked(scores: xr.DataArray, dim: str, ids: np.ndarray) -> xr.DataArray:
    missing = np.setdiff1d(ids, scores[dim].values)
    if missing.size:
        raise ValueError(f"scores lack {dim} rows {missing[:5].tolist()} of the retrainings")
    return scores.sel({dim: ids})
