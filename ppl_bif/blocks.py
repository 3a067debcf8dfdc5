"""Blocks of draws: how many, what a chain's own mean hides, and how long products remember.

NumPy only. Series are ``(chain, draw, row)`` unless said otherwise.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

__all__ = [
    "MAX_BLOCKS",
    "RESOLVED_ERRORS",
    "Blocks",
    "block_means",
    "block_sizes",
    "blocks_against",
    "centred",
    "choose_blocks",
    "edges",
    "inflation",
    "mean_error",
    "mean_square",
    "mean_variance",
    "product_time",
    "spans",
]


class Blocks(NamedTuple):
    """Blocks per chain from which errors come, and the autocorrelation time they stand against."""

    blocks: int
    time: float


# Means of blocks of 8 autocorrelation times would leave errors 3% too small; `inflation` mends it.
TIMES_PER_BLOCK = 8
MIN_BLOCKS_PER_CHAIN, MAX_BLOCKS = 5, 32
# An estimate more errors than this from 0 is called resolved.
RESOLVED_ERRORS = 2.0
# Chains whose autocorrelation is looked at.
MOST_CHAINS = 32


def product_time(train: np.ndarray, query: np.ndarray, *, pairs: int = 256, seed: int = 0) -> float:
    """Integrated autocorrelation time of centred products, in draws.

    The 90% quantile over random pairs, or all if they are few, each with Sokal's automatic window
    (5 times the time), on the autocorrelation averaged over chains, of which it looks at no more
    than 32.

    Parameters
    ----------
    train, query
        ``(chain, draw, row)``.
    pairs
        Most pairs looked at.
    seed
        Of their choice.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> bool(product_time(noise, noise) < 2)
    True
    """
    every = -(-len(train) // MOST_CHAINS)
    train, query = train[::every], query[::every]
    i, q = _pairs(train.shape[2], query.shape[2], pairs, seed)
    return _time(centred(train[:, :, i]) * centred(query[:, :, q]))


def _pairs(train: int, query: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose pairs at random, or all where there are no more."""
    if train * query <= most:
        return np.divmod(np.arange(train * query), query)
    rng = np.random.default_rng(seed)
    return rng.integers(train, size=most), rng.integers(query, size=most)


def _time(series: np.ndarray) -> float:
    """Integrated autocorrelation time of series, in draws: the 90% quantile over them."""
    correlation = _autocorrelation(centred(series))
    times = 2 * np.cumsum(correlation, axis=0) - 1
    lags = np.arange(len(times))[:, None]
    stop = np.argmax(lags >= 5 * times, axis=0)
    found = times[stop, np.arange(times.shape[1])]
    found = found[np.isfinite(found)]
    return float(max(1.0, np.quantile(found, 0.9))) if found.size else 1.0


def centred(series: np.ndarray) -> np.ndarray:
    """Take from each chain its own mean."""
    # From the first draw on: a series that does not move is then zero without rounding.
    moved = series - series[:, :1]
    draws = moved.shape[1]
    moved -= np.full((1, draws), 1 / draws, moved.dtype) @ moved
    return moved


def _autocorrelation(series: np.ndarray) -> np.ndarray:
    """Autocorrelation ``(lag, row)`` of centred series, averaged over chains."""
    draws = series.shape[1]
    spectrum = np.fft.rfft(series, 2 * draws, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)
    covariance = np.fft.irfft(power, axis=0)[:draws]
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / covariance[0]


def choose_blocks(chains: int, draws: int, time: float) -> int:
    """Return the number of blocks per chain for an autocorrelation time.

    Blocks are of at least 8 times where 5 of them fit, and about 32 in all at most, which gives
    errors to within 13%: products of more and shorter blocks take longer.
    """
    longest = max(1, draws // 2)
    fitting = max(MIN_BLOCKS_PER_CHAIN, int(draws // (TIMES_PER_BLOCK * time)))
    return max(2, min(fitting, -(-MAX_BLOCKS // chains), longest))


def blocks_against(train: np.ndarray, query: np.ndarray, *, seed: int = 0) -> Blocks:
    """Choose blocks for the products of series, by the autocorrelation of some of them."""
    time = product_time(train, query, seed=seed)
    return Blocks(choose_blocks(len(train), train.shape[1], time), time)


def mean_error(series: np.ndarray) -> np.ndarray:
    """Monte Carlo standard error of the mean of series over all draws, ``(row,)``.

    From means of blocks about the mean of all: chains that lie apart add to it.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(4, 2500, 1))
    >>> mean_error(noise).round(2).tolist()
    [0.01]
    """
    chains, draws = series.shape[:2]
    time = _time(series)
    blocks = choose_blocks(chains, draws, time)
    means = block_means(series, blocks).reshape(-1, series.shape[2])
    return inflation(draws, blocks, time) * means.std(axis=0, ddof=1) / np.sqrt(len(means))


def inflation(draws: int, blocks: int, time: float) -> float:
    """Return the factor by which errors from means of blocks are too small.

    Means of neighbouring blocks of L draws are correlated; for an AR(1) series of autocorrelation
    time t, their variance falls short by a factor 1 - (t - 1/t) / (2 L).
    """
    short = (time - 1 / time) / (2 * draws / blocks)
    return (1 - min(short, 0.5)) ** -0.5


def edges(draws: int, blocks: int) -> np.ndarray:
    """Return where the blocks of a chain begin, and where the last one ends."""
    return np.arange(blocks + 1) * draws // blocks


def spans(chains: int, draws: int, blocks: int) -> list[tuple[int, int]]:
    """Return where the blocks begin and end when chains lie one after another."""
    cuts = edges(draws, blocks)
    start, stop = (
        np.add.outer(np.arange(chains) * draws, c).ravel() for c in (cuts[:-1], cuts[1:])
    )
    return list(zip(start.tolist(), stop.tolist(), strict=True))


def block_sizes(chains: int, draws: int, *, blocks: int) -> np.ndarray:
    """Return how many draws the blocks of all chains have, ``(block,)``."""
    return np.tile(np.diff(edges(draws, blocks)), chains)


def block_means(series: np.ndarray, blocks: int) -> np.ndarray:
    """Means of the blocks of each chain, ``(chain, block, row)``."""
    cuts = edges(series.shape[1], blocks)
    shares = np.zeros((blocks, series.shape[1]), series.dtype)
    for block, (start, stop) in enumerate(pairwise(cuts.tolist())):
        shares[block, start:stop] = 1 / (stop - start)
    return (shares @ series).astype(float)


def mean_variance(series: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance ``(row,)`` of the mean of a chain, by its blocks, and the share of all it is."""
    sizes = np.diff(edges(series.shape[1], blocks))
    squares = np.einsum("cbr,b->r", block_means(series, blocks) ** 2, sizes / series.shape[1])
    variance = squares / (len(series) * (blocks - 1))
    total = mean_square(series.reshape(-1, series.shape[2]))
    return variance, variance / np.where(total > 0, total, np.inf)


def mean_square(series: np.ndarray) -> np.ndarray:
    """Mean square of series ``(draw, row)``, in double precision, ``(row,)``."""
    return np.einsum("tr,tr->r", series, series, dtype=float) / len(series)
