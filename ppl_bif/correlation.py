"""Correlations of many pairs of series along chains, each with its Monte Carlo error.

NumPy only. Standardized series make the correlation a covariance, and the delta method short.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from ppl_bif.blocks import block_means, block_sizes, centred, inflation, mean_square, spans
from ppl_bif.tiles import Estimate, moments, over_tiles

__all__ = ["block_correlation"]


class _Series(NamedTuple):
    """Some series of one side, of variance 1.

    Attributes
    ----------
    draws
        All chains one after another, ``(draw, row)``.
    squares
        Mean squares of the blocks, ``(block, row)``.
    weighted
        Each draw times the mean square of its block, ``(draw, row)``.
    moves
        Whether a series varies, ``(row,)``.
    """

    draws: np.ndarray
    squares: np.ndarray
    weighted: np.ndarray
    moves: np.ndarray


def block_correlation(
    train: np.ndarray, query: np.ndarray, *, blocks: int, time: float = 1.0
) -> Estimate:
    """Correlation of all pairs of series, with errors; 0 with error 0 where one does not vary.

    Parameters
    ----------
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``, finite.
    blocks
        Blocks per chain, at least 2.
    time
        Autocorrelation time of the products, for which errors are corrected.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(4, 1000, 1))
    >>> block_correlation(a, -2 * a, blocks=20).value.round(3).tolist()
    [[-1.0]]
    """
    chains, draws = train.shape[:2]
    where, sizes = spans(chains, draws, blocks), block_sizes(chains, draws, blocks=blocks)
    larger = inflation(draws, blocks, time) / np.sqrt(len(where) - 1)

    def compare(rows: _Series, explained: _Series) -> Estimate:
        value, variance = _compare(rows, explained, where, sizes / sizes.sum())
        return Estimate(value, larger * np.sqrt(np.maximum(variance, 0)))

    return over_tiles(partial(_look, blocks=blocks), compare, train, query)


def _look(series: np.ndarray, blocks: int) -> _Series:
    moved, sizes = centred(series), block_sizes(*series.shape[:2], blocks=blocks)
    rows = series.shape[2]
    sd = np.sqrt(mean_square(moved.reshape(-1, rows)))
    # Rounding leaves a constant series a spread of this order.
    level = np.abs(series).max(axis=(0, 1)) * np.finfo(series.dtype).eps
    moves = sd > 4 * level
    moved /= np.where(moves, sd, np.inf).astype(moved.dtype)
    squares = block_means(moved**2, blocks).reshape(-1, rows)
    draws = moved.reshape(-1, rows)
    return _Series(
        draws, squares, draws * np.repeat(squares, sizes, axis=0).astype(draws.dtype), moves
    )


def _compare(
    train: _Series, query: _Series, where: list[tuple[int, int]], shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of a tile, and the variances of what they are means of, block by block.

    That is z_i z_q - r (z_i^2 + z_q^2) / 2, whose mean is 0.
    """
    product, square = moments(train.draws, query.draws, where)
    defined = np.outer(query.moves, train.moves)
    value = np.where(defined, product, 0.0)
    cross = query.weighted.T @ train.draws + query.draws.T @ train.weighted
    both = np.add.outer(shares @ query.squares**2, shares @ train.squares**2)
    both += 2 * (shares[:, None] * query.squares).T @ train.squares
    variance = square - value * cross / len(train.draws) + value**2 / 4 * both
    return value, variance * defined
