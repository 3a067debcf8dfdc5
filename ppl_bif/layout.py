"""How the arrays of a run lie: in memory, or in Zarr by shards of the draws written at once.

A shard is a file and holds all rows of a block of draws, or as many as are not too much; the chunks
in it, which are read alone, hold some rows of one chain. Every chunk carries a checksum.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from ppl_bif.kernel import ROWS_AT_ONCE

__all__ = ["SHARD_BYTES", "Arrays", "Trace", "bytes_on_disk", "create", "in_memory"]

# A chunk has so many values, if its rows stay within these bounds: small ones are slow to read.
VALUES_PER_CHUNK, ROWS_PER_CHUNK = 2**17, (2048, 32768)
# A file of more would be held in memory at once, when it is written.
SHARD_BYTES = 2**28
# Statistics are few: many draws to a file, which is written anew with each block.
STATS_PER_CHUNK = 4096


class Trace(NamedTuple):
    """A variable, dims ``(chain, draw, ...)``, filled draw by draw or ``every`` so many."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    every: int = 1


class Arrays(dict[str, Any]):
    """Arrays to fill, by ``group/variable``, with draws along their second axis, or blocks of them.

    Parameters
    ----------
    arrays
        In memory, or in Zarr.
    traces
        What they are.
    """

    def __init__(self, arrays: Mapping[str, Any], traces: Mapping[str, Trace]) -> None:
        super().__init__(arrays)
        self._every = {name: trace.every for name, trace in traces.items()}

    def put(self, name: str, chains: slice, start: int, stop: int, values: Any) -> None:
        """Fill in some draws of some chains."""
        every = self._every[name]
        self[name][chains, start // every : -(-stop // every)] = values

    def grow(self, draws: int) -> None:
        """Make room for so many draws."""
        for name, array in self.items():
            entries = draws // self._every[name]
            shape = (array.shape[0], entries, *array.shape[2:])
            if isinstance(array, zarr.Array):
                array.resize(shape)
            else:
                more = (array.shape[0], entries - array.shape[1], *array.shape[2:])
                empty = np.full(more, _fill(str(array.dtype)), array.dtype)
                self[name] = np.concatenate([array, empty], axis=1) if array.shape[1] else empty


def in_memory(traces: Mapping[str, Trace]) -> Arrays:
    """Return arrays to fill, by ``group/variable``, not on disk."""
    return Arrays({name: np.empty(t.shape, t.dtype) for name, t in traces.items()}, traces)


def _fill(dtype: str) -> Any:
    return False if dtype == "bool" else np.nan


def create(root: Any, name: str, trace: Trace, *, chains: int, draws: int, file_bytes: int) -> Any:
    """Create an array in a Zarr group, to be written so many chains and draws at once.

    Files are of at most so many bytes, or of one chunk.
    """
    chunks, shards = _chunks(trace, chains, draws, file_bytes)
    return root.create_array(
        name,
        shape=trace.shape,
        chunks=chunks,
        shards=shards,
        dtype=trace.dtype,
        # Losses are noise but for their signs and exponents: zstd would save a tenth to a
        # quarter of the disk, and reading would take three times as long.
        compressors=(Crc32cCodec(),),
        fill_value=_fill(trace.dtype),
        dimension_names=trace.dims,
    )


def bytes_on_disk(trace: Trace, *, chains: int, draws: int, total: int) -> int:
    """Return what so many draws in all take, written so many chains and draws at once.

    Chunks are of one size: the last one of an axis is written whole.
    """
    chunks, _ = _chunks(trace, chains, draws, SHARD_BYTES)
    shape = (trace.shape[0], total, *trace.shape[2:])
    whole = [math.ceil(n / chunk) * chunk for n, chunk in zip(shape, chunks, strict=True)]
    return math.prod(whole) * np.dtype(trace.dtype).itemsize


def _chunks(
    trace: Trace, chains: int, draws: int, file_bytes: int
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    if len(trace.dims) == 2:
        return (trace.shape[0], STATS_PER_CHUNK), None
    fewest, most = ROWS_PER_CHUNK
    rows = fewest if len(trace.dims) > 3 else min(max(VALUES_PER_CHUNK // draws, fewest), most)
    rows -= rows % ROWS_AT_ONCE
    draws //= trace.every
    rest = [max(1, min(n, rows)) for n in trace.shape[2:]]
    size = np.dtype(trace.dtype).itemsize * chains * draws
    shard = []
    for chunk, n in zip(reversed(rest), reversed(trace.shape[2:]), strict=True):
        most = max(1, file_bytes // (size * chunk))
        shard.append(chunk * min(most, math.ceil(n / chunk)))
        size *= shard[-1]
    return (1, draws, *rest), (chains, draws, *reversed(shard))
