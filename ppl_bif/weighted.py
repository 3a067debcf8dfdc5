"""Covariances of independent draws that carry weights, each pair with its standard error.

NumPy only. With weights of sum 1, the covariance is the weighted mean of the products of series
less their weighted means. Its error is that of a ratio: the weighted products less the covariance,
squared (the delta method).
"""

import numpy as np

from ppl_bif.covariance import covariance_with_errors
from ppl_bif.tiles import Estimate

__all__ = ["covariance_under", "weighted_correlation", "weighted_covariance"]


def covariance_under(weights: np.ndarray | None, train: np.ndarray, query: np.ndarray) -> Estimate:
    """Covariances ``(query, train)``: of chains by their blocks, or of draws with weights."""
    if weights is None:
        return covariance_with_errors(train, query)
    return weighted_covariance(train, query, weights)


def weighted_covariance(train: np.ndarray, query: np.ndarray, weights: np.ndarray) -> Estimate:
    """Covariances of all pairs of series under weights, with errors.

    Parameters
    ----------
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``, of independent draws.
    weights
        Of the draws, not negative, of any sum, ``(chain, draw)``.

    Examples
    --------
    >>> a = np.array([[[0.0], [1.0], [5.0]]])
    >>> weighted_covariance(a, 2 * a, np.array([[1.0, 1.0, 0.0]])).value.tolist()
    [[1.0]]
    """
    share = _shares(weights)
    a, b = (_centred(series, share) for series in (train, query))
    value = (share * b).T @ a
    variance = _mean(b**2, a**2, share) - 2 * value * _mean(b, a, share)
    variance += value**2 * (share**2).sum()
    # Means of few draws lie near them: those that weigh nothing are none.
    left = 1 - (share**2).sum()
    return Estimate(value / left, np.sqrt(np.maximum(variance, 0)) / left)


def weighted_correlation(train: np.ndarray, query: np.ndarray, weights: np.ndarray) -> Estimate:
    """Correlations of all pairs of series under weights, with errors; 0 where one does not vary.

    Examples
    --------
    >>> a = np.array([[[0.0], [1.0], [5.0]]])
    >>> weighted_correlation(a, -a, np.array([[1.0, 2.0, 1.0]])).value.round(6).tolist()
    [[-1.0]]
    """
    share = _shares(weights)
    a, b = (_standard(series, share) for series in (train, query))
    value, both = (share * b).T @ a, _mean(b**2, a**2, share)
    # Of z_i z_q - r (z_i^2 + z_q^2) / 2, whose mean is 0.
    fourth = np.add.outer(*(((share * z**2) ** 2).sum(axis=0) for z in (b, a)))
    variance = both - value * (_mean(b**3, a, share) + _mean(b, a**3, share))
    variance += value**2 / 4 * (fourth + 2 * both)
    return Estimate(value, np.sqrt(np.maximum(variance, 0)))


def _shares(weights: np.ndarray) -> np.ndarray:
    return weights.reshape(-1, 1) / weights.sum()


def _centred(series: np.ndarray, share: np.ndarray) -> np.ndarray:
    flat = series.reshape(-1, series.shape[2]).astype(float)
    # From the first draw on: a series that does not move is then zero without rounding.
    flat -= flat[:1]
    return flat - (share * flat).sum(axis=0)


def _standard(series: np.ndarray, share: np.ndarray) -> np.ndarray:
    moved = _centred(series, share)
    sd = np.sqrt((share * moved**2).sum(axis=0))
    level = np.abs(series).max(axis=(0, 1)) * np.finfo(series.dtype).eps
    return moved / np.where(sd > 4 * level, sd, np.inf)


def _mean(query: np.ndarray, train: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Sum products of all pairs, times the squares of the shares."""
    return (share**2 * query).T @ train
