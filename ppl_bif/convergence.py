"""How far the scores of some traces have converged: agreement, resolved ranks, draws needed.

NumPy only, on traces ``(chain, draw, row)`` of usable chains; for :mod:`ppl_bif.diagnostics`, and
for runs that stop by themselves.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from ppl_bif.blocks import MAX_BLOCKS, edges
from ppl_bif.covariance import covariance, covariance_with_errors

__all__ = [
    "Stability",
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
# Powers of the draws with which odds of agreement may grow; about 0.6 on digits.
GROWTH, TYPICAL_GROWTH, DRAWS_OF_QUARTERS = (0.4, 1.0), 0.6, 40


def scores_of(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Covariances ``(query, train)`` without errors."""
    return covariance(train, query)


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


class Stability(NamedTuple):
    """How well the ranks of scores repeat.

    Attributes
    ----------
    expected
        Mean over queries of the Spearman correlation to expect with another such run.
    halves
        Correlations between the two halves of the draws, ``(query,)``.
    growth
        Power of the number of draws with which the odds r / (1 - r) of a correlation grow.
    """

    expected: float
    halves: np.ndarray
    growth: float


def stability(train: np.ndarray, query: np.ndarray) -> Stability:
    """Foretell the rank agreement between this run and another like it.

    Halves of the draws are compared, and quarters; the odds of their agreement are carried on to
    the whole at the power of the draws that the two show. By the Spearman-Brown formula, whose
    power is 1, too much is promised: many scores are far below the noise of any affordable run,
    and their ranks come in late.
    """
    halves = _agreement_of(train, query, _parts(train.shape[1], pieces=2))
    middle, growth = mean_known(halves), TYPICAL_GROWTH
    if train.shape[1] >= DRAWS_OF_QUARTERS:
        cuts = _parts(train.shape[1], pieces=4)
        pairs = [_agreement_of(train, query, pair) for pair in (cuts[:2], cuts[2:])]
        early = mean_known(np.stack(pairs))
        if 0 < early < middle < 1:
            growth = float(np.clip(math.log2(_odds(middle) / _odds(early)), *GROWTH))
    if not 0 < middle < 1:
        return Stability(middle, halves, growth)
    odds = _odds(middle) * 2**growth
    return Stability(odds / (1 + odds), halves, growth)


def _parts(draws: int, *, pieces: int) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(edges(draws, pieces).tolist())]


def _agreement_of(train: np.ndarray, query: np.ndarray, parts: list[slice]) -> np.ndarray:
    """Agreement of the scores of two parts of the draws, ``(query,)``."""
    return agreement(*(scores_of(train[:, part], query[:, part]) for part in parts))


def _odds(r: float) -> float:
    return r / (1 - r)


def draws_for_stability(draws: int, found: Stability, target: float) -> float:
    """Draws after which the rank agreement with another run reaches a target.

    Examples
    --------
    >>> draws_for_stability(100, Stability(0.5, np.array([0.3]), 0.5), 0.75)
    900.0
    """
    if found.expected >= 1:
        return float(draws)
    if not found.expected > 0:
        return math.inf
    return draws * (_odds(target) / _odds(found.expected)) ** (1 / found.growth)


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
    chosen = _in_errors(train[:, :half], query[:, :half])
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
    return float(student.isf(FDR * k / rows / 2, MAX_BLOCKS - 1))


def _in_errors(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    found = covariance_with_errors(train, query)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(found.value / found.mcse)
