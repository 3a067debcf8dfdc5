"""Covariances by a Gaussian copula and what it leaves over, both shrunk by their own errors.

NumPy and SciPy only. Losses have long tails, and a few large ones make most of the noise of a
sample covariance. If two series were joined by a Gaussian copula of correlation r, with any
margins x = f(z), then Cov(x, y) = sum_k E[x He_k(z)] E[y He_k(z)] r^k / k! (Mehler's formula), in
which r, the correlation of normal scores, has no tails. The copula serves as a control variate:
what the sample covariance shows beyond it is added, as far as it stands out from its own noise.
"""

from math import factorial
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from ppl_bif.blocks import block_means, centred, inflation, mean_square, mean_variance, spans
from ppl_bif.correlation import block_correlation
from ppl_bif.shrinkage import Shrunk, shrink
from ppl_bif.tiles import Estimate, tiles

__all__ = ["copula_covariance", "normal_scores"]

# Terms of Mehler's series; beyond the third nothing changed on digits.
TERMS = 4


class Margins(NamedTuple):
    """What a set of series is made of.

    Attributes
    ----------
    centred
        Within their chain, ``(chain, draw, row)``.
    scores
        Normal scores of their ranks within their chain, ``(chain, draw, row)``.
    coefficients
        E[x He_k(z)], k = 1, 2 ..., ``(term, row)``.
    error
        Relative standard error of the first coefficient, ``(row,)``.
    sd
        Standard deviation, ``(row,)``.
    """

    centred: np.ndarray
    scores: np.ndarray
    coefficients: np.ndarray
    error: np.ndarray
    sd: np.ndarray


def normal_scores(series: np.ndarray) -> np.ndarray:
    """Replace draws ``(chain, draw, row)`` by normal quantiles of their ranks within a chain.

    Their variance is 1, and 0 where a series does not move.

    Examples
    --------
    >>> normal_scores(np.array([[[3.0], [1.0], [900.0]]])).round(2).ravel().tolist()
    [0.0, -1.22, 1.22]
    """
    draws = series.shape[1]
    # Ties share a rank, which is then half a whole number.
    quantile = ndtri((np.arange(1, 2 * draws + 1) - 1) / 2 / draws)
    scores = quantile[(2 * rankdata(series, axis=1)).astype(int) - 1]
    sd = np.sqrt((scores**2).mean(axis=1, keepdims=True))
    return (scores / np.where(sd > 0, sd, 1.0)).astype(series.dtype)


def copula_covariance(
    train: np.ndarray,
    query: np.ndarray,
    raw: Estimate,
    *,
    blocks: int,
    time: float,
    wider: float = 1.0,
) -> Shrunk:
    """Covariances of all pairs of series: copula and remainder, both shrunk.

    Consistent, as the remainder is kept where there are draws enough to see it.

    Parameters
    ----------
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``, finite.
    raw
        Their sample covariances with errors, by :func:`ppl_bif.covariance.block_covariance`.
    blocks, time
        As for that function.
    wider
        Factor on standard deviations, as :func:`ppl_bif.calibration.widening` finds it.

    Returns
    -------
    Shrunk
        Posterior means of the covariances, standard deviations, and local false sign rates,
        ``(query, train)``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=(4, 500, 1))
    >>> x, y = np.exp(a / 2), np.exp(a / 2 + 0.1 * rng.normal(size=a.shape))
    >>> from ppl_bif.covariance import block_covariance
    >>> raw = block_covariance(x, y, blocks=20)
    >>> found = copula_covariance(x, y, raw, blocks=20, time=1.0)
    >>> exact = np.exp(0.255) * np.expm1(0.25)
    >>> bool(abs(found.mean[0, 0] - exact) < 2 * found.sd[0, 0])
    True
    """
    t, q = (_margins(series, blocks, time) for series in (train, query))
    joint = block_correlation(t.scores, q.scores, blocks=blocks, time=time)
    correlation, spread, false_sign = shrink(*joint)
    explained, slope = _mehler(t, q, correlation)
    # Margins of a pair have seen the same draws: their errors go together.
    margin = explained * np.add.outer(q.error, t.error)
    left, left_sd = _remainder(t, q, raw, joint.value, blocks=blocks, time=time)
    mean = explained + left
    sd = wider * np.sqrt((slope * spread) ** 2 + margin**2 + left_sd**2)
    return Shrunk(mean, sd, _false_sign(mean, sd, np.sign(explained), false_sign))


