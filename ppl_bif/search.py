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
from ppl_bif.tiles import Estimate, cut

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
    """Scores in lists, ``(list, rank)`` when they are full, ``(pair,)`` as they come in.

    First come the lists of the largest scores of each query, then those of the smallest.
    ``height`` is what they are sorted by, the value or, among the smallest, its negative.
    """

    place: np.ndarray
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
        for part in cut(queries, HEIGHT)
    ]
    return Best(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _passing(train: Read, rows: int, width: int) -> Iterator[_Block]:
    """Read all rows once, and pass them on a few at a time."""
    for start, series in ahead((part.start, train(part)) for part in cut(rows, width)):
        for part in cut(series.shape[2], WIDTH):
            yield start + part.start, series[..., part]


def _search_some(
    train: Iterator[_Block], query: np.ndarray, rows: int, k: int, blocks: Blocks, fdr: float
) -> Best:
    where = layout(len(query), query.shape[1], *blocks)
    explained = look(query, blocks.blocks)
    factors, of_query = explained.factors(where), explained.by_row()
    lists = _empty(2 * query.shape[2], k)
    sample, seen = _sample(rows), []
    for start, series, score in ahead(_scored(train, factors)):
        bars = lists.height[:, -1].reshape(2, -1) / explained.scale
        _enter(lists, _entering(score, bars, k), series, of_query, where, start)
        own = sample[slice(*np.searchsorted(sample, (start, start + series.shape[2])))] - start
        if own.size:
            apart = compare(look(series[..., own], blocks.blocks), explained, where)
            seen.append(in_errors(*apart).astype(np.float32))
    row, value, error = (
        part.reshape(2, -1, k).swapaxes(0, 1) for part in (lists.row, lists.value, lists.error)
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


def _sample(rows: int) -> np.ndarray:
    """Choose the rows that stand for all, in order."""
    return np.sort(np.random.default_rng(0).choice(rows, min(rows, SAMPLE), replace=False))


def _empty(lists: int, k: int) -> _Listed:
    shape = lists, k
    place = np.repeat(np.arange(lists)[:, None], k, axis=1)
    nothing = np.full(shape, -np.inf)
    return _Listed(place, np.full(shape, -1), nothing, np.zeros(shape), np.zeros(shape))


def _entering(score: np.ndarray, bars: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists that scores of a block may enter, and their rows, ``(pair,)``."""
    high, low = bars.astype(score.dtype)
    which, row = _beyond(score, high, score.max(axis=1) > high, np.greater, k)
    below, more = _beyond(score, -low, score.min(axis=1) < -low, np.less, k)
    return np.append(which, len(score) + below), np.append(row, more)


def _beyond(
    score: np.ndarray, bar: np.ndarray, any_is: np.ndarray, over: np.ufunc, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and rows of scores beyond the bar of their query; of very many the best."""
    some = np.flatnonzero(any_is)
    above = np.flatnonzero(over(score[some], bar[some, None]))
    which, row = np.divmod(above, score.shape[1])
    if len(row) <= 4 * k * len(score):
        return some[which], row
    k = min(k, score.shape[1])
    best = np.argpartition(-score if over is np.greater else score, k - 1, axis=1)[:, :k]
    return np.repeat(np.arange(len(score)), k), best.ravel()


def _enter(
    lists: _Listed,
    new: tuple[np.ndarray, np.ndarray],
    series: np.ndarray,
    query: Series,
    where: Layout,
    start: int,
) -> None:
    """Give errors to what may enter the lists, ``(list, row)``, and put it in."""
    place, row = new
    if not row.size:
        return
    needed, at = np.unique(row, return_inverse=True)
    rows = look(series[..., needed], len(where.spans) // where.chains).by_row()
    direction, which = np.divmod(place, len(query.draws))
    found = _estimates(rows, query, (which, at), where)
    height = np.where(direction == 0, found.value, -found.value)
    _merge(lists, _Listed(place, start + row, height, *found))


def _estimates(
    train: Series, query: Series, pairs: tuple[np.ndarray, np.ndarray], where: Layout
) -> Estimate:
    """Covariances of some pairs with errors, a few at a time."""
    found = Estimate(*(np.empty(len(pairs[0])) for _ in Estimate._fields))
    for part in cut(len(pairs[0]), PAIRS):
        some = pairs[0][part], pairs[1][part]
        found.value[part], found.mcse[part] = compare_pairs(train, query, some, where)
    return found


def _merge(lists: _Listed, new: _Listed) -> None:
    """Put new scores into their lists, behind those as high that are there."""
    changed, k = np.unique(new.place), lists.place.shape[1]
    both = _Listed(*(np.append(b[changed], n) for b, n in zip(lists, new, strict=True)))
    order = np.lexsort((-both.height, both.place))
    place = both.place[order]
    kept = order[np.arange(len(order)) - np.searchsorted(place, place) < k]
    for old, part in zip(lists, both, strict=True):
        old[changed] = part[kept].reshape(len(changed), k)


def _discoveries(
    value: np.ndarray, error: np.ndarray, sample: np.ndarray, rows: int, fdr: float, blocks: int
) -> np.ndarray:
    """Mark the discoveries of each query among those listed, ``(query, direction, rank)``."""
    far = in_errors(value, error)
    listed = far.reshape(len(far), -1)
    count = np.arange(1, sample.shape[1] + 1)
    surely = count if len(count) == rows else count - 2 * np.sqrt(count)
    least = np.minimum(
        cut_off(sample, surely / len(count), fdr, blocks),
        cut_off(listed, np.arange(1, listed.shape[1] + 1) / rows, fdr, blocks),
    )
    return far >= least[:, None, None]
