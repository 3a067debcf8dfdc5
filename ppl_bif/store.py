"""Runs on disk: a Zarr group made from a template, filled block by block, marked when complete.

A store carries the fingerprint of its run (weights, data, model, settings), so that another run
never takes it for its own; the mark ``completed`` is set last.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr

from ppl_bif.errors import StoreError
from ppl_bif.schema import inference_data

__all__ = ["Trace", "create_store", "find_finished", "finish_store", "in_memory", "open_store"]

# A chunk has so many values, if its rows stay within these bounds: small ones are slow to read.
VALUES_PER_CHUNK, ROWS_PER_CHUNK = 2**17, (2048, 32768)
DIGESTS = {
    "weights_digest": "network or trained weights",
    "data_digest": "data or ids",
    "kept_digest": "saved weights or constant data",
}


class Trace(NamedTuple):
    """One variable to be filled draw by draw, dims ``(chain, draw, ...)``."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


class Arrays(dict[str, Any]):
    """Arrays to fill, by ``group/variable``, all with draws along their second axis."""

    def grow(self, draws: int) -> None:
        """Make room for so many draws."""
        for name, array in self.items():
            shape = (array.shape[0], draws, *array.shape[2:])
            if isinstance(array, zarr.Array):
                array.resize(shape)
            else:
                more = (array.shape[0], draws - array.shape[1], *array.shape[2:])
                empty = np.full(more, _fill(str(array.dtype)), array.dtype)
                self[name] = np.concatenate([array, empty], axis=1) if array.shape[1] else empty


def in_memory(traces: Mapping[str, Trace]) -> Arrays:
    """Return arrays to fill, by ``group/variable``, not on disk."""
    return Arrays({name: np.empty(t.shape, t.dtype) for name, t in traces.items()})


def _fill(dtype: str) -> Any:
    return False if dtype == "bool" else np.nan


def find_finished(path: str | Path, attrs: Mapping[str, Any]) -> Any | None:
    """Return the finished run of this fingerprint if the path holds it, None if it is free.

    An unfinished run of the same fingerprint is removed, to be made again.

    Raises
    ------
    StoreError
        If something else is there.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    found = _read_attrs(path)
    if found.get("fingerprint") != attrs["fingerprint"]:
        what = _difference(found, attrs)
        raise StoreError(f"{path} holds another run ({what}): choose another path, or remove it")
    if found.get("completed"):
        return open_store(path)
    shutil.rmtree(path)
    return None


def _difference(found: Mapping[str, Any], attrs: Mapping[str, Any]) -> str:
    differ = [k for k in attrs if k != "fingerprint" and found.get(k) != attrs[k]]
    said = [
        f"its {DIGESTS[k]} differ"
        if k in DIGESTS
        else f"{k}: {found.get(k)!r} there, {attrs[k]!r} here"
        for k in differ
    ]
    return "; ".join(said) or "it was sampled in another way"


def create_store(
    path: str | Path,
    traces: Mapping[str, Trace],
    groups: Mapping[str, xr.Dataset],
    attrs: Mapping[str, Any],
    *,
    draws_per_chunk: int,
) -> Arrays:
    """Write the template of a run and return its arrays to fill, by ``group/variable``.

    Parameters
    ----------
    path
        Where the store is to be; must be free.
    traces
        Variables to be filled later.
    groups
        Datasets written now: whole groups, or just the coordinates of one.
    attrs
        Attributes of the root.
    draws_per_chunk
        Draws in a chunk, best those of one block of writing.

    Raises
    ------
    StoreError
        If the path cannot be written.
    """
    try:
        with _no_spec_warnings():
            root = zarr.open_group(str(path), mode="w")
            for name, dataset in groups.items():
                dataset.to_zarr(str(path), group=name, mode="a", consolidated=False)
            arrays = {name: _create(root, name, t, draws_per_chunk) for name, t in traces.items()}
            root.attrs.update({**attrs, "completed": False})
    except OSError as error:
        raise StoreError(
            f"cannot write a store at {path}: {error}; choose a path you may write to"
        ) from error
    return Arrays(arrays)


def _create(root: Any, name: str, trace: Trace, draws_per_chunk: int) -> Any:
    sizes = {"chain": 1, "draw": draws_per_chunk}
    fewest, most = ROWS_PER_CHUNK
    rows = (
        fewest
        if len(trace.dims) > 3
        else min(max(VALUES_PER_CHUNK // draws_per_chunk, fewest), most)
    )
    chunks = tuple(
        sizes.get(dim) or max(1, min(n, rows))
        for dim, n in zip(trace.dims, trace.shape, strict=True)
    )
    return root.create_array(
        name,
        shape=trace.shape,
        chunks=chunks,
        dtype=trace.dtype,
        # Losses are noise but for their signs and exponents: zstd would save a tenth to a
        # quarter of the disk, and reading would take three times as long.
        compressors=None,
        fill_value=_fill(trace.dtype),
        dimension_names=trace.dims,
    )


def finish_store(path: str | Path, attrs: Mapping[str, Any], draws: int) -> Any:
    """Add the last attributes and numbers of draws, mark a run as complete and open it."""
    root = zarr.open_group(str(path), mode="a")
    numbers = xr.Dataset(coords={"draw": np.arange(draws)})
    with _no_spec_warnings():
        for name in root.group_keys():
            if name != "constant_data":
                numbers.to_zarr(str(path), group=name, mode="a", consolidated=False)
    root.attrs.update(attrs)
    root.attrs["completed"] = True
    return open_store(path)


def open_store(path: str | Path) -> Any:
    """Open a finished run; arrays are read when they are used.

    Parameters
    ----------
    path
        Folder that ``sample(..., store=path)`` wrote.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree

    Raises
    ------
    StoreError
        If there is no run, or it is not finished.
    """
    attrs = _read_attrs(Path(path))
    if not attrs.get("completed"):
        raise StoreError(
            f"the run in {path} is not finished: repeat the call to sample() that made it"
        )
    with _no_spec_warnings():
        tree = xr.open_datatree(str(path), engine="zarr", chunks=None, consolidated=False)
    groups = {name: node.to_dataset() for name, node in tree.children.items()}
    return inference_data(groups, attrs)


def _read_attrs(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise StoreError(f"no run at {path}: pass the folder given to sample(..., store=...)")
    try:
        attrs = dict(zarr.open_group(str(path), mode="r").attrs)
    except Exception as error:
        raise StoreError(
            f"{path} is not a Zarr store of a run: pass the folder given to sample(..., store=...)"
        ) from error
    if "fingerprint" not in attrs:
        raise StoreError(f"{path} is a Zarr store, but not of a ppl_bif run: choose another path")
    return attrs


@contextmanager
def _no_spec_warnings() -> Iterator[None]:
    """Silence Zarr's notice that string arrays await their place in the v3 specification."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Zarr V3 spec.*")
        yield
