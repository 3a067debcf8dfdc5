"""Covariances of many pairs of series along chains, each with its Monte Carlo error.

NumPy only. Series are centred within their chain; errors come from the covariances of
consecutive blocks of draws, long against the autocorrelation of the products.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

__all__ = [
    "Estimate",
    "block_covariance",
    "block_means",
    "centred",
    "choose_blocks",
    "each_block",
    "edges",
    "inflation",
    "mean_square",
    "mean_variance",
    "product_time",
]

# Means of blocks of 8 autocorrelation times would leave errors 3% too small; `inflation` mends it.
TIMES_PER_BLOCK = 8
MIN_BLOCKS_PER_CHAIN, MAX_BLOCKS = 5, 128


class Estimate(NamedTuple):
    """Scores of a block of pairs, ``(query, train)``: values and Monte Carlo standard errors."""

    value: np.ndarray
    mcse: np.ndarray


class _Sums(NamedTuple):
    """Weighted sums over blocks of draws, from which values and errors follow."""

    blocks: int
    product: np.ndarray
    square: np.ndarray
    centring: np.ndarray
    with_variances: np.ndarray
    variances_square: np.ndarray
    train: np.ndarray
    query: np.ndarray


def product_time(train: np.ndarray, query: np.ndarray, *, pairs: int = 256, seed: int = 0) -> float:
    """Integrated autocorrelation time of centred products, in draws.

    The 90% quantile over random pairs, each with Sokal's automatic window (5 times the time), on
    the autocorrelation averaged over chains.

    Parameters
    ----------
    train, query
        ``(chain, draw, row)``.
    pairs
        Pairs looked at.
    seed
        Of their choice.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> bool(product_time(noise, noise) < 2)
    True
    """
    rng = np.random.default_rng(seed)
    i = rng.integers(train.shape[2], size=pairs)
    q = rng.integers(query.shape[2], size=pairs)
    product = centred(train[:, :, i]) * centred(query[:, :, q])
    correlation = _autocorrelation(centred(product))
    times = 2 * np.cumsum(correlation, axis=0) - 1
    lags = np.arange(len(times))[:, None]
    stop = np.argmax(lags >= 5 * times, axis=0)
    found = times[stop, np.arange(times.shape[1])]
    found = found[np.isfinite(found)]
    return float(max(1.0, np.quantile(found, 0.9))) if found.size else 1.0


def centred(series: np.ndarray) -> np.ndarray:
    """Take from each chain its own mean; series are ``(chain, draw, row)``."""
    # From the first draw on: a series that does not move is then zero without rounding.
    series = series - series[:, :1]
    return series - series.mean(axis=1, keepdims=True, dtype=float).astype(series.dtype)


def _autocorrelation(series: np.ndarray) -> np.ndarray:
    """Autocorrelation ``(lag, row)`` of centred series, averaged over chains."""
    draws = series.shape[1]
    spectrum = np.fft.rfft(series, 2 * draws, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :draws].mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / covariance[0]


def choose_blocks(chains: int, draws: int, time: float) -> int:
    """Return the number of blocks per chain for an autocorrelation time.

    Blocks are of at least 8 times where 5 of them fit, and no more than 128 in all, which gives
    errors to within 6%.
    """
    longest = max(1, draws // 2)
    fitting = max(MIN_BLOCKS_PER_CHAIN, int(draws // (TIMES_PER_BLOCK * time)))
    return max(2, min(fitting, -(-MAX_BLOCKS // chains), longest))


def inflation(draws: int, blocks: int, time: float) -> float:
    """Return the factor by which errors from means of blocks are too small.

    Means of neighbouring blocks of L draws are correlated; for an AR(1) series of autocorrelation
    time t, their variance falls short by a factor 1 - (t - 1/t) / (2 L).
    """
    short = (time - 1 / time) / (2 * draws / blocks)
    return (1 - min(short, 0.5)) ** -0.5


def block_covariance(
    train: np.ndarray,
    query: np.ndarray,
    *,
    blocks: int,
    time: float = 1.0,
    correlation: bool = False,
) -> Estimate:
    """Covariance or correlation of all pairs of series, with errors.

    Parameters
    ----------
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``, finite.
    blocks
        Blocks per chain, at least 2.
    time
        Autocorrelation time of the products, for which errors are corrected.
    correlation
        Divide by both standard deviations; 0 with error 0 where one of them is 0.

    Returns
    -------
    Estimate
        ``(query, train)``. Covariances and their errors are corrected for centring at the mean
        of a finite autocorrelated chain, by the variance of that mean as the blocks show it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=(4, 1000, 1))
    >>> score = block_covariance(a, 2 * a, blocks=20)
    >>> bool(abs(score.value[0, 0] - 2) < 3 * score.mcse[0, 0])
    True
    """
    larger = inflation(train.shape[1], blocks, time)
    if not correlation:
        train, query = centred(train), centred(query)
        sums = _sum_blocks(train, query, blocks, correlation)
        error = larger * _error(sums.square - sums.product**2, sums.blocks)
        return Estimate(sums.product + sums.centring, _with_centring(error, train, query, blocks))
    # Standardized series make the correlation a covariance, and the delta method short.
    train, query = _standardized(train), _standardized(query)
    sums = _sum_blocks(train, query, blocks, correlation)
    defined = np.outer(sums.query > 0, sums.train > 0)
    value = np.where(defined, sums.product, 0.0)
    # Var of z_i z_q - r (z_i^2 + z_q^2) / 2, whose mean is 0.
    variance = (
        sums.square - value * sums.with_variances + value**2 / 4 * sums.variances_square
    ) * defined
    return Estimate(value, larger * _error(variance, sums.blocks))


def _with_centring(
    error: np.ndarray, train: np.ndarray, query: np.ndarray, blocks: int
) -> np.ndarray:
    """Add to errors what centring hides from the blocks.

    Series centred at the mean of their chain vary too little by the variance of that mean, and
    the product of two such means differs from chain to chain.
    """
    (t, t_share), (q, q_share) = (mean_variance(series, blocks) for series in (train, query))
    growth = np.outer(1 + q_share, 1 + t_share)
    return np.sqrt(error**2 * growth + np.outer(q, t) / len(train))


def block_means(series: np.ndarray, blocks: int) -> np.ndarray:
    """Means of the blocks of each chain, in double precision, ``(chain, block, row)``."""
    cuts = edges(series.shape[1], blocks)
    sums = np.add.reduceat(series, cuts[:-1], axis=1, dtype=float)
    return sums / np.diff(cuts)[:, None]


def mean_variance(series: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance ``(row,)`` of the mean of a chain, by its blocks, and the share of all it is."""
    sizes = np.diff(edges(series.shape[1], blocks))
    squares = np.einsum("cbr,b->r", block_means(series, blocks) ** 2, sizes / series.shape[1])
    variance = squares / (len(series) * (blocks - 1))
    total = mean_square(series.reshape(-1, series.shape[2]))
    return variance, variance / np.where(total > 0, total, np.inf)


