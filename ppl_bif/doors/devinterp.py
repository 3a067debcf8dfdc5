"""Draws that devinterp made, read as a run of ours: its losses of two sets of rows."""

from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.data import as_ids
from ppl_bif.errors import BIFError
from ppl_bif.schema import inference_data

__all__ = ["from_devinterp"]


def from_devinterp(
    tree: Any,
    *,
    train: str,
    query: str,
    num_train: int,
    train_ids: Any = None,
    query_ids: Any = None,
) -> Any:
    """Read what ``devinterp.slt.sampling.sample`` returned.

    Parameters
    ----------
    tree
        The DataTree that it returned, or that ``xarray.open_datatree`` finds at its
        ``output_path``.
    train, query
        Names of its observables, whose losses are ``loss_NAME`` (chain, draw, row, token).
    num_train
        Rows that were sampled from: the inverse temperature is devinterp's ``n_beta`` over them.
    train_ids, query_ids
        Names of the observables' rows, in their order; numbers by default.

    Returns
    -------
    InferenceData or DataTree
        With ``log_likelihood``, minus the losses, as :func:`ppl_bif.influence` and
        :func:`ppl_bif.diagnose` take it. One token is one number a row.

    Raises
    ------
    BIFError
        If the run is not complete, or the observables are not there.

    Examples
    --------
    ``bif.influence(from_devinterp(tree, train="seen", query="asked", num_train=len(dataset)))``
    """
    attrs, metadata = dict(tree.attrs), tree.attrs.get("metadata", {})
    if not attrs.get("completed"):
        raise BIFError("devinterp has not completed this run: finish it, then read it")
    try:
        sampler = metadata["config"]["sampler"]
    except (KeyError, TypeError):
        raise BIFError(
            "expected the DataTree of devinterp's sample(), whose metadata name its sampler"
        ) from None
    found: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for ours, theirs, ids in (("train", train, train_ids), ("query", query, query_ids)):
        name = f"loss_{theirs}"
        if name not in tree.data_vars:
            there = [str(v)[5:] for v in tree.data_vars if str(v).startswith("loss_")]
            raise BIFError(f"devinterp observed no {theirs!r}; it observed {there}")
        values = -tree[name].values
        whole = values.ndim == 4 and values.shape[3] == 1
        dims = ("chain", "draw", ours, *([] if whole or values.ndim == 3 else [f"{ours}_token"]))
        found[f"{ours}_obs"] = (dims, values[..., 0] if whole else values)
        coords[ours] = as_ids(ids, values.shape[2], ours)
    run = xr.Dataset(found, coords)
    _refuse_empty(run["train_obs"].values)
    kept = {
        "inference_library": "devinterp",
        "inverse_temperature": float(sampler["n_beta"]) / num_train,
        "localization": float(sampler["localization"]),
    }
    return inference_data({"log_likelihood": run}, kept)


def _refuse_empty(values: np.ndarray) -> None:
    """Raise where a chain ended early: devinterp leaves zeros."""
    empty = (values == 0).reshape(*values.shape[:2], -1).all(axis=2).any(axis=1)
    if empty.any():
        raise BIFError(
            f"chains {np.flatnonzero(empty).tolist()} hold no losses in some draws: they failed"
        )
