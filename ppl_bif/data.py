"""Rows of data: what a user hands in as train or query becomes a checked batch of arrays.

A batch is a tuple of arrays ``(inputs..., target)`` or a mapping of named arrays, rows along the
first axis of each. Nothing here knows a framework; tensors and JAX arrays come in as NumPy.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any

import numpy as np

__all__ = [
    "Batch",
    "as_batch",
    "as_ids",
    "as_numpy",
    "batches",
    "digest",
    "map_arrays",
    "num_rows",
    "stacked",
    "target",
]

Batch = tuple[Any, ...] | dict[str, Any]

TARGET_KEYS = ("y", "labels", "target")


def map_arrays(function: Callable[[Any], Any], batch: Batch) -> Batch:
    """Apply a function to every array of a batch and keep its shape as tuple or mapping."""
    if isinstance(batch, dict):
        return {key: function(value) for key, value in batch.items()}
    return tuple(function(value) for value in batch)


def arrays(batch: Batch) -> dict[str, Any]:
    """Name the arrays of a batch; those of a tuple by their position."""
    return batch if isinstance(batch, dict) else {str(i): a for i, a in enumerate(batch)}


def num_rows(batch: Batch) -> int:
    """Count the rows of a batch."""
    return int(next(iter(arrays(batch).values())).shape[0])


def target(batch: Batch) -> Any:
    """Return the targets: the last array of a tuple, or the entry ``y``, ``labels``, ``target``."""
    if not isinstance(batch, dict):
        return batch[-1]
    for key in TARGET_KEYS:
        if key in batch:
            return batch[key]
    raise ValueError(
        f"a mapping of data needs its targets under one of {TARGET_KEYS}; got {list(batch)}"
    )


def logits(outputs: Any) -> Any:
    """Return the logits of what a network of Hugging Face gives; other outputs as they are."""
    return outputs["logits"] if isinstance(outputs, Mapping) and "logits" in outputs else outputs


def inputs(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the network is called with, as positional and keyword arguments."""
    if isinstance(batch, dict):
        return (), {k: v for k, v in batch.items() if k not in TARGET_KEYS}
    return tuple(batch[:-1]), {}