def _margins(series: np.ndarray, blocks: int, time: float) -> Margins:
    x, z = centred(series), normal_scores(series)
    hermite = [np.ones_like(z), z]
    for k in range(1, TERMS):
        hermite.append(z * hermite[k] - k * hermite[k - 1])
    # Centring at the mean of a finite chain takes this share of the variance away.
    lost = np.sqrt(1 + mean_variance(x, blocks)[1])
    coefficients = np.stack([(x * h).mean(axis=(0, 1), dtype=float) for h in hermite[1:]])
    parts = block_means(x * z, blocks)
    error = parts.std(axis=(0, 1), ddof=1) / np.sqrt(parts[..., 0].size)
    error = error * inflation(series.shape[1], blocks, time)
    first = np.abs(coefficients[0])
    return Margins(
        x,
        z,
        coefficients * lost,
        error / np.where(first > 0, first, np.inf),
        np.sqrt(mean_square(x.reshape(-1, x.shape[2]))) * lost,
    )


def _mehler(t: Margins, q: Margins, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance under a Gaussian copula of correlation r, and its derivative by r."""
    value, slope = np.zeros_like(r), np.zeros_like(r)
    for k, (a, b) in enumerate(zip(t.coefficients, q.coefficients, strict=True), start=1):
        product = np.outer(b, a) / factorial(k - 1)
        slope += product * r ** (k - 1)
        value += product * r**k / k
    return value, slope


def _remainder(
    t: Margins, q: Margins, raw: Estimate, r: np.ndarray, *, blocks: int, time: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sample covariance beyond the copula's, shrunk, and its standard deviation."""
    explained, slope = _mehler(t, q, r)
    scale = np.outer(q.sd, t.sd)
    unit = np.where(scale > 0, scale, np.inf)
    error = _remainder_error(t, q, slope / unit, r, blocks)
    error *= inflation(t.centred.shape[1], blocks, time)
    found = shrink((raw.value - explained) / unit, error)
    return scale * found.mean, scale * found.sd


def _remainder_error(
    t: Margins, q: Margins, slope: np.ndarray, r: np.ndarray, blocks: int
) -> np.ndarray:
    """Standard error of sample covariance less copula, to first order in r, by blocks.

    In units of both standard deviations, as the slope.
    """
    error = np.empty_like(slope)
    chains, draws = t.centred.shape[:2]
    where = spans(chains, draws, blocks)
    train, query = _flat(t, blocks), _flat(q, blocks)
    for tile in tiles(*slope.shape):
        of_q, of_t = tile
        error[tile] = _tile_error(
            tuple(part[:, of_t] for part in train),
            tuple(part[:, of_q] for part in query),
            slope[tile],
            r[tile],
            where,
        )
    return error


def _flat(margins: Margins, blocks: int) -> tuple[np.ndarray, ...]:
    """Return series of standard deviation 1, normal scores, and mean squares of their blocks."""
    x, z = margins.centred, margins.scores
    sd = np.where(margins.sd > 0, margins.sd, np.inf).astype(x.dtype)
    squares = block_means(z**2, blocks)
    return tuple(part.reshape(-1, x.shape[2]) for part in (x / sd, z, squares))


def _tile_error(
    train: tuple[np.ndarray, ...],
    query: tuple[np.ndarray, ...],
    slope: np.ndarray,
    r: np.ndarray,
    where: list[tuple[int, int]],
) -> np.ndarray:
    (x, z, z_squares), (y, w, w_squares) = train, query
    slope = slope.astype(x.dtype)
    around = (slope * r / 2).astype(x.dtype)
    total, square = np.zeros(r.shape), np.zeros(r.shape)
    for block, (start, stop) in enumerate(where):
        a, b, share = z[start:stop], w[start:stop], (stop - start) / len(z)
        left = y[start:stop].T @ x[start:stop]
        left -= slope * (b.T @ a)
        left /= np.array(stop - start, left.dtype)
        left += around * np.add.outer(w_squares[block], z_squares[block]).astype(left.dtype)
        total += share * left
        left *= left
        square += share * left
    return np.sqrt(np.maximum(square - total**2, 0) / (len(where) - 1))


def _false_sign(
    mean: np.ndarray, sd: np.ndarray, copula_sign: np.ndarray, of_copula: np.ndarray
) -> np.ndarray:
    """Probability that a sign is wrong: the larger of the copula's and a normal law's."""
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = np.where(sd > 0, ndtr(-np.abs(mean) / sd), np.where(mean == 0, 1.0, 0.0))
    same = np.sign(mean) == copula_sign
    return np.maximum(normal, np.where(same, of_copula, 1 - of_copula))
