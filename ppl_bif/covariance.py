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
    blocks_against,
    centred,
    inflation,
    mean_square,
    spans,
)
from ppl_bif.tiles import Estimate, moments, over_tiles, pair_moments

__all__ = [
    "Layout",
    "Series",
    "block_covariance",
    "compare",
    "compare_pairs",
    "covariance",
    "covariance_with_errors",
    "finished",
    "layout",
    "look",
]


class Series(NamedTuple):
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

    def by_row(self) -> "Series":
        """Lay out draws and means row by row, ``(row, draw)``, from which rows are quickly had."""
        draws, means = (np.ascontiguousarray(part.T) for part in (self.draws, self.means))
        return self._replace(draws=draws, means=means)

    def factors(self, where: "Layout") -> np.ndarray:
        """Return what covariances, in units of these series' scales, are products with.

        Laid out ``(row, draw)``. They sum to 0 in each chain: the other series need no centring.
        """
        chains, rows = where.chains, self.draws.shape[1]
        sizes = np.diff(where.spans)[:, 0]
        # As `_hidden` takes means of blocks, so the products with them are given back to draws.
        weights = 1 / np.sqrt(sizes * len(self.draws) * (len(sizes) // chains - 1))
        found = np.repeat(self.means * weights.astype(self.means.dtype)[:, None], sizes, axis=0)
        by_chain = found.reshape(chains, -1, rows)
        by_chain -= by_chain.mean(axis=1, keepdims=True)
        found += self.draws / np.array(len(self.draws), self.draws.dtype)
        return np.ascontiguousarray(found.T)


class Layout(NamedTuple):
    """Where the blocks of all chains begin and end, and the factor on variances of their mean."""

    spans: list[tuple[int, int]]
    chains: int
    factor: float


def layout(chains: int, draws: int, blocks: int, time: float) -> Layout:
    """Lay so many blocks into each chain, for products of this autocorrelation time."""
    where = spans(chains, draws, blocks)
    return Layout(where, chains, inflation(draws, blocks, time) ** 2 / (len(where) - 1))


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
    where = layout(len(train), train.shape[1], blocks, time)
    return over_tiles(partial(look, blocks=blocks), partial(compare, where=where), train, query)


def covariance_with_errors(train: np.ndarray, query: np.ndarray, *, seed: int = 0) -> Estimate:
    """Covariances of all pairs, ``(query, train)``, by blocks long against these series' memory."""
    return block_covariance(train, query, **blocks_against(train, query, seed=seed)._asdict())


def look(series: np.ndarray, blocks: int) -> Series:
    """Take from series ``(chain, draw, row)`` what their covariances need."""
    moved, rows = centred(series), series.shape[2]
    sd = np.sqrt(mean_square(moved.reshape(-1, rows)))
    scale = np.exp2(np.round(np.log2(np.where(sd > 0, sd, 1.0))))
    moved /= scale.astype(moved.dtype)
    means = _hidden(moved, blocks)
    # That of the mean of a chain, as the blocks show it.
    variance = (means**2).sum(axis=0)
    growth = 1 + variance / np.where(sd > 0, sd / scale, np.inf) ** 2
    small = (part.astype(moved.dtype) for part in (means, variance, growth))
    return Series(scale, moved.reshape(-1, rows), *small)


def _hidden(series: np.ndarray, blocks: int) -> np.ndarray:
    """Means of the blocks less their chain's, so scaled as :class:`Series` says."""
    sizes = block_sizes(*series.shape[:2], blocks=blocks).reshape(-1, blocks, 1)
    means = block_means(series, blocks)
    means -= (sizes * means).sum(axis=1, keepdims=True) / sizes.sum(axis=1, keepdims=True)
    means *= np.sqrt(sizes / sizes.sum() / (blocks - 1))
    return means.reshape(-1, series.shape[2])


def compare(train: Series, query: Series, where: Layout) -> Estimate:
    """Covariances of all pairs and their errors, ``(query, train)``."""
    product, square = moments(train.draws, query.draws, where.spans)
    hidden = query.means.T @ train.means
    down = {name: getattr(query, name)[:, None] for name in ("scale", "variance", "growth")}
    return finished(product, square, hidden, train, query._replace(**down), where)


def compare_pairs(
    train: Series, query: Series, pairs: tuple[np.ndarray, np.ndarray], where: Layout
) -> Estimate:
    """Covariances of some pairs ``(queries, rows)``, of series laid out by row: ``(pair,)``."""
    explained, row = (
        Series(*(part[i] for part in side)) for side, i in zip((query, train), pairs, strict=True)
    )
    product, square = pair_moments(row.draws, explained.draws, where.spans)
    hidden = np.einsum("pb,pb->p", row.means, explained.means)
    return finished(product, square, hidden, row, explained, where)


def finished(
    product: np.ndarray,
    square: np.ndarray,
    hidden: np.ndarray,
    train: Series,
    query: Series,
    where: Layout,
) -> Estimate:
    """Give covariances and errors their corrections and their units.

    Series centred at the mean of their chain vary too little by the variance of that mean, and the
    product of two such means differs from chain to chain.
    """
    square -= product**2
    np.maximum(square, 0, out=square)
    square *= query.growth * (train.growth * where.factor)
    square += query.variance * (train.variance / where.chains)
    product += hidden
    unit = query.scale * train.scale
    return Estimate(unit * product, unit * np.sqrt(square, out=square))
