"""The largest and the smallest covariances of each query, without the matrix of all pairs.

NumPy only. Blocks of training rows pass by once. Of each, all covariances are formed, in one
matrix product, but only those that enter the list of their query are looked at further: they alone
are kept, and they alone get errors. How sure a listed row is hangs on all others, of which a random
sample stands for the rest.
"""

from collections.abc import Callable, Iterator
from itertools import chain, cycle
from typing import NamedTuple

import numpy as np

from ppl_bif.blocks import Blocks
from ppl_bif.covariance import Layout, Series, compare, compare_pairs, layout, look
from ppl_bif.discoveries import cut_off, in_errors
from ppl_bif.threads import ahead
from ppl_bif.tiles import Estimate

__all__ = ["SAMPLE", "Best", "search"]

# Training rows that pass by at once, and queries that they are held against.
WIDTH, HEIGHT = 2048, 2048
# Pairs whose errors are taken at once, so few that they stay in a processor's cache.
PAIRS = 128
# Rows from which the law of all p-values of a query is taken.
SAMPLE = 4096

Read = Callable[[slice], np.ndarray]
# Where rows begin, and their series.
_Block = tuple[int, np.ndarray]


class Best(NamedTuple):
    """The best of each query, in order; dims (query, direction, rank) unless said otherwise.

    Attributes
    ----------
    row
        Positions of training rows.
    value, error
        Covariances and their Monte Carlo errors.
    found
        Whether they are discoveries.
    """

    row: np.ndarray
    value: np.ndarray
    error: np.ndarray
    found: np.ndarray


class _Listed(NamedTuple):
    """Scores in a list, ``(query, rank)`` when it is full, ``(pair,)`` as they come in.

    ``height`` is what they are sorted by, the value or, in the list of the lowest, its negative.
    """

    query: np.ndarray
    row: np.ndarray
    height: np.ndarray
    value: np.ndarray
    error: np.ndarray


