"""How well scores foretell retraining: LDS, its interval, and the ceiling that noise sets."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, rankdata


class Lds(NamedTuple):
    """Mean rank correlation over queries, and of each query ``(query,)``."""

    mean: float
    per_query: np.ndarray


def lds(score: np.ndarray, values: np.ndarray, masks: np.ndarray) -> Lds:
    """Compare what scores add up to on every half with what retraining gave.

    Parameters
    ----------
    score
        ``(train, query)``, larger where the row raises the query's value.
    values
        ``(subset, query)``, minus the retrained networks' mean loss.
    masks
        ``(subset, train)``, the rows each retraining saw.
    """
    if score.shape != (masks.shape[1], values.shape[1]):
        raise ValueError(
            f"score has shape {score.shape}, expected (train, query) = "
            f"{(masks.shape[1], values.shape[1])}: transpose it?"
        )
    if not np.isfinite(score).all():
        raise ValueError("score has values that are not finite: the method diverged")
    per_query = spearman(foretold(score, masks), values)
    return Lds(float(per_query.mean()), per_query)


def interval(
    score: np.ndarray, values: np.ndarray, masks: np.ndarray, *, resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the LDS by a bootstrap over subsets and queries, both at once."""
    sums = foretold(score, masks)

    def statistic(subsets: np.ndarray, queries: np.ndarray) -> float:
        rows = np.ix_(subsets, np.unique(queries))
        counts = np.unique(queries, return_counts=True)[1]
        return float(np.average(spearman(sums[rows], values[rows]), weights=counts))

    found = bootstrap(
        tuple(map(np.arange, values.shape)),
        statistic,
        vectorized=False,
        method="percentile",
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return tuple(map(float, found.confidence_interval))


def ceiling(loss: np.ndarray) -> float:
    """LDS of a score that foretells everything but the seeds' noise.

    The square root of the reliability of the seeds' mean loss, from rank correlations between
    halves of the seeds by Spearman-Brown. ``loss`` is ``(subset, seed, query)``.
    """
    seeds = set(range(loss.shape[1]))
    between = [
        spearman(loss[:, list(half)].mean(1), loss[:, list(seeds - set(half))].mean(1)).mean()
        for half in combinations(sorted(seeds), len(seeds) // 2)
    ]
    r = float(np.mean(between))
    return float(np.sqrt(2 * r / (1 + r)))


def foretold(score: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Sum the scores of the rows in each half, ``(subset, query)``."""
    return masks.astype(np.float64) @ score.astype(np.float64)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of each column, ``(query,)``; 0 where one is constant."""
    a, b = (rankdata(x, axis=0) for x in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return (a * b).sum(axis=0) / np.where(scale > 0, scale, np.inf)
