"""Retraining as ground truth: what becomes of queries when the network sees some rows only.

A user's function trains on a subset and says the losses of the queries; the rest is here: designs,
processes, and a store that a run which was stopped goes on with.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import xarray as xr
import zarr
from rich.progress import track

from ppl_bif.checks import whole
from ppl_bif.data import as_ids, digest
from ppl_bif.errors import BIFError, StoreError
from ppl_bif.evaluation.tables import row_numbers
from ppl_bif.locking import only_writer
from ppl_bif.places import Place, place, telling, understanding

__all__ = ["leave_out", "random_subsets", "retrain"]

Train = Callable[[np.ndarray, int], Any]
RESERVED = {"done", "mask"}
"""What is kept beside the outputs of a retraining."""

Job = tuple[int, int]
Done = tuple[Job, dict[str, np.ndarray]]


def random_subsets(rows: int, subsets: int, *, fraction: float = 0.5, seed: int = 0) -> np.ndarray:
    """Draw subsets of the training rows, each of the same size; more never change earlier ones.

    Parameters
    ----------
    rows
        In all.
    subsets
        How many are drawn.
    fraction
        Of the rows, in each subset.
    seed
        Of the draws.

    Returns
    -------
    numpy.ndarray
        Of bool, ``(subset, train)``.

    Raises
    ------
    ValueError
        If the fraction is of no row, or of all of them: such subsets tell nothing apart.

    Examples
    --------
    >>> random_subsets(4, 3).sum(axis=1).tolist()
    [2, 2, 2]
    """
    whole("rows", rows), whole("subsets", subsets)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction!r}")
    size = round(fraction * rows)
    if not 0 < size < rows:
        raise ValueError(
            f"subsets must hold some rows and lack some; a fraction of {fraction} holds {size} of "
            f"{rows}"
        )
    masks = np.zeros((subsets, rows), bool)
    for i, mask in enumerate(masks):
        order = np.random.default_rng([seed, i]).permutation(rows)
        mask[order[:size]] = True
    return masks


def leave_out(rows: int, groups: Sequence[Any]) -> np.ndarray:
    """Leave out one row, or one group of rows, at a time.

    Parameters
    ----------
    rows
        In all.
    groups
        Row numbers, or sequences of them; one of none, ``[]``, keeps all rows.

    Returns
    -------
    numpy.ndarray
        Of bool, ``(subset, train)``.

    Raises
    ------
    ValueError
        If there is no row of some number.

    Examples
    --------
    >>> leave_out(3, [0, [1, 2], []]).tolist()
    [[False, True, True], [True, False, False], [True, True, True]]
    """
    masks = np.ones((len(groups), rows), bool)
    for mask, group in zip(masks, groups, strict=True):
        mask[row_numbers(group, rows, "groups")] = False
    return masks


def retrain(
    train: Train,
    masks: Any,
    *,
    seeds: Sequence[int] = (0, 1),
    train_ids: Any = None,
    query_ids: Any = None,
    store: str | Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> xr.Dataset:
    """Retrain a network on each of some subsets, from each of some seeds.

    Parameters
    ----------
    train
        ``train(rows, seed)`` trains on the rows of these numbers, ascending, and returns what
        became of the queries: their losses ``(query,)``, or a mapping such as
        ``{"loss": ..., "margin": ...}``.
    masks
        The rows each retraining sees, bool ``(subset, train)``: :func:`random_subsets`,
        :func:`leave_out`.
    seeds
        Of initial weights and order; at least 2 tell how far the losses can be foretold.
    train_ids, query_ids
        Names of the rows, numbers by default.
    store
        Where each retraining is kept as it ends: a call with the same masks and seeds goes on with
        it. Whether ``train`` is the same is for you to see to.
    workers
        Processes. More than one are started afresh, and each reads the script anew: what calls this
        in a script has to stand under ``if __name__ == "__main__":``. ``train`` goes to them by
        cloudpickle, and has to limit the threads it takes itself.
    progress
        Whether to show a bar.

    Returns
    -------
    xarray.Dataset
        ``loss``, and what else ``train`` returned, (subset, seed, query); ``mask`` (subset, train).
        Attribute ``not_finite``: how many of the values are not finite. They are kept.

    Raises
    ------
    ValueError, TypeError
        If masks are none, ``train`` cannot be sent to processes, or returns what does not fit: not
        one number for each query, or others than the first time.
    BIFError
        If a process ended before its retraining did.
    StoreError
        If the store holds another design, or other outputs, or cannot be written.

    Examples
    --------
    >>> y = np.array([0.0, 1.0, 5.0])
    >>> found = retrain(lambda rows, seed: (y - y[rows].mean()) ** 2, leave_out(3, [0, 2]))
    >>> found["loss"].sel(subset=1, seed=0).values.tolist()
    [0.25, 0.25, 20.25]
    """
    masks, seeds = _as_masks(masks), [whole("seeds", seed, least=0) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be some different numbers; got {seeds}")
    whole("workers", workers)
    ids = as_ids(train_ids, masks.shape[1], "train")
    shape = (len(masks), len(seeds))
    with ExitStack() as stack:
        kept: _Memory | _Store = _Memory(shape)
        if store is not None:
            where = place(store)
            stack.enter_context(only_writer(where))
            kept = _Store(where, shape, digest(masks, seeds))
        jobs = [(m, s) for m, s in np.ndindex(*shape) if not kept.has((m, s))]
        done = stack.enter_context(closing(_done(train, masks, seeds, jobs, workers)))
        alike = _alike(done, kept.sizes())
        for job, values in track(alike, "retraining", len(jobs), disable=not progress):
            kept.put(job, values)
        found = kept.values()
    queries = next(iter(found.values())).shape[2]
    dims = ("subset", "seed", "query")
    result = xr.Dataset(
        {name: (dims, values) for name, values in found.items()},
        coords={"seed": seeds, "train": ids, "query": as_ids(query_ids, queries, "query")},
    )
    result["mask"] = (("subset", "train"), masks)
    bad = sum(int((~np.isfinite(values)).sum()) for values in found.values())
    return result.assign_attrs(not_finite=bad)


def _as_masks(masks: Any) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 2 or masks.dtype != bool or not masks.size:
        raise ValueError(
            f"masks must be bool (subset, train), such as random_subsets(...); got {masks.dtype} "
            f"{masks.shape}"
        )
    empty = np.flatnonzero(~masks.any(axis=1))
    if empty.size:
        raise ValueError(f"subsets {empty[:5].tolist()} hold no row to train on")
    return masks


def _done(
    train: Train, masks: np.ndarray, seeds: Sequence[int], jobs: list[Job], workers: int
) -> Generator[Done, None, None]:
    """Retrain, one after another or in processes, and give each as it ends."""
    if workers == 1:
        for m, s in jobs:
            yield (m, s), _outputs(train(np.flatnonzero(masks[m]), seeds[s]))
        return
    sent = _sent(train)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            running = {
                pool.submit(_in_process, sent, np.flatnonzero(masks[m]), seeds[s]): (m, s)
                for m, s in jobs
            }
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise BIFError(
                "a process ended before its retraining did. In a script, what calls retrain has to "
                'stand under `if __name__ == "__main__":`, as each process reads the script again; '
                "if it does, train ended the process, or memory ran out: try workers=1"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _alike(done: Iterable[Done], held: Mapping[str, int]) -> Iterator[Done]:
    """Give what was retrained on, if it is called as the first was, or a store's, and as long."""
    first = held
    for job, values in done:
        sizes = {name: len(value) for name, value in values.items()}
        first = first or sizes
        if sizes != first:
            others = "those in the store" if held else "the first"
            raise (StoreError if held else ValueError)(
                f"a retraining of subset {job[0]} gave {_told(sizes)}, {others} {_told(first)}: "
                "train must return the same outputs of the same queries each time"
            )
        yield job, values


