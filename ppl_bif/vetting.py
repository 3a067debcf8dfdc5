"""A store from someone else is data, never code: what it says is held against what a run says."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ppl_bif.errors import StoreError
from ppl_bif.memory import memory_to_use
from ppl_bif.places import Place

__all__ = ["vet", "vet_attrs"]

METADATA, MOST_METADATA = "zarr.json", 2**24
# What ppl_bif and xarray write. No codec here calls what it reads.
CODECS = {
    "blosc",
    "bytes",
    "crc32c",
    "gzip",
    "sharding_indexed",
    "transpose",
    "vlen-bytes",
    "vlen-utf8",
    "zstd",
}
TYPES = re.compile(r"(bool|u?int(8|16|32|64)|float(16|32|64)|string|fixed_length_utf32)")
MOST_DIMS, MOST_CHUNK_BYTES, MOST_DRAWS = 32, 2**31, 10**8
NAME = re.compile(r"[^/\\\x00]{1,500}")


def vet(where: Place, groups: Sequence[str]) -> None:
    """Look at the metadata of some groups before anything of them is read.

    Raises
    ------
    StoreError
        If a codec, a data type or a size is none that a run has, or a link leads out of the store.
    """
    for group in groups:
        names = where.names(group)
        if METADATA not in names:
            continue
        _vet_inside(where, group)
        for name in names:
            if NAME.fullmatch(name) and METADATA in where.names(f"{group}/{name}"):
                _vet_inside(where, f"{group}/{name}")
                _vet_array(where, f"{group}/{name}")


def vet_attrs(attrs: Mapping[str, Any], where: Place) -> None:
    """Look at the attributes of a run.

    Raises
    ------
    StoreError
        If one is not of its type, or out of its range.
    """
    right = {
        "fingerprint": lambda v: isinstance(v, str) and len(v) < 200,
        "completed": lambda v: isinstance(v, bool),
        "chains": lambda v: _count(v) and 0 < v < 10**6,
        "draws_per_block": lambda v: _count(v) and v > 0,
        "draws": lambda v: v == "auto" or (_count(v) and v <= MOST_DRAWS),
        "tuning": _texts,
        "notes": _texts,
        "refused": _texts,
        "inference_library_version": lambda v: isinstance(v, str) and len(v) < 200,
    }
    for name, fits in right.items():
        if name in attrs and not fits(attrs[name]):
            raise _refusal(where, f"its attribute {name} is {str(attrs[name])[:80]!r}")
    if attrs.get("completed") and not _count(attrs.get("draws")):
        raise _refusal(where, "it does not say how many draws it has")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(value: Any) -> bool:
    some = [value] if isinstance(value, str) else value
    return isinstance(some, list) and all(isinstance(text, str) for text in some)


def _refusal(where: Place, why: str) -> StoreError:
    return StoreError(
        f"{where.address} is not read: {why}. ppl_bif writes no such store; ask whoever made it"
    )


def _vet_inside(where: Place, name: str) -> None:
    if where.folder is None:
        return
    root = where.folder.resolve()
    for path in (where.folder / name, where.folder / name / METADATA):
        if not path.resolve().is_relative_to(root):
            raise _refusal(where, f"{name} is a link that leads out of it")


def _vet_array(where: Place, name: str) -> None:
    found = _metadata(where, name)
    if found.get("node_type") != "array":
        return
    try:
        _vet_codecs(where, name, found["codecs"])
        kind = found["data_type"]
        kind = kind["name"] if isinstance(kind, dict) else kind
        chunk = _inner_chunk(found)
        shape = found["shape"]
        if not all(_count(n) for n in [*shape, *chunk]) or len(shape) > MOST_DIMS:
            raise _refusal(where, f"{name} has shape {str(shape)[:80]}")
    except (KeyError, TypeError, IndexError) as error:
        raise _refusal(where, f"the metadata of {name} lack {error}") from error
    if not TYPES.fullmatch(str(kind)):
        raise _refusal(where, f"{name} is of type {str(kind)[:80]!r}")
    _vet_size(where, name, found, chunk)


def _metadata(where: Place, name: str) -> dict[str, Any]:
    file = f"{name}/{METADATA}"
    if where.size(file) > MOST_METADATA:
        raise _refusal(where, f"the metadata of {name} have {where.size(file):,} bytes")
    try:
        found = json.loads(where.read(file))
    except (ValueError, RecursionError) as error:
        raise _refusal(where, f"the metadata of {name} are no JSON") from error
    if not isinstance(found, dict) or found.get("zarr_format") != 3:
        raise _refusal(where, f"{name} is not in version 3 of Zarr")
    return found


def _vet_codecs(where: Place, name: str, codecs: Any) -> None:
    for codec in codecs:
        called = codec["name"] if isinstance(codec, dict) else codec
        if called not in CODECS:
            raise _refusal(where, f"{name} is packed by {str(called)[:80]!r}")
        if called == "sharding_indexed":
            _vet_codecs(where, name, codec["configuration"]["codecs"])


def _inner_chunk(found: Mapping[str, Any]) -> list[int]:
    codecs = [c for c in found["codecs"] if isinstance(c, dict)]
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            return list(codec["configuration"]["chunk_shape"])
    return list(found["chunk_grid"]["configuration"]["chunk_shape"])


def _vet_size(where: Place, name: str, found: Mapping[str, Any], chunk: Sequence[int]) -> None:
    """Refuse what would take more memory than there is, as soon as it is opened or first read."""
    if 8 * math.prod(chunk) > MOST_CHUNK_BYTES:
        raise _refusal(where, f"{name} is in chunks of {'x'.join(map(str, chunk))}")
    dims, shape = list(found.get("dimension_names") or []), found["shape"]
    # Traces are read piece by piece, the rest at once.
    at_once = shape[:2] if dims[:2] in (["chain", "draw"], ["chain", "block"]) else shape
    if 8 * math.prod(at_once) > (memory_to_use(None) or math.inf):
        raise _refusal(where, f"{name} has shape {str(shape)[:80]}, more than memory holds")
