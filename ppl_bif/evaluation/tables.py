"""Scores as a table ``(query, train)``, from whatever they are handed over as."""

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["table"]


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


def _picked(scores: xr.DataArray, dim: str, ids: np.ndarray) -> xr.DataArray:
    missing = np.setdiff1d(ids, scores[dim].values)
    if missing.size:
        raise ValueError(f"scores lack {dim} rows {missing[:5].tolist()} of the truth")
    return scores.sel({dim: ids})