def search(
    train: Read,
    query: Read,
    size: tuple[int, int],
    k: int,
    blocks: Blocks,
    *,
    fdr: float,
    width: int = WIDTH,
) -> Best:
    """Find the k largest and k smallest covariances of each query, with errors.

    Parameters
    ----------
    train, query
        Give series ``(chain, draw, row)`` of some of the rows.
    size
        How many training rows and queries there are.
    k
        Rows to list in each direction, at most all.
    blocks
        From which errors come.
    fdr
        Expected share of false discoveries among those called found, by Benjamini & Hochberg
        (1995). How many of all p-values lie below a bound is counted in a random sample of 4,096
        rows, less two standard errors, and in the list itself.
    width
        Training rows that are read at once; the next are read meanwhile.

    Returns
    -------
    Best
        Dims (query, direction, rank), largest first and then smallest first.
    """
    rows, queries = size
    parts = [
        _search_some(_passing(train, rows, width), query(part), rows, k, blocks, fdr)
        for part in _cut(queries, HEIGHT)
    ]
    return Best(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _passing(train: Read, rows: int, width: int) -> Iterator[_Block]:
    """Read all rows once, and pass them on a few at a time."""
    for start, series in ahead((part.start, train(part)) for part in _cut(rows, width)):
        for part in _cut(series.shape[2], WIDTH):
            yield start + part.start, series[..., part]


def _search_some(
    train: Iterator[_Block], query: np.ndarray, rows: int, k: int, blocks: Blocks, fdr: float
) -> Best:
    where = layout(len(query), query.shape[1], *blocks)
    explained = look(query, blocks.blocks)
    factors, of_query = explained.factors(where), explained.by_row()
    lists = [_empty(query.shape[2], k) for _ in _SIGNS]
    sample, seen = _sample(rows), []
    for start, series, score in ahead(_scored(train, factors)):
        bars = [found.height[:, -1] / explained.scale for found in lists]
        new = [_entering(score, bar, sign, k) for bar, sign in zip(bars, _SIGNS, strict=True)]
        _enter(lists, new, series, of_query, where, start)
        own = sample[slice(*np.searchsorted(sample, (start, start + series.shape[2])))] - start
        if own.size:
            apart = compare(look(series[..., own], blocks.blocks), explained, where)
            seen.append(in_errors(*apart).astype(np.float32))
    row, value, error = (
        np.stack([getattr(ranks, name) for ranks in lists], axis=1)
        for name in ("row", "value", "error")
    )
    known = np.concatenate(seen, axis=1)
    found = _discoveries(value, error, known, rows, fdr, len(where.spans))
    return Best(row, value, error, found)


def _scored(
    train: Iterator[_Block], factors: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Add to blocks all their covariances, ``(query, row)``, without errors.

    These lie in two places that take turns: memory that is new has to be cleared first.
    """
    first = next(train)
    dtype = np.result_type(factors, first[1])
    moved = np.empty((factors.shape[1], WIDTH), dtype)
    places = cycle([np.empty((len(factors), WIDTH), dtype) for _ in range(2)])
    for (start, series), place in zip(chain([first], train), places, strict=False):
        rows = series.shape[2]
        # From the first draw on, single precision is enough.
        np.subtract(series, series[:, :1], out=moved[:, :rows].reshape(series.shape))
        yield start, series, np.matmul(factors, moved[:, :rows], out=place[:, :rows])


_SIGNS = (1, -1)


def _sample(rows: int) -> np.ndarray:
    """Choose the rows that stand for all, in order."""
    return np.sort(np.random.default_rng(0).choice(rows, min(rows, SAMPLE), replace=False))


def _empty(queries: int, k: int) -> _Listed:
    shape = queries, k
    query = np.repeat(np.arange(queries)[:, None], k, axis=1)
    nothing = np.full(shape, -np.inf)
    return _Listed(query, np.full(shape, -1), nothing, np.zeros(shape), np.zeros(shape))


def _entering(
    score: np.ndarray, lowest: np.ndarray, sign: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and rows of the scores of a block that may enter the list, ``(pair,)``."""
    bar = (sign * lowest).astype(score.dtype)
    some = np.flatnonzero(score.max(axis=1) > bar if sign > 0 else score.min(axis=1) < bar)
    near, bar = score[some], bar[some, None]
    which, row = np.nonzero(near > bar if sign > 0 else near < bar)
    if len(row) <= 4 * k * len(score):
        return some[which], row
    k = min(k, score.shape[1])
    some = np.argpartition(-sign * score, k - 1, axis=1)[:, :k]
    return np.repeat(np.arange(len(score)), k), some.ravel()


def _enter(
    lists: list[_Listed],
    new: list[tuple[np.ndarray, np.ndarray]],
    series: np.ndarray,
    query: Series,
    where: Layout,
    start: int,
) -> None:
    """Give errors to what may enter the lists, ``(query, row)`` for each, and put it in."""
    needed = np.unique(np.concatenate([row for _, row in new]))
    if not needed.size:
        return
    rows = look(series[..., needed], len(where.spans) // where.chains).by_row()
    for old, sign, (which, row) in zip(lists, _SIGNS, new, strict=True):
        found = _estimates(rows, query, (which, np.searchsorted(needed, row)), where)
        _merge(old, _Listed(which, start + row, sign * found.value, *found))


def _estimates(
    train: Series, query: Series, pairs: tuple[np.ndarray, np.ndarray], where: Layout
) -> Estimate:
    """Covariances of some pairs with errors, a few at a time."""
    found = Estimate(*(np.empty(len(pairs[0])) for _ in Estimate._fields))
    for part in _cut(len(pairs[0]), PAIRS):
        some = pairs[0][part], pairs[1][part]
        found.value[part], found.mcse[part] = compare_pairs(train, query, some, where)
    return found


def _merge(best: _Listed, new: _Listed) -> None:
    """Put new scores into the lists, ``(pair,)`` into ``(query, rank)``; the old ones first."""
    queries, k = np.unique(new.query), best.query.shape[1]
    both = _Listed(*(np.append(b[queries], n) for b, n in zip(best, new, strict=True)))
    order = np.lexsort((-both.height, both.query))
    sorted_query = both.query[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_query, sorted_query)
    kept = order[rank < k]
    for old, part in zip(best, both, strict=True):
        old[queries] = part[kept].reshape(len(queries), k)


def _discoveries(
    value: np.ndarray, error: np.ndarray, sample: np.ndarray, rows: int, fdr: float, blocks: int
) -> np.ndarray:
    """Mark the discoveries of each query among those listed, ``(query, direction, rank)``."""
    far = in_errors(value, error)
    listed = far.reshape(len(far), -1)
    count = np.arange(1, sample.shape[1] + 1)
    surely = count if len(count) == rows else count - 2 * np.sqrt(count)
    cut = np.minimum(
        cut_off(sample, surely / len(count), fdr, blocks),
        cut_off(listed, np.arange(1, listed.shape[1] + 1) / rows, fdr, blocks),
    )
    return far >= cut[:, None, None]


def _cut(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
