"""Chains on the workers of a Dask cluster: a task makes a block of draws and scores some rows.

It is given the state of its chain, writes what it has scored into files of its own in the store,
and returns the state afterwards; the calling process alone judges draws, and writes statistics and
checkpoints. So a task that is lost with its worker is made again from the same state, to the same
bits, and a run that has lost its scheduler goes on from its checkpoints.

Where steps are few against the rows to be scored, a block is several tasks: each makes the same
steps and scores its share of the rows. That spares sending the weights of every draw about.
"""

import math
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import zarr

from ppl_bif.blocks import edges
from ppl_bif.errors import StoreError
from ppl_bif.kernel import BURST_DRAWS, Engine, Kernel
from ppl_bif.places import place, telling, understanding
from ppl_bif.recording import Record, totals, traces_of
from ppl_bif.tuning import Tuned, burnt_in, packed_tuned, unpacked_tuned

__all__ = ["FILE_BYTES", "Block", "Done", "Workers", "as_client"]

Packed = dict[str, np.ndarray]
Shard = dict[str, slice]
LOST = "; repeat the call to sample(), with another client or none, to go on from its checkpoints"
# Files are small, so that tasks that score some rows each write files of their own.
FILE_BYTES = 2**22
# Steps that several tasks make over again may cost 1 in so many of what they score.
SCORED_OVER_STEPS = 10


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


class Workers:
    """The workers of a client, and what they are sent.

    Parameters
    ----------
    client
        Of Dask.
    kernel, data, evaluation_batch_size
        What an engine is bound from, on each worker.
    record
        What is kept of draws.
    """

    def __init__(
        self,
        client: Any,
        kernel: Kernel,
        data: Mapping[str, Any],
        evaluation_batch_size: int | None,
        record: Record,
    ) -> None:
        self.client = client
        self._parts = (kernel, data, evaluation_batch_size, record)
        self._kit: Any = None
        self._shards = 0
        _refuse_what_cannot_be_sent(kernel)

    def send(
        self,
        engine: Engine,
        address: str,
        tuned: Tuned,
        arrays: Mapping[str, Any],
        passes: float,
    ) -> None:
        """Give all workers, also those that come later, what their tasks need.

        ``passes`` over the scored rows is what a step costs.
        """
        if self._kit is None:
            most = int(1 / (SCORED_OVER_STEPS * passes * tuned.steps))
            shards = _shards(arrays, engine.rows_at_once, most)
            kit = Kit(uuid4().hex, *self._parts, address, packed_tuned(engine, tuned), shards)
            self._shards = len(shards)
            with _unwarned():
                self._kit = self.client.submit(_same, kit, pure=False)

    def make(self, blocks: Sequence[Block], follow: Callable[[Done], Block | None]) -> None:
        """Have blocks made, and those that ``follow(done)`` gives, None at a chain's end.

        Raises
        ------
        StoreError
            If the cluster is lost, a block takes one worker after another with it, or a worker
            cannot write to the store.
        """
        from distributed import CancelledError, KilledWorker, as_completed
        from distributed.comm.core import CommClosedError

        parts: dict[str, dict[int, Done]] = defaultdict(dict)
        running = as_completed(future for block in blocks for future in self._submit(block))
        try:
            for future in running:
                shard, part = future.result()
                parts[part.block.name][shard] = part
                if len(parts[part.block.name]) == self._shards:
                    done = _joined(parts.pop(part.block.name))
                    if (block := follow(done)) is not None:
                        running.update(self._submit(block))
        except (CancelledError, CommClosedError, TimeoutError) as error:
            raise StoreError(f"the Dask cluster was lost{LOST}") from error
        except KilledWorker as error:
            raise StoreError(
                f"one worker after another died of the same block (is their memory enough?){LOST}"
            ) from error
        finally:
            self.client.cancel(list(running.futures), force=True)

    def _submit(self, block: Block) -> list[Any]:
        with _unwarned():
            return [
                self.client.submit(_make, self._kit, block, shard, pure=False)
                for shard in range(self._shards)
            ]


