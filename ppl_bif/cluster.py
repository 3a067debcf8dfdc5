"""Chains on the workers of a Dask cluster: a task makes a block of draws of one chain.

It is given the state of its chain, writes what it has scored into the chain's own files of the
store, and returns the state afterwards; the calling process alone writes statistics and
checkpoints. So a task that is lost with its worker is made again from the same state, to the same
bits, and a run that has lost its scheduler goes on from its checkpoints.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import zarr

from ppl_bif.errors import StoreError
from ppl_bif.kernel import BURST_DRAWS, Engine, Kernel
from ppl_bif.places import place
from ppl_bif.recording import Record
from ppl_bif.tuning import Tuned, burnt_in, packed_tuned, unpacked_tuned

__all__ = ["Block", "Done", "Workers", "as_client"]

Packed = dict[str, np.ndarray]
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


class Block(NamedTuple):
    """Draws to be made of a chain, from a state, or from w* if that is None."""

    name: str
    chain: int
    seed: int
    state: Packed | None
    lost: np.ndarray
    start: int
    stop: int


class Done(NamedTuple):
    """A block that was made: the state after it, and its statistics, ``(1, draw)``."""

    block: Block
    state: Packed
    stats: dict[str, np.ndarray]


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
        _refuse_what_cannot_be_sent(kernel)

    def send(self, engine: Engine, address: str, tuned: Tuned) -> None:
        """Give all workers, also those that come later, what their tasks need."""
        if self._kit is None:
            parts = packed_tuned(engine, tuned)
            kit = Kit(uuid4().hex, *self._parts, address, parts)
            self._kit = self.client.submit(_same, kit, pure=False)

    def make(self, blocks: Sequence[Block], follow: Callable[[Done], Block | None]) -> None:
        """Have blocks made, and those that ``follow(done)`` gives, None at a chain's end.

        Raises
        ------
        StoreError
            If the cluster is lost, or a worker cannot write to the store.
        """
        from distributed import CancelledError, as_completed
        from distributed.comm.core import CommClosedError

        running = as_completed(map(self._submit, blocks))
        try:
            for future in running:
                if (block := follow(future.result())) is not None:
                    running.add(self._submit(block))
        except (CancelledError, CommClosedError, TimeoutError) as error:
            raise StoreError(f"the Dask cluster was lost ({error}){LOST}") from error
        finally:
            self.client.cancel(list(running.futures), force=True)

    def _submit(self, block: Block) -> Any:
        return self.client.submit(_make, self._kit, block, pure=False)


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


def _make(kit: Kit, block: Block) -> Done:
    """Make a block of draws and write its scores, on a worker."""
    with _ALONE:
        engine, tuned = _bound(kit, block)
        if block.state is None:
            state = burnt_in(engine, tuned, [block.chain], block.seed)
        else:
            like = engine.start([block.chain], block.seed, like=tuned.state)
            state = engine.unpack(block.state, like)
        bursts, lost, left = [], block.lost, block.stop - block.start
        while left:
            count = min(left, BURST_DRAWS)
            state, draws = engine.draws(
                state, tuned.steps, count, most=BURST_DRAWS, names=kit.record.saved
            )
            bursts.append(kit.record.observe(draws, lost))
            lost, left = bursts[-1]["sample_stats/diverging"][:, -1], left - count
        found = {name: np.concatenate([b[name] for b in bursts], axis=1) for name in bursts[0]}
        stats = {name: found.pop(name) for name in list(found) if name.startswith("sample_stats/")}
        _write(kit.address, block, found)
        return Done(block, engine.pack(state, shared=False), stats)


def _bound(kit: Kit, block: Block) -> tuple[Engine, Tuned]:
    if kit.token not in _BOUND:
        # Of an earlier run nothing is held.
        _BOUND.clear()
        engine = kit.kernel.bind(kit.data, evaluation_batch_size=kit.evaluation_batch_size)
        like = engine.start([block.chain], block.seed)
        _BOUND[kit.token] = engine, unpacked_tuned(engine, kit.tuned, like)
    return _BOUND[kit.token]


def _write(address: str, block: Block, found: Mapping[str, np.ndarray]) -> None:
    """Write a chain's part of the traces, which lies in files of its own."""
    store = place(address).zarr()
    root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
    for name, values in found.items():
        array: Any = root[name]
        array[block.chain : block.chain + 1, block.start : block.stop] = values