def _told(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{size} x {name}" for name, size in sizes.items())


def _sent(train: Train) -> bytes:
    try:
        return cloudpickle.dumps(train)
    except Exception as error:
        raise TypeError(
            f"train cannot be sent to other processes: {error}. Have it open files and devices "
            "itself, or pass workers=1"
        ) from error


_RECEIVED: dict[bytes, Train] = {}


def _in_process(sent: bytes, rows: np.ndarray, seed: int) -> Any:
    if sent not in _RECEIVED:
        _RECEIVED[sent] = cloudpickle.loads(sent)
    return _outputs(_RECEIVED[sent](rows, seed))


def _outputs(found: Any) -> dict[str, np.ndarray]:
    named = found if isinstance(found, Mapping) else {"loss": found}
    values = {str(name): np.asarray(value, np.float32) for name, value in named.items()}
    if RESERVED & values.keys():
        raise ValueError(f"train must give outputs called other than {sorted(RESERVED)}")
    shapes = {name: value.shape for name, value in values.items()}
    if (
        not values
        or any(len(shape) != 1 for shape in shapes.values())
        or len(set(shapes.values())) > 1
    ):
        raise ValueError(
            f"train must return one number for each query, or a mapping of such; got {shapes}"
        )
    return values


class _Memory:
    """What has been retrained, in memory."""

    def __init__(self, shape: Job) -> None:
        self._shape, self._found = shape, dict[str, np.ndarray]()

    def has(self, job: Job) -> bool:
        return False

    def sizes(self) -> dict[str, int]:
        return {}

    def put(self, job: Job, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            if name not in self._found:
                self._found[name] = np.empty((*self._shape, len(value)), np.float32)
            self._found[name][job] = value

    def values(self) -> dict[str, np.ndarray]:
        return self._found


class _Store:
    """What has been retrained, on disk: a chunk for each, and a mark when it is whole."""

    def __init__(self, where: Place, shape: Job, design: str) -> None:
        self._where, self._shape = where, shape
        with telling(where.address), understanding(where.address):
            if "zarr.json" not in where.names():
                attributes: dict[str, Any] = {"design": design, "outputs": []}
                made: Any = zarr.create_group(where.zarr(), zarr_format=3, attributes=attributes)
                made.create_array(
                    "done", shape=shape, chunks=(1, 1), dtype="bool", fill_value=False
                )
            root: Any = zarr.open_group(where.zarr(), mode="r+", zarr_format=3)
            if root.attrs.get("design") != design:
                raise StoreError(
                    f"{where.address} holds other retrainings (masks or seeds differ): choose "
                    "another path, or remove it"
                )
            self._root, self._done = root, np.asarray(root["done"][:])

    def has(self, job: Job) -> bool:
        return bool(self._done[job])

    def sizes(self) -> dict[str, int]:
        """Return how many numbers of each output a retraining gave; nothing where there is none."""
        if not self._done.any():
            return {}
        return {name: self._root[name].shape[2] for name in self._root.attrs["outputs"]}

    def put(self, job: Job, values: Mapping[str, np.ndarray]) -> None:
        with telling(self._where.address):
            if not self._done.any():
                self._make(values)
            for name, value in values.items():
                self._root[name][job] = value
            self._root["done"][job] = self._done[job] = True

    def _make(self, values: Mapping[str, np.ndarray]) -> None:
        """Lay out the outputs, over what a run left that was stopped before it kept any."""
        for name, value in values.items():
            self._root.create_array(
                name,
                shape=(*self._shape, len(value)),
                chunks=(1, 1, len(value)),
                dtype="float32",
                fill_value=np.nan,
                overwrite=True,
            )
        self._root.attrs["outputs"] = list(values)

    def values(self) -> dict[str, np.ndarray]:
        return {name: self._root[name][:] for name in self._root.attrs["outputs"]}