def edges(draws: int, blocks: int) -> np.ndarray:
    """Return where the blocks of a chain begin, and where the last one ends."""
    return np.arange(blocks + 1) * draws // blocks


def each_block(chains: int, draws: int, blocks: int) -> Iterator[tuple[tuple[int, slice], float]]:
    """Walk over the blocks of all chains: where each is, and its share of all draws."""
    for chain in range(chains):
        for start, stop in pairwise(edges(draws, blocks).tolist()):
            yield (chain, slice(start, stop)), (stop - start) / (chains * draws)


def _standardized(series: np.ndarray) -> np.ndarray:
    moved = centred(series)
    sd = np.sqrt((moved.astype(float) ** 2).mean(axis=(0, 1)))
    # Rounding leaves a constant series a spread of this order.
    level = np.abs(series).max(axis=(0, 1)) * np.finfo(series.dtype).eps
    return moved / np.where(sd > 4 * level, sd, np.inf).astype(series.dtype)


def _error(variance: np.ndarray, blocks: int) -> np.ndarray:
    """Standard error of a mean of blocks that vary by so much."""
    return np.sqrt(np.maximum(variance, 0.0) / (blocks - 1))


def _sum_blocks(train: np.ndarray, query: np.ndarray, blocks: int, variances: bool) -> _Sums:
    chains, draws = train.shape[:2]
    shape = (query.shape[2], train.shape[2])
    product, square, centring, cross, both = (np.zeros(shape) for _ in range(5))
    for block, share in each_block(chains, draws, blocks):
        a, b = train[block], query[block]
        value = (b.T @ a).astype(float) / len(a)
        product += share * value
        square += share * value**2
        if variances:
            summed = mean_square(b)[:, None] + mean_square(a)[None, :]
            cross += share * value * summed
            both += share * summed**2
        else:
            mean = b.mean(axis=0, dtype=float)[:, None] * a.mean(axis=0, dtype=float)
            centring += share * mean / (blocks - 1)
    return _Sums(
        chains * blocks,
        product,
        square,
        centring,
        cross,
        both,
        mean_square(train.reshape(-1, shape[1])),
        mean_square(query.reshape(-1, shape[0])),
    )


def mean_square(series: np.ndarray) -> np.ndarray:
    """Mean square of series ``(draw, row)``, in double precision, ``(row,)``."""
    return np.einsum("tr,tr->r", series, series, dtype=float) / len(series)
