"""Which of many scores are called discoveries: those that are false no more often than said.

NumPy and SciPy only; scores ``(query, ...)``, each query for itself.
"""

import numpy as np
from scipy.stats import t as student

__all__ = ["benjamini_hochberg", "cut_off", "in_errors", "surest"]


def in_errors(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return how many errors scores lie from 0; where there is no error, 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, np.abs(value / error), 0.0)


def cut_off(far: np.ndarray, share: np.ndarray, fdr: float, blocks: int) -> np.ndarray:
    """Return how many errors from 0 discoveries of each query lie at least, ``(query,)``.

    Parameters
    ----------
    far
        How many errors scores lie from 0, ``(query, row)``.
    share
        Which share of all rows the first, the first two, and so on, are, ``(row,)``.
    fdr
        Expected share of false discoveries, by the procedure of Benjamini & Hochberg (1995), with
        p-values by Student's law.
    blocks
        From which the errors come.
    """
    ranked = np.sort(far, axis=1)[:, ::-1]
    needed = student.isf(np.maximum(fdr * share, 0) / 2, blocks - 1)
    return np.where(ranked >= needed, ranked, np.inf).min(axis=1)


def benjamini_hochberg(value: np.ndarray, error: np.ndarray, fdr: float, blocks: int) -> np.ndarray:
    """Mark the discoveries of each query among all its scores ``(query, row)``.

    Examples
    --------
    >>> benjamini_hochberg(np.array([[3.0, 2.0, 0.5]]), np.ones((1, 3)), 0.05, 1000).tolist()
    [[True, False, False]]
    """
    far, rows = in_errors(value, error), value.shape[1]
    return far >= cut_off(far, np.arange(1, rows + 1) / rows, fdr, blocks)[:, None]


def surest(false_sign: np.ndarray, fdr: float) -> np.ndarray:
    """Mark the surest scores of each query, whose mean false sign rate is at most ``fdr``.

    Examples
    --------
    >>> surest(np.array([[0.01, 0.08, 0.4]]), 0.05).tolist()
    [[True, True, False]]
    """
    order = np.argsort(false_sign, axis=1, kind="stable")
    ranked = np.take_along_axis(false_sign, order, axis=1)
    mean = np.cumsum(ranked, axis=1) / np.arange(1, ranked.shape[1] + 1)
    found = np.zeros_like(false_sign, bool)
    np.put_along_axis(found, order, mean <= fdr, axis=1)
    return found
