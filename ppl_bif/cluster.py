"""Chains on the workers of a Dask cluster: what they are sent, and what becomes of it.

The calling process alone judges draws, and writes statistics and checkpoints: a run that has lost
its scheduler goes on from them.

Where steps are few against the rows to be scored, a block is several tasks: each makes the same
steps and scores its share of the rows. That spares sending the weights of every draw about.
"""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np

from ppl_bif.blocks import edges
from ppl_bif.errors import StoreError
from ppl_bif.kernel import Engine, Kernel
from ppl_bif.recording import Record
from ppl_bif.tuning import Tuned, packed_tuned
from ppl_bif.worker import LOST, Block, Done, Kit, Shard, make, same

__all__ = ["FILE_BYTES", "Workers", "check_client"]

# Files are small, so that tasks that score some rows each write files of their own.
FILE_BYTES = 2**22
# Steps that several tasks make over again may cost 1 in so many of what they score.
SCORED_OVER_STEPS = 10


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
                self._kit = self.client.submit(same, kit, pure=False)

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
                self.client.submit(make, self._kit, block, shard, pure=False)
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


def check_client(client: Any, store: Any) -> None:
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


def _refuse_what_cannot_be_sent(kernel: Kernel) -> None:
    from distributed.protocol.pickle import dumps

    try:
        dumps(kernel)
    except Exception as error:
        raise TypeError(
            f"the network cannot be sent to workers: {error}. It goes by pickle or cloudpickle: "
            "take out what holds open files, locks or connections, or leave client out"
        ) from error
