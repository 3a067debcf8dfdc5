"""How far the scores of some traces have converged: agreement, resolved ranks, draws needed.

NumPy only, on traces ``(chain, draw, row)`` of usable chains; for :mod:`ppl_bif.diagnostics`, and
for runs that stop by themselves.
"""

import math

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from ppl_bif.covariance import block_covariance, choose_blocks, product_time

__all__ = [
    "agreement",
    "draws_for_resolved",
    "draws_for_stability",
    "mean_known",
    "scores_of",
    "stability",
    "top_resolved",
]

TOP, FDR = 10, 0.05
FARTHEST = 100


def scores_of(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Covariances ``(query, train)`` without errors."""
    return block_covariance(train, query, blocks=2).value


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman correlation of two tables of scores, row by row."""
    x, y = rankdata(a, axis=1), rankdata(b, axis=1)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))


def mean_known(values: np.ndarray) -> float:
    """Mean of the finite values; NaN if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def stability(train: np.ndarray, query: np.ndarray) -> tuple[float, np.ndarray]:
    """Rank agreement to expect between this run and another like it.

    Returns
    -------
    expected : float
        Mean over queries of the Spearman correlation between the two halves of the draws, carried
        over to the whole by the Spearman-Brown formula.
    halves : ndarray, (query,)
        The correlations between halves.
    """
    half = train.shape[1] // 2
    first = scores_of(train[:, :half], query[:, :half])
    halves = agreement(first, scores_of(train[:, half:], query[:, half:]))
    middle = mean_known(halves)
    return (2 * middle / (1 + middle) if middle > -1 else math.nan), halves


def draws_for_stability(draws: int, found: float, target: float) -> float:
    """Draws after which the rank agreement with another run reaches a target (Spearman-Brown).

    Examples
    --------
    >>> draws_for_stability(100, 0.5, 0.75)
    300.0
    """
    if not found > 0:
        return math.inf
    return draws * target * (1 - found) / (found * (1 - target))


def top_resolved(train: np.ndarray, query: np.ndarray, *, k: int = TOP) -> float:
    """Share of each query's k largest scores that are discoveries at rank k of Benjamini-Hochberg.

    A score counts if its p-value is below ``0.05 k / n``, as when all k are discoveries.
    """
    errors = _in_errors(train, query)
    k = min(k, errors.shape[1])
    largest = np.sort(np.abs(errors), axis=1)[:, -k:]
    return float((largest > _threshold(errors.shape[1], k)).mean())


def draws_for_resolved(
    train: np.ndarray, query: np.ndarray, target: float, *, k: int = TOP
) -> float:
    """Draws after which the share of :func:`top_resolved` reaches a target.

    The k rows are chosen on one half of the draws and counted on the other, as the largest of many
    noisy scores look more resolved than they are; errors shrink with the root of the draws.
    Infinite where a hundredfold would not do.
    """
    draws = train.shape[1]
    half = draws // 2
    k = min(k, train.shape[2])
    chosen = scores_of(train[:, :half], query[:, :half])
    rows = np.argsort(-np.abs(chosen), axis=1)[:, :k]
    sign = np.sign(np.take_along_axis(chosen, rows, axis=1))
    errors = _in_errors(train[:, half:], query[:, half:])
    seen = sign * np.take_along_axis(errors, rows, axis=1)
    if not np.isfinite(seen).any():
        return math.nan
    # So many of the k are to pass: the errors of the last of these decides.
    last = float(np.nanquantile(seen, 1 - target))
    limit = _threshold(train.shape[2], k)
    if last <= limit / math.sqrt(2 * FARTHEST):
        return math.inf
    return (draws - half) * (limit / last) ** 2


def _threshold(rows: int, k: int) -> float:
    return float(student.isf(FDR * k / rows / 2, 127))


def _in_errors(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    time = product_time(train, query)
    chains, draws = train.shape[:2]
    blocks = choose_blocks(chains, draws, time)
    found = block_covariance(train, query, blocks=blocks, time=time)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(found.value / found.mcse)