@contextmanager
def _unwarned() -> Iterator[None]:
    """Send what is large without being told so: it is sent as rarely as can be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        yield


def _joined(parts: Mapping[int, Done]) -> Done:
    """Put together what tasks have made of a block."""
    total = {
        name: np.sum(
            [parts[i].total[name] for i in sorted(parts) if name in parts[i].total], axis=0
        )
        for name in ("train", "query")
    }
    return parts[0]._replace(total=total)


def _shards(arrays: Mapping[str, Any], rows_at_once: int, most: int) -> list[Shard]:
    """Cut the rows of both groups into so many parts at most, of whole files and whole batches."""
    sizes, units = {}, {}
    for group in ("train", "query"):
        array = arrays[f"log_likelihood/{group}_obs"]
        sizes[group] = array.shape[2]
        units[group] = math.lcm(array.shards[2], rows_at_once)
    pieces = {group: math.ceil(sizes[group] / units[group]) for group in sizes}
    count = max(1, min(most, pieces["train"]))
    cuts = {
        group: np.minimum(edges(pieces[group], count) * units[group], sizes[group]).tolist()
        for group in sizes
    }
    return [
        {group: slice(*cut[i : i + 2]) for group, cut in cuts.items() if cut[i] < cut[i + 1]}
        for i in range(count)
    ]


def as_client(client: Any, store: Any) -> Any:
    """Check that there is a client of Dask, and a store for its workers to write to.

    Raises
    ------
    TypeError, ValueError
        If there is not.
    """
    if not all(hasattr(client, name) for name in ("submit", "cancel", "scheduler_info")):
        raise TypeError(
            "client must be a dask.distributed.Client that is not asynchronous; got "
            f"{type(client).__name__}"
        )
    if store is None:
        raise ValueError(
            "with a client, draws are written by its workers: pass store=, a folder or an address "
            "that all of them reach"
        )
    return client


def _refuse_what_cannot_be_sent(kernel: Kernel) -> None:
    from distributed.protocol.pickle import dumps

    try:
        dumps(kernel)
    except Exception as error:
        raise TypeError(
            f"the network cannot be sent to workers: {error}. It goes by pickle or cloudpickle: "
            "take out what holds open files, locks or connections, or leave client out"
        ) from error


# In each worker: engines are bound once, and by one task at a time, as Pyro's handlers are those
# of a process.
_BOUND: dict[str, tuple[Engine, Tuned]] = {}
_ALONE = threading.Lock()


def _same(kit: Kit) -> Kit:
    return kit


def _make(kit: Kit, block: Block, shard: int) -> tuple[int, Done]:
    """Make a block of draws and write the scores of some rows, on a worker."""
    with _ALONE:
        engine, tuned = _bound(kit, block)
        if block.state is None:
            state = burnt_in(engine, tuned, [block.chain], block.seed)
        else:
            like = engine.start([block.chain], block.seed, like=tuned.state)
            state = engine.unpack(block.state, like)
        parts, first = engine.over(kit.shards[shard]), shard == 0
        names = kit.record.saved if first else []
        found: list[tuple[dict[str, np.ndarray], ...]] = []
        for start in range(block.start, block.stop, BURST_DRAWS):
            count = min(BURST_DRAWS, block.stop - start)
            state, draws = parts.draws(state, tuned.steps, count, most=BURST_DRAWS, names=names)
            found.append((draws.stats, totals(draws), traces_of(draws)))
        stats, total, traces = (_one_after_another(each) for each in zip(*found, strict=True))
        _write(kit, block, kit.shards[shard], traces)
        packed = engine.pack(state, shared=False) if first else {}
        return shard, Done(block._replace(state=None), packed, stats, total)


def _one_after_another(bursts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([b[name] for b in bursts], axis=1) for name in bursts[0]}


def _bound(kit: Kit, block: Block) -> tuple[Engine, Tuned]:
    if kit.token not in _BOUND:
        # Of an earlier run nothing is held.
        _BOUND.clear()
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
