"""Runs on disk: a Zarr group made from a template, filled block by block, marked when complete.

A store carries the fingerprint of its run (weights, data, model, settings), so that another run
never takes it for its own; the mark ``completed`` is set last.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from ppl_bif.checkpoint import FOLDER, latest_course, most_draws
from ppl_bif.errors import StoreError
from ppl_bif.layout import SHARD_BYTES, Arrays, Trace, create
from ppl_bif.locking import LOCK_FILES
from ppl_bif.places import PART, Place, place, telling, understanding
from ppl_bif.reading import quiet, read_attrs, read_run
from ppl_bif.schema import SCHEMA_VERSION
from ppl_bif.vetting import vet

__all__ = [
    "as_stored",
    "create_store",
    "find_finished",
    "finish_store",
    "open_store",
    "resume_store",
]

DIGESTS = {
    "weights_digest": "network or trained weights",
    "data_digest": "data or ids",
    "kept_digest": "saved weights or constant data",
}
# What says how far a run is to go is not what tells it from another.
GOALS = ("draws", "target", "max_time")
# A GPU sums in another order each time, and what is found from the data differs by so much.
SAME = 1e-3


def as_stored(where: Place, name: str, value: float) -> float:
    """Return what the run at a place has for a setting, if this value is that but for rounding."""
    known = None if _is_free(where) else read_attrs(where).get(name)
    if isinstance(known, float) and math.isclose(known, value, rel_tol=SAME):
        return known
    return value


def find_finished(where: Place, attrs: Mapping[str, Any]) -> Any | None:
    """Return the run of this fingerprint if the place holds it and it is as long as asked.

    None if there is nothing, or a run to go on with.

    Raises
    ------
    StoreError
        If something else is there, or more draws than were asked for.
    """
    if _is_free(where):
        return None
    found = read_attrs(where)
    if found.get("schema_version", 0) != SCHEMA_VERSION:
        raise StoreError(
            f"{where.address} was written by ppl_bif {found.get('inference_library_version')}, "
            "whose runs this version does not go on with: read it with open_store, or choose "
            "another path"
        )
    if found.get("fingerprint") != attrs["fingerprint"]:
        raise StoreError(
            f"{where.address} holds another run ({_difference(found, attrs)}): choose another "
            "path, or remove it"
        )
    course = latest_course(where)
    there = found["draws"] if found.get("completed") else most_draws(course) if course else 0
    asked = attrs["draws"]
    if found.get("completed") and all(found.get(k) == attrs.get(k) for k in _goals(asked)):
        return read_run(where)
    if found.get("completed") and course is None:
        raise StoreError(
            f"{where.address} holds {there:,} draws of this run and no checkpoint to go on from: "
            f"pass draws={there} to read it, or choose another path"
        )
    if asked != "auto" and there > asked:
        raise StoreError(
            f"{where.address} holds this run with {there:,} draws already, more than the {asked:,} "
            f"asked for: pass draws={there} or more, or take some with open_store(...)"
        )
    return None


def _goals(asked: Any) -> tuple[str, ...]:
    return ("target", "max_time") if asked == "auto" else ("draws",)


def _is_free(where: Place) -> bool:
    """Say whether there is nothing but a lock, and what a kill left of a first file."""
    if where.folder is not None and where.folder.exists() and not where.folder.is_dir():
        return False
    names, files = (
        {name for name in where.names(folder) if not name.endswith((PART, ".partial"))}
        for folder in ("", FOLDER)
    )
    return names <= {FOLDER} and files <= LOCK_FILES


def _difference(found: Mapping[str, Any], attrs: Mapping[str, Any]) -> str:
    differ = [k for k in attrs if k not in ("fingerprint", *GOALS) and found.get(k) != attrs[k]]
    said = [
        f"its {DIGESTS[k]} differ"
        if k in DIGESTS
        else f"{k}: {found.get(k)!r} there, {attrs[k]!r} here"
        for k in differ
    ]
    return "; ".join(said) or "it was sampled in another way"


def create_store(
    where: Place,
    traces: Mapping[str, Trace],
    groups: Mapping[str, xr.Dataset],
    attrs: Mapping[str, Any],
    *,
    chains_at_once: int,
    draws_at_once: int,
    file_bytes: int = SHARD_BYTES,
) -> Arrays:
    """Write the template of a run and return its arrays to fill, by ``group/variable``.

    Parameters
    ----------
    where
        The place of the store; what lies there is removed, but for the lock.
    traces
        Variables to be filled later.
    groups
        Datasets written now: whole groups, or just the coordinates of one.
    attrs
        Attributes of the root.
    chains_at_once, draws_at_once
        What is written at once, and lies in a file.
    file_bytes
        Of a file, at most.

    Raises
    ------
    StoreError
        If the place cannot be written.
    """
    with telling(where.address), quiet():
        for name in where.names():
            if name != FOLDER:
                where.remove(name)
        for name in set(where.names(FOLDER)) - LOCK_FILES:
            where.remove(f"{FOLDER}/{name}")
        # First of all, so that what is left of it is known as this run's.
        marks = {**attrs, "completed": False}
        root = zarr.create_group(where.zarr(), zarr_format=3, attributes=marks)
        for name, dataset in groups.items():
            dataset.to_zarr(where.zarr(), group=name, mode="a", consolidated=False, zarr_format=3)
        arrays = {
            name: create(
                root,
                name,
                trace,
                chains=chains_at_once,
                draws=draws_at_once,
                file_bytes=file_bytes,
            )
            for name, trace in traces.items()
        }
        # An empty array, so that readers of Zarr know the folder of checkpoints.
        root.create_array(
            FOLDER, shape=(0,), chunks=(1,), dtype="uint8", dimension_names=("nothing",)
        )
    return Arrays(arrays, traces)


def resume_store(where: Place, traces: Mapping[str, Trace], attrs: Mapping[str, Any]) -> Arrays:
    """Return the arrays of a run to go on with, by ``group/variable``.

    Raises
    ------
    StoreError
        If they are not those of this run, or cannot be written.
    """
    with telling(where.address), quiet():
        if where.folder is not None:
            # What was being written when a process was killed.
            for part in where.folder.rglob("*.part*"):
                if part.suffix in (PART, ".partial"):
                    part.unlink()
        with understanding(where.address):
            vet(where, [name.split("/")[0] for name in traces])
            root = zarr.open_group(where.zarr(), mode="r+", zarr_format=3, use_consolidated=False)
            arrays: dict[str, Any] = {name: root[name] for name in traces}
        root.attrs.update({**attrs, "completed": False})
    for name, trace in traces.items():
        found = arrays[name]
        if (found.shape[0], *found.shape[2:]) != (trace.shape[0], *trace.shape[2:]):
            raise StoreError(f"{name} in {where.address} has shape {found.shape}: remove the store")
        if str(found.dtype) != trace.dtype:
            raise StoreError(f"{name} in {where.address} is {found.dtype}: remove the store")
    return Arrays(arrays, traces)


def finish_store(where: Place, attrs: Mapping[str, Any], draws: int) -> Any:
    """Write the last attributes and numbers of draws, mark a run as complete and open it."""
    with telling(where.address), quiet():
        root = zarr.open_group(where.zarr(), mode="r+", zarr_format=3, use_consolidated=False)
        for name in ("log_likelihood", "sample_stats", "posterior"):
            if name in root:
                root.create_array(
                    f"{name}/draw",
                    data=np.arange(draws),
                    dimension_names=("draw",),
                    overwrite=True,
                )
        root.attrs.put({**attrs, "completed": True})
    return read_run(where)


def open_store(path: str | Path) -> Any:
    """Open a run; arrays are read when they are used.

    Of a run that is not finished, the draws that every chain of those begun has made; its
    attribute ``completed`` is False.

    Parameters
    ----------
    path
        Folder or address that ``sample(..., store=path)`` wrote, or is writing.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree

    Raises
    ------
    StoreError
        If there is no run, or no draw yet.
    """
    return read_run(place(path))
