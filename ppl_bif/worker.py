"""What runs on the workers of a Dask cluster: a task makes a block of draws and scores some rows.

It is given the state of its chain, writes what it has scored into files of its own in the store,
and returns the state afterwards. So a task that is lost with its worker is made again from the same
state, to the same bits.
"""

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import zarr

from ppl_bif.kernel import BURST_DRAWS, Engine, Kernel
from ppl_bif.places import place, telling, understanding
from ppl_bif.recording import Record, Room, lay, totals, traces_of
from ppl_bif.tuning import Tuned, burnt_in, unpacked_tuned

__all__ = ["LOST", "Block", "Done", "Kit", "Shard", "make", "same"]

Packed = dict[str, np.ndarray]
Shard = dict[str, slice]
LOST = "; repeat the call to sample(), with another client or none, to go on from its checkpoints"


class Kit(NamedTuple):
    """What every task needs, sent once to each worker."""

    token: str
    kernel: Kernel
    data: Mapping[str, Any]
    evaluation_batch_size: int | None
    record: Record
    address: str
    tuned: dict[str, Any]
    shards: list[Shard]


class Block(NamedTuple):
    """Draws to be made of a chain, from a state, or from w* if that is None."""

    name: str
    chain: int
    seed: int
    state: Packed | None
    start: int
    stop: int


class Done(NamedTuple):
    """A block that was made, or a task's part of it.

    Attributes
    ----------
    block
        What was to be made.
    state
        After it; of the task with the first rows, and empty of others.
    stats
        Of the kernel, each ``(1, draw)``.
    total
        Log-likelihoods of ``train`` and ``query``, summed over rows, ``(1, draw)``.
    """

    block: Block
    state: Packed
    stats: dict[str, np.ndarray]
    total: dict[str, np.ndarray]


# In each worker: engines are bound once, and by one task at a time, as Pyro's handlers are those
# of a process.
_BOUND: dict[str, tuple[Engine, Tuned]] = {}
# Of that run, engines that score some rows.
_PARTS: dict[int, Engine] = {}
_ALONE = threading.Lock()


def same(kit: Kit) -> Kit:
    """Return what was sent: so it is the result of a task, which workers pass on and make again."""
    return kit


def make(kit: Kit, block: Block, shard: int) -> tuple[int, Done]:
    """Make a block of draws and write the scores of some rows, on a worker."""
    with _ALONE:
        engine, tuned = _bound(kit, block)
        if block.state is None:
            state = burnt_in(engine, tuned, [block.chain], block.seed)
        else:
            like = engine.start([block.chain], block.seed, like=tuned.state)
            state = engine.unpack(block.state, like)
        part, first = _PARTS.get(shard) or engine.over(kit.shards[shard]), shard == 0
        _PARTS[shard] = part
        names = kit.record.saved if first else []
        stats: Room = {}
        total: Room = {}
        traces: Room = {}
        for start in range(block.start, block.stop, BURST_DRAWS):
            count = min(BURST_DRAWS, block.stop - start)
            state, draws = part.draws(state, tuned.steps, count, most=BURST_DRAWS, names=names)
            for room, seen in (
                (stats, draws.stats),
                (total, totals(draws)),
                (traces, traces_of(draws)),
            ):
                lay(room, seen, start - block.start, block.stop - block.start)
        _write(kit, block, kit.shards[shard], traces)
        packed = engine.pack(state, shared=False) if first else {}
        return shard, Done(block._replace(state=None), packed, stats, total)


def _bound(kit: Kit, block: Block) -> tuple[Engine, Tuned]:
    if kit.token not in _BOUND:
        # Of an earlier run nothing is held.
        _BOUND.clear()
        _PARTS.clear()
        engine = kit.kernel.bind(kit.data, evaluation_batch_size=kit.evaluation_batch_size)
        like = engine.start([block.chain], block.seed)
        _BOUND[kit.token] = engine, unpacked_tuned(engine, kit.tuned, like)
    return _BOUND[kit.token]


def _write(kit: Kit, block: Block, shard: Shard, traces: Mapping[str, np.ndarray]) -> None:
    """Write some rows of a chain's traces, which lie in files of their own."""
    with telling(kit.address, LOST), understanding(kit.address):
        store = place(kit.address).zarr()
        root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        for name, values in traces.items():
            array: Any = root[name]
            group = name.removeprefix("log_likelihood/").removesuffix("_obs")
            rows = shard.get(group, slice(None))
            array[block.chain : block.chain + 1, block.start : block.stop, rows] = values
