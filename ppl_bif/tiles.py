"""Pairs of series, worked off in tiles that stay in a processor's cache.

NumPy only. The products of one block of draws are few operations on much memory: formed for all
pairs at once they would wait for it, many times over.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from ppl_bif.threads import in_threads

__all__ = ["Estimate", "cut", "moments", "over_tiles", "pair_moments", "tiles"]

# Queries and training rows of a tile: three of them, in single precision, are most of a megabyte.
TILE = (256, 256)

Side = TypeVar("Side")


class Estimate(NamedTuple):
    """Scores of a block of pairs, ``(query, train)``: values and Monte Carlo standard errors."""

    value: np.ndarray
    mcse: np.ndarray


def over_tiles(
    look: Callable[[np.ndarray], Side],
    compare: Callable[[Side, Side], Estimate],
    train: np.ndarray,
    query: np.ndarray,
) -> Estimate:
    """Look at series of each side once, and compare them tile by tile.

    Parameters
    ----------
    look
        Takes some series ``(chain, draw, row)``.
    compare
        Takes what was seen of some training rows and of some queries.
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``, compared in the precision they have.
    """
    dtype = np.result_type(train, query)
    train, query = train.astype(dtype, copy=False), query.astype(dtype, copy=False)
    found = Estimate(*(np.empty((query.shape[2], train.shape[2])) for _ in Estimate._fields))
    queries = [(q, look(query[:, :, q])) for q in cut(query.shape[2], TILE[0])]

    def column(t: slice) -> None:
        rows = look(train[:, :, t])
        for q, explained in queries:
            found.value[q, t], found.mcse[q, t] = compare(rows, explained)

    in_threads(column, cut(train.shape[2], TILE[1]))
    return found


def tiles(query: int, train: int) -> Iterator[tuple[slice, slice]]:
    """Cut pairs ``(query, train)`` into tiles."""
    for t in cut(train, TILE[1]):
        for q in cut(query, TILE[0]):
            yield q, t


def moments(
    train: np.ndarray, query: np.ndarray, spans: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean products of a tile of series, and mean squares of their means over blocks.

    Parameters
    ----------
    train, query
        ``(draw, train)`` and ``(draw, query)``.
    spans
        Where blocks begin and end.
    """
    shape = (query.shape[1], train.shape[1])
    product, square, one, total, squares = (np.zeros(shape, train.dtype) for _ in range(5))
    # Blocks of one length are summed without weights.
    for size in sorted({stop - start for start, stop in spans}):
        total[:], squares[:] = 0, 0
        for start, stop in (span for span in spans if span[1] - span[0] == size):
            np.matmul(query[start:stop].T, train[start:stop], out=one)
            np.add(total, one, out=total)
            np.multiply(one, one, out=one)
            np.add(squares, one, out=squares)
        product += total
        squares /= size
        square += squares
    product /= len(train)
    square /= len(train)
    return product, square


def pair_moments(
    train: np.ndarray, query: np.ndarray, spans: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`moments`, of single pairs of series ``(pair, draw)``: ``(pair,)``."""
    starts, stops = np.array(spans).T
    sums = np.add.reduceat(train * query, starts, axis=1)
    # Not by BLAS, which may warn of what lies beside so few numbers.
    square = (sums**2 / (stops - starts).astype(sums.dtype)).sum(axis=1)
    return sums.sum(axis=1) / train.shape[1], square / train.shape[1]


def cut(rows: int, size: int) -> list[slice]:
    """Cut rows into runs of so many, the last one shorter.

    Examples
    --------
    >>> cut(5, 3)
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
