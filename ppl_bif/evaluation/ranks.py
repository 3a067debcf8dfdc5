"""Rank correlations of many columns at once, and intervals over subsets and queries."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

__all__ = ["RESAMPLES", "Interval", "interval", "resamples", "spearman"]

# Of subsets and queries, for an interval.
RESAMPLES = 500


class Interval(NamedTuple):
    """An estimate with its 95% interval, NaN where none was asked for."""

    value: float
    low: float
    high: float


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of each column of two tables ``(subset, query)``; 0 where one is constant.

    Examples
    --------
    >>> spearman(np.array([[1.0], [2.0], [9.0]]), np.array([[0.1], [0.2], [0.3]])).tolist()
    [1.0]
    """
    a, b = (rankdata(x, axis=0) for x in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return (a * b).sum(axis=0) / np.where(scale > 0, scale, np.inf)


def resamples(
    subsets: int, queries: int, count: int, seed: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Draw subsets and queries with replacement, both at once."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(subsets, size=subsets), rng.integers(queries, size=queries)


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    subsets: int,
    queries: int,
    *,
    count: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic of subsets and queries.

    Parameters
    ----------
    statistic
        Of subset numbers and query numbers; of all of them it is the estimate.
    subsets, queries
        How many there are.
    count, seed
        Of resamples.
    """
    found = [statistic(*which) for which in resamples(subsets, queries, count, seed)]
    low, high = np.quantile(found, [0.025, 0.975]) if found else (np.nan, np.nan)
    return Interval(statistic(np.arange(subsets), np.arange(queries)), float(low), float(high))
