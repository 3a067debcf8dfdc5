"""Wrong labels: made on purpose, and how well a number for each row finds them again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from ppl_bif.evaluation.ranks import RESAMPLES, interval

__all__ = ["detection", "flip_labels"]


def flip_labels(
    labels: Any, fraction: float, *, confusion: Any = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Give some rows the label of another class.

    Parameters
    ----------
    labels
        Classes ``(row,)``, integers from 0.
    fraction
        Of the rows, to be labelled wrongly.
    confusion
        ``(class, class)``: how often a row of the first class is to be taken for the second; what a
        classifier confuses makes wrong labels that are hard to find. All alike by default. The
        diagonal is not used.
    seed
        Of the choice.

    Returns
    -------
    labels, wrong
        ``(row,)``: the labels, and which of them are wrong.

    Examples
    --------
    >>> flipped, wrong = flip_labels(np.arange(10) % 2, 0.3)
    >>> int(wrong.sum()), bool((flipped != np.arange(10) % 2)[wrong].all())
    (3, True)
    """
    labels = np.asarray(labels)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction!r}")
    classes = int(labels.max()) + 1
    chance = np.ones((classes, classes)) if confusion is None else np.array(confusion, float)
    if chance.shape != (classes, classes) or not (np.isfinite(chance) & (chance >= 0)).all():
        raise ValueError(
            f"confusion must be ({classes}, {classes}) and not negative; got {chance.shape}"
        )
    np.fill_diagonal(chance, 0)
    if (stuck := np.flatnonzero(~chance.any(axis=1))).size:
        raise ValueError(f"classes {stuck.tolist()} are confused with none: give them chances")
    rng, wrong = np.random.default_rng(seed), np.zeros(len(labels), bool)
    wrong[rng.permutation(len(labels))[: max(1, round(fraction * len(labels)))]] = True
    flipped = labels.copy()
    for row in np.flatnonzero(wrong):
        odds = chance[labels[row]]
        flipped[row] = rng.choice(classes, p=odds / odds.sum())
    return flipped, wrong


def detection(
    suspicion: Any, wrong: Any, *, resamples: int = RESAMPLES, seed: int = 0
) -> xr.Dataset:
    """Tell how well a number for each row finds the wrong ones: larger is more suspicious.

    Of a BIF, that number is the influence of a row on itself, the variance of its log-likelihood:
    ``np.diagonal(bif.influence(idata, query="train_obs")["influence"])``. The loss at the trained
    weights is what to compare it with.

    Parameters
    ----------
    suspicion
        ``(row,)``.
    wrong
        Which rows are wrong, bool ``(row,)``.
    resamples, seed
        Of the bootstrap, which draws wrong rows and right ones apart; with 0 there is no interval.

    Returns
    -------
    xarray.Dataset
        ``auroc`` with ``auroc_low`` and ``auroc_high``, the chance that a wrong row is more
        suspicious than a right one; ``average_precision`` with the same; ``found`` (inspected),
        the share of the wrong rows among the most suspicious, by the share of rows looked at.

    Examples
    --------
    >>> found = detection([0.1, 0.9, 0.2, 0.3], [False, True, False, False])
    >>> float(found["auroc"])
    1.0
    """
    suspicion, wrong = np.asarray(suspicion, float), np.asarray(wrong)
    if wrong.dtype != bool or wrong.shape != suspicion.shape or wrong.ndim != 1:
        raise ValueError(
            f"expected a number and a bool for each row; got {suspicion.shape} and {wrong.dtype} "
            f"{wrong.shape}"
        )
    if wrong.all() or not wrong.any():
        raise ValueError("of the rows, some must be wrong and some right")
    if not np.isfinite(suspicion).all():
        raise ValueError("suspicion is not finite in some rows")
    bad, good = suspicion[wrong], suspicion[~wrong]
    found: dict[str, Any] = {}
    for name, measure in (("auroc", _auroc), ("average_precision", _average_precision)):
        told = interval(
            partial(_of, measure, bad, good), len(bad), len(good), count=resamples, seed=seed
        )
        found |= {name: told.value, f"{name}_low": told.low, f"{name}_high": told.high}
    caught = np.cumsum(wrong[np.argsort(-suspicion, kind="stable")]) / wrong.sum()
    looked = np.arange(1, len(wrong) + 1) / len(wrong)
    return xr.Dataset(found | {"found": ("inspected", caught)}, coords={"inspected": looked})


def _of(
    measure: Callable[..., float],
    bad: np.ndarray,
    good: np.ndarray,
    some: np.ndarray,
    others: np.ndarray,
) -> float:
    return measure(bad[some], good[others])


def _auroc(bad: np.ndarray, good: np.ndarray) -> float:
    ranks = rankdata(np.concatenate([bad, good]))[: len(bad)].sum()
    return float((ranks - len(bad) * (len(bad) + 1) / 2) / (len(bad) * len(good)))


def _average_precision(bad: np.ndarray, good: np.ndarray) -> float:
    """Mean, over wrong rows, of the share of wrong ones among those as suspicious or more."""
    above = len(bad) - np.searchsorted(np.sort(bad), bad)
    others = len(good) - np.searchsorted(np.sort(good), bad)
    return float(np.mean(above / (above + others)))