def as_batch(data: Any, name: str) -> Batch:
    """Check user data and return it as a batch of NumPy arrays.

    Parameters
    ----------
    data
        A tuple or list of arrays ``(x, y)``, a mapping of arrays, or an indexable dataset
        (``len(data)``, ``data[i]`` giving one row as a tuple or mapping), which is read into
        memory.
    name
        ``"train"`` or ``"query"``, for error messages.

    Raises
    ------
    ValueError
        If the data is empty, a mapping has no targets, its arrays differ in their number of
        rows, or a value is NaN or infinite.
    TypeError
        If the data is none of the above, or holds something that is not numbers.
    """
    batch = map_arrays(as_numpy, _collect(data, name))
    target(batch)
    named = arrays(batch)
    for key, array in named.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} array {key!r} must hold numbers; got dtype {array.dtype}: encode it first"
            )
        if array.ndim == 0:
            raise ValueError(f"{name} array {key!r} must have rows along its first axis; got 0-d")
    rows = {key: array.shape[0] for key, array in named.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(f"arrays of {name} must have as many rows as each other; got {rows}")
    if 0 in rows.values():
        raise ValueError(f"{name} is empty: at least one row is needed")
    for key, array in named.items():
        _check_finite(array, f"{name} array {key!r}")
    return batch


def _collect(data: Any, name: str) -> Batch:
    if isinstance(data, Mapping):
        batch: Batch = dict(data)
    elif isinstance(data, tuple | list):
        batch = tuple(data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "dtype"):
        batch = _stack([data[i] for i in range(len(data))], name)
    else:
        raise TypeError(
            f"{name} must be a tuple of arrays such as (x, y), a mapping of arrays, or an "
            f"indexable dataset; got {type(data).__name__}"
        )
    if len(batch) < 2:
        raise ValueError(
            f"{name} needs inputs and targets, such as (x, y); got {len(batch)} array(s)"
        )
    return batch


def _stack(items: Sequence[Any], name: str) -> Batch:
    if not items:
        raise ValueError(f"{name} is empty: at least one row is needed")
    if not isinstance(items[0], Mapping | tuple | list):
        raise TypeError(
            f"each item of {name} must be a tuple such as (x, y) or a mapping of arrays; item 0 "
            f"is {type(items[0]).__name__}"
        )
    if isinstance(items[0], Mapping):
        return {key: np.stack([as_numpy(item[key]) for item in items]) for key in items[0]}
    return tuple(
        np.stack([as_numpy(value) for value in column]) for column in zip(*items, strict=True)
    )


def as_numpy(value: Any) -> np.ndarray:
    """Return an array, tensor or sequence as a NumPy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def _check_finite(array: np.ndarray, what: str) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array).reshape(array.shape[0], -1).all(axis=1)
    if bad.any():
        rows = np.flatnonzero(bad)
        raise ValueError(
            f"{what} must be finite; rows {rows[:5].tolist()} ({len(rows)} in all) hold NaN or "
            "infinity: remove or impute them"
        )


def as_ids(ids: Any, rows: int, name: str) -> np.ndarray:
    """Check the names of rows; ``None`` numbers them from 0.

    Raises
    ------
    ValueError
        If there are not ``rows`` ids, or two are the same.
    """
    if ids is None:
        return np.arange(rows)
    ids = as_numpy(ids)
    ids = ids.astype(str) if ids.dtype.kind in "OSU" else ids
    if ids.shape != (rows,):
        raise ValueError(
            f"{name}_ids must name each of the {rows} rows once; got shape {ids.shape}"
        )
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{name}_ids must differ from each other; {values[counts > 1][:5].tolist()} repeat"
        )
    return ids


def batches(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into consecutive ones of ``size`` rows, the last one ragged."""
    for start in range(0, num_rows(batch), size):
        rows = slice(start, start + size)
        yield map_arrays(itemgetter(rows), batch)


def stacked(parts: Iterable[Any], rows: int) -> np.ndarray:
    """Join arrays or tensors of so many rows in all, without holding them beside the whole."""
    start, whole = 0, None
    for part in map(as_numpy, parts):
        if whole is None:
            whole = np.empty((rows, *part.shape[1:]), part.dtype)
        whole[start : start + len(part)] = part
        start += len(part)
    if whole is None or start != rows:
        raise ValueError(f"{rows} rows were expected; got {start}")
    return whole


def digest(*parts: Any) -> str:
    """Fingerprint arrays, batches, mappings and plain values: equal content, equal text.

    Tuples equal lists, and the order of a mapping does not count; dtypes and shapes do.

    Examples
    --------
    >>> digest(np.arange(3)) == digest(np.arange(3)), digest("ab", "c") == digest("a", "bc")
    (True, False)
    """
    state = blake2b(digest_size=16)
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def _feed(state: Any, part: Any) -> None:
    # Each part says its kind and size first, so that no two sequences of parts read the same.
    if isinstance(part, Mapping):
        state.update(f"mapping {len(part)};".encode())
        for key in sorted(part, key=repr):
            _feed(state, key)
            _feed(state, part[key])
    elif isinstance(part, tuple | list):
        state.update(f"sequence {len(part)};".encode())
        for item in part:
            _feed(state, item)
    elif isinstance(part, np.ndarray) and part.dtype.kind in "OSU":
        state.update(f"texts {part.shape};".encode())
        _feed(state, part.ravel().tolist())
    elif isinstance(part, np.ndarray):
        state.update(f"array {part.dtype} {part.shape};".encode())
        state.update(np.ascontiguousarray(part).tobytes())
    else:
        text = repr(part).encode()
        state.update(f"value {len(text)};".encode() + text)
