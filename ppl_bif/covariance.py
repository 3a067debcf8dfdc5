"""Covariances of many pairs of series along chains, each with its Monte Carlo error.

NumPy only. Series are centred within their chain; errors come from the covariances of
consecutive blocks of draws, long against the autocorrelation of the products.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from ppl_bif.blocks import (
    block_means,
    block_sizes,
    centred,
    inflation,
    mean_square,
    mean_variance,
    spans,
)
from ppl_bif.tiles import Estimate, moments, over_tiles

__all__ = ["block_covariance", "covariance"]


class _Series(NamedTuple):
    """Some series of one side, and what errors need of each alone.

    Attributes
    ----------
    scale
        A power of 2 near the standard deviation, ``(row,)``: in single precision, squares of
        products of tiny losses would be 0. All below is in units of it.
    draws
        Centred, all chains one after another, ``(draw, row)``.
    means
        Of the blocks, so scaled that the products of two series' sum to what centring takes from
        their covariance, ``(block, row)``.
    variance
        Of the mean of a chain, ``(row,)``.
    growth
        1 plus the share of all variance that it is, ``(row,)``.
    """

    scale: np.ndarray
    draws: np.ndarray
    means: np.ndarray
    variance: np.ndarray
    growth: np.ndarray


def covariance(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Covariances ``(query, train)`` within chains, without errors.

    Examples
    --------
    >>> covariance(np.array([[[1.0], [3.0]]]), np.array([[[2.0], [4.0]]])).tolist()
    [[1.0]]
    """
    a, b = (centred(series).reshape(-1, series.shape[2]) for series in (train, query))
    b /= len(b)
    return b.T @ a


def block_covariance(
    train: np.ndarray, query: np.ndarray, *, blocks: int, time: float = 1.0
) -> Estimate:
    """Covariance of all pairs of series, with errors.

    Parameters
    ----------
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``, finite.
    blocks
        Blocks per chain, at least 2.
    time
        Autocorrelation time of the products, for which errors are corrected.

    Returns
    -------
    Estimate
        ``(query, train)``. Values and errors are corrected for centring at the mean of a finite
        autocorrelated chain, by the variance of that mean as the blocks show it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=(4, 1000, 1))
    >>> score = block_covariance(a, 2 * a, blocks=20)
    >>> bool(abs(score.value[0, 0] - 2) < 3 * score.mcse[0, 0])
    True
    """
    chains, draws = train.shape[:2]
    where = spans(chains, draws, blocks)
    larger = inflation(draws, blocks, time)

    def compare(rows: _Series, explained: _Series) -> Estimate:
        return _compare(rows, explained, where, chains, larger)

    return over_tiles(partial(_look, blocks=blocks), compare, train, query)


def _look(series: np.ndarray, blocks: int) -> _Series:
    moved, rows = centred(series), series.shape[2]
    sd = np.sqrt(mean_square(moved.reshape(-1, rows)))
    scale = np.exp2(np.round(np.log2(np.where(sd > 0, sd, 1.0))))
    moved /= scale.astype(moved.dtype)
    sizes = block_sizes(*series.shape[:2], blocks=blocks)
    share = np.sqrt(sizes / sizes.sum() / (blocks - 1))
    means = block_means(moved, blocks).reshape(-1, rows) * share[:, None]
    variance, of_all = mean_variance(moved, blocks)
    small = (part.astype(moved.dtype) for part in (means, variance, 1 + of_all))
    return _Series(scale, moved.reshape(-1, rows), *small)


def _compare(
    train: _Series, query: _Series, where: list[tuple[int, int]], chains: int, larger: float
) -> Estimate:
    """Covariances of a tile and their errors.

    Series centred at the mean of their chain vary too little by the variance of that mean, and the
    product of two such means differs from chain to chain.
    """
    product, square = moments(train.draws, query.draws, where)
    square -= product**2
    np.maximum(square, 0, out=square)
    square *= np.outer(query.growth, train.growth * (larger**2 / (len(where) - 1)))
    square += np.outer(query.variance, train.variance / chains)
    product += query.means.T @ train.means
    unit = np.outer(query.scale, train.scale)
    return Estimate(unit * product, unit * np.sqrt(square, out=square))
