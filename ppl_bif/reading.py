"""Runs on disk as InferenceData: read when used, also while they are written; data, never code."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core.indexing import (
    ExplicitIndexer,
    IndexingSupport,
    LazilyIndexedArray,
    explicit_indexing_adapter,
)

from ppl_bif.checkpoint import NOT_BEGUN, latest_course
from ppl_bif.errors import StoreError
from ppl_bif.places import Place, damaged, understanding
from ppl_bif.schema import SCHEMA_VERSION, inference_data
from ppl_bif.vetting import vet, vet_attrs

__all__ = ["quiet", "read_attrs", "read_run"]

# Constants of so many bytes are read when a run is opened, and what is damaged shows then.
AT_ONCE_BYTES = 2**24
GROUPS = ("log_likelihood", "sample_stats", "constant_data", "posterior")


def read_run(where: Place) -> Any:
    """Open a run, or the draws so far of one that is not finished.

    Raises
    ------
    StoreError
        If there is no run, or no draw yet.
    """
    attrs = read_attrs(where)
    if attrs.get("completed"):
        chains, draws = slice(None), int(attrs["draws"])
    else:
        chains, draws = _so_far(where)
        attrs |= {"completed": False, "draws": draws}
    entries = {"draw": draws, "block": draws // attrs.get("draws_per_block", 1)}
    with understanding(where.address), quiet():
        vet(where, GROUPS)
        root = zarr.open_group(
            where.zarr(read_only=True), mode="r", zarr_format=3, use_consolidated=False
        )
        groups = {
            name: _group(where, root[name], name, chains, entries)
            for name in GROUPS
            if name in root
        }
    return inference_data(groups, attrs)


def _so_far(where: Place) -> tuple[Any, int]:
    """Return the chains that have begun, and the draws that they all have."""
    begun = (latest_course(where) or NOT_BEGUN).begun()
    if not begun:
        raise StoreError(
            f"the run in {where.address} has no draws yet: wait for it, or repeat the call to "
            "sample() that made it"
        )
    chains = [first + i for first, leg in sorted(begun.items()) for i in range(len(leg.diverged))]
    return chains, min(leg.draws for leg in begun.values())


def _group(
    where: Place, group: Any, name: str, chains: Any, entries: Mapping[str, int]
) -> xr.Dataset:
    """Read coordinates and constants of a group, and refer to its traces: so many of draws."""
    arrays = dict(group.arrays())
    traces = {
        k: a
        for k, a in arrays.items()
        if a.metadata.dimension_names[:1] == ("chain",)
        and a.metadata.dimension_names[1:2] in (("draw",), ("block",))
    }
    fixed = xr.open_zarr(
        where.zarr(read_only=True),
        group=name,
        chunks=None,
        consolidated=False,
        zarr_format=3,
        drop_variables=[*traces, "draw"],
    )
    for variable in fixed.variables.values():
        if variable.nbytes <= AT_ONCE_BYTES:
            variable.load()
    if not traces:
        return fixed
    if "chain" in fixed.dims:
        fixed = fixed.isel(chain=chains)
    for key, array in traces.items():
        dims = array.metadata.dimension_names
        taken: dict[str, Any] = {"chain": chains, dims[1]: slice(entries[dims[1]])}
        few = entries[dims[1]] > array.shape[1]
        if few or (chains != slice(None) and max(chains) >= array.shape[0]):
            raise StoreError(f"{name}/{key} in {where.address} holds less than the store says")
        source = LazilyIndexedArray(_Checked(array, f"{name}/{key}", where.address))
        chunks = {"preferred_chunks": dict(zip(dims, array.chunks, strict=True))}
        whole = xr.Variable(dims, source, encoding=chunks)
        fixed[key] = whole.isel(taken)
    return fixed.assign_coords(draw=np.arange(entries["draw"]))


class _Checked(BackendArray):
    """A Zarr array that xarray reads when it is used; says so where a chunk is damaged."""

    def __init__(self, array: Any, name: str, address: str) -> None:
        self.array, self.name, self.address = array, name, address
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        try:
            return self.array.oindex[key]
        except (ValueError, RuntimeError, OSError) as error:
            raise damaged(f"{self.name} in {self.address}", error) from error


def read_attrs(where: Place) -> dict[str, Any]:
    """Read the attributes of a run.

    Raises
    ------
    StoreError
        If there is none.
    """
    if not where.names() and not (where.folder is not None and where.folder.exists()):
        raise StoreError(
            f"no run at {where.address}: pass the folder given to sample(..., store=...)"
        )
    try:
        with quiet():
            root = zarr.open_group(
                where.zarr(read_only=True), mode="r", zarr_format=3, use_consolidated=False
            )
            attrs = dict(root.attrs)
    except Exception as error:
        raise StoreError(
            f"{where.address} is not a Zarr store of a run: pass the folder given to "
            "sample(..., store=...)"
        ) from error
    return _validated(attrs, where)


def _validated(attrs: Mapping[str, Any], where: Place) -> dict[str, Any]:
    if "fingerprint" not in attrs:
        raise StoreError(
            f"{where.address} is a Zarr store, but not of a ppl_bif run: choose another path"
        )
    vet_attrs(attrs, where)
    if attrs.get("schema_version", 0) not in range(SCHEMA_VERSION + 1):
        raise StoreError(
            f"{where.address} was written by a newer version of ppl_bif "
            f"({attrs.get('inference_library_version')}): update this one to read it"
        )
    return dict(attrs)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Zarr's notices on string arrays, and on files beside its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Zarr V3 spec.*")
        warnings.filterwarnings("ignore", message=".*not recognized as a component.*")
        yield
