"""Draws that devinterp made, read as a run of ours: its losses of two sets of rows."""

from collections import defaultdict
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.data import as_ids, as_numpy
from ppl_bif.errors import BIFError
from ppl_bif.schema import inference_data

__all__ = ["from_devinterp"]


def from_devinterp(
    tree: Any,
    *,
    train: str,
    query: str,
    train_data: Any,
    query_data: Any,
    num_train: int,
    train_ids: Any = None,
    query_ids: Any = None,
) -> Any:
    """Read what ``devinterp.slt.sampling.sample`` returned.

    An observable of devinterp is made of rows drawn from its dataset, in random order. Each is
    found there again by its ``input_ids``, and they come out in the order of the dataset; rows that
    were not drawn are left out.

    Parameters
    ----------
    tree
        The DataTree that it returned, or that ``xarray.open_datatree`` finds at its
        ``output_path``.
    train, query
        Names of its observables, whose losses are ``loss_NAME`` (chain, draw, row, token), and
        their inputs ``input_ids_NAME``.
    train_data, query_data
        The datasets that these observables were given: a Dataset of Hugging Face, or a sequence of
        mappings, with ``input_ids``; or an array of them, ``(row, token)``.
    num_train
        Rows that were sampled from: the inverse temperature is devinterp's ``n_beta`` over them.
    train_ids, query_ids
        Names of the rows of these datasets, in their order; numbers by default.

    Returns
    -------
    InferenceData or DataTree
        With ``log_likelihood``, minus the losses, as :func:`ppl_bif.influence` and
        :func:`ppl_bif.diagnose` take it. One token is one number a row.

    Raises
    ------
    BIFError
        If the run is not complete, the observables are not there, or it cannot be told which rows
        of the datasets they hold.
    ValueError
        If a dataset has no ``input_ids`` of one length, or ids do not fit it.

    Notes
    -----
    Rows with the same ``input_ids`` have the same losses, so either may go by either name; but
    where some of them were drawn and some were not, the run is refused.

    Examples
    --------
    >>> run = from_devinterp(
    ...     tree,
    ...     train="seen",
    ...     query="asked",
    ...     train_data=dataset,
    ...     query_data=questions,
    ...     num_train=len(dataset),
    ... )  # doctest: +SKIP
    >>> bif.influence(run)  # doctest: +SKIP
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
    sides = (("train", train, train_data, train_ids), ("query", query, query_data, query_ids))
    run = xr.Dataset({f"{side[0]}_obs": _log_likelihood(tree, *side) for side in sides})
    _refuse_empty(run["train_obs"].values)
    kept = {
        "inference_library": "devinterp",
        "inverse_temperature": float(sampler["n_beta"]) / num_train,
        "localization": float(sampler["localization"]),
    }
    return inference_data({"log_likelihood": run}, kept)


def _log_likelihood(tree: Any, ours: str, observable: str, data: Any, ids: Any) -> xr.DataArray:
    """Return minus the losses of an observable, its rows in the order of the dataset."""
    name = f"loss_{observable}"
    if name not in tree.data_vars:
        there = [str(v)[5:] for v in tree.data_vars if str(v).startswith("loss_")]
        raise BIFError(f"devinterp observed no {observable!r}; it observed {there}")
    rows = _input_ids(data, f"{ours}_data")
    places = _places(tree, observable, rows, f"{ours}_data")
    order = np.argsort(places)
    values = -tree[name].values[:, :, order]
    whole = values.ndim == 4 and values.shape[3] == 1
    dims = ("chain", "draw", ours, *([] if whole or values.ndim == 3 else [f"{ours}_token"]))
    coords = {ours: as_ids(ids, len(rows), ours)[places[order]]}
    return xr.DataArray(values[..., 0] if whole else values, coords, dims)


def _input_ids(data: Any, name: str) -> np.ndarray:
    """Return the ``input_ids`` of a dataset, ``(row, token)``."""
    if not hasattr(data, "dtype"):
        try:
            data = np.stack([as_numpy(data[i]["input_ids"]) for i in range(len(data))])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"{name} must have input_ids, all of one length: {error}") from error
    rows = as_numpy(data)
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be whole numbers (row, token); got {rows.dtype} {rows.shape}"
        )
    return rows.astype(np.int64)


def _places(tree: Any, observable: str, rows: np.ndarray, name: str) -> np.ndarray:
    """Return the row of the dataset that each row of an observable is, ``(row,)``."""
    key = f"input_ids_{observable}"
    if key not in tree.data_vars:
        raise BIFError(f"devinterp kept no {key!r}, by which rows are found in {name}")
    drawn = tree[key].values.astype(np.int64)
    known, places = _by_content(rows), np.empty(len(drawn), int)
    for row, here in _by_content(drawn).items():
        there = known.get(row, [])
        if len(there) < len(here):
            raise BIFError(
                f"row {here[len(there)]} of {observable!r} is not in {name}: pass the dataset that "
                "this observable was given"
            )
        if len(there) > len(here):
            raise BIFError(
                f"rows {there} of {name} are the same, and {observable!r} holds {len(here)} of "
                f"them, which cannot be told: pass {name} without the rest, and its names"
            )
        places[here] = there
    return places


def _by_content(rows: np.ndarray) -> dict[bytes, list[int]]:
    """Return the numbers of the rows that hold the same."""
    numbers = defaultdict[bytes, list[int]](list)
    for number, row in enumerate(rows):
        numbers[row.tobytes()].append(number)
    return numbers


def _refuse_empty(values: np.ndarray) -> None:
    """Raise where a chain ended early: devinterp leaves zeros."""
    empty = (values == 0).reshape(*values.shape[:2], -1).all(axis=2).any(axis=1)
    if empty.any():
        raise BIFError(
            f"chains {np.flatnonzero(empty).tolist()} hold no losses in some draws: they failed"
        )
