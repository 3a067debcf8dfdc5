"""Means over blocks of draws of products of directions and gradients, and how far off they are.

NumPy only.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Products", "mean_with_errors", "which_spread"]


class Products(NamedTuple):
    """Means of products, ``(query, train)``.

    Attributes
    ----------
    value
        The means.
    mcse
        Their standard errors where both spreads are taken as they are.
    of_spread
        Those by which the spreads add to them.
    """

    value: np.ndarray
    mcse: np.ndarray
    of_spread: np.ndarray


def which_spread(blocks: int) -> np.ndarray:
    """Say for each block which of two spreads it takes: both of each chain's, early and late.

    Examples
    --------
    >>> which_spread(8)
    array([0, 1, 1, 0, 0, 1, 1, 0])
    """
    return np.resize([0, 1, 1, 0], blocks)


def mean_with_errors(forward: np.ndarray, crossed: np.ndarray) -> Products:
    """Average over blocks, with errors by the rows' gradients, by the queries' and by the spread.

    How blocks differ by their rows' gradients is told of every pair. How they differ by the
    queries' is told of examined rows alone; it grows with the gradient of a row, and as it also
    makes the query's longer, with the score: see :func:`_over_pairs`. What the two have in common
    is told of examined rows as well, by leaving out each block in turn. Blocks of either spread
    differ by more than that, which is the spreads' share; of a single pair this is one square, and
    it is told of all pairs of a query.

    Parameters
    ----------
    forward
        Of each block, products of its rows' gradients and of the other blocks' directions,
        ``(block, query, train)``.
    crossed
        Of every pair of blocks, of the first one's directions and the second one's gradients of
        examined rows, ``(block, query, block, row)``.
    """
    count, value = len(forward), forward.mean(axis=0, dtype=float)
    halves = [forward[which_spread(count) == spread] for spread in (0, 1)]
    within = sum((len(half) - 1) * half.var(axis=0, ddof=1, dtype=float) for half in halves)
    by_rows = within / (count - 2) / count
    pairs = crossed.transpose(0, 2, 1, 3).astype(float)
    pairs[np.diag_indices(count)] = 0
    to, of = pairs.sum(axis=0), pairs.sum(axis=1)
    of_rows, of_queries = (
        (sums / (count - 1)).var(axis=0, ddof=1).mean(axis=1) / count for sums in (to, of)
    )
    # Leaving out each block in turn.
    touched = to + of
    without = (touched.sum(axis=0) / 2 - touched) / ((count - 1) * (count - 2))
    of_both = (count - 1) * without.var(axis=0).mean(axis=1)
    examined = to.sum(axis=0) / (count * (count - 1))
    common = _over(of_both, of_rows + of_queries)[:, None]
    known = common * (by_rows + _over_pairs(of_queries, value, examined))
    apart = (halves[0].mean(axis=0, dtype=float) - halves[1].mean(axis=0, dtype=float)) / 2
    of_spread = np.maximum((apart**2 - by_rows).mean(axis=1), 0)
    return Products(value, np.sqrt(known), np.sqrt(_over_pairs(of_spread, value, value)))


def _over_pairs(variance: np.ndarray, value: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Spread each query's mean variance, told of some of its values, over its rows.

    Half of it by the mean square of a row's values, half by the square of the value itself.
    """
    of_row, seen = (value**2).mean(axis=0), (of**2).mean(axis=0).mean()
    own = _over(value**2, (of**2).mean(axis=1)[:, None])
    return variance[:, None] * (_over(of_row, seen) + own) / 2


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, np.finfo(float).tiny)
