"""Linear datamodeling score: do sums of scores foretell what retraining on subsets gives?"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.evaluation.ranks import RESAMPLES, Interval, interval, spearman
from ppl_bif.evaluation.ranks import resamples as resampled
from ppl_bif.evaluation.tables import outcomes, outcomes_by_seed, table

__all__ = ["ceiling", "compare", "lds"]


def lds(
    scores: Any,
    truth: xr.Dataset,
    *,
    output: str = "loss",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Linear datamodeling score (Park et al. 2023, TRAK, Eq. 10), with an interval.

    For each query, the Spearman correlation over subsets between the sum of the scores of the rows
    in the subset, and minus the mean loss of the networks retrained on it; then the mean over
    queries.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` gave, or a DataArray (query, train), in which rows are found
        by their ids; or an array ``(query, train)`` in the order of the truth. **Positive: more
        weight on the row raises the log-likelihood of the query.**
    truth
        What :func:`ppl_bif.evaluation.retrain` gave, with subsets drawn at random; or with rows
        left out by :func:`ppl_bif.evaluation.leave_out`, which makes it the leave-out correlation,
        as what is kept and what is left out of a sum have the same ranks but for the sign.
    output
        Of the truth. ``loss`` is better when smaller; of all others larger is better.
    resamples, seed
        Of the bootstrap, which draws subsets and queries with replacement, both at once; with 0
        there is no interval.

    Returns
    -------
    xarray.Dataset
        ``lds`` (query), ``mean``, and the 95% interval ``low`` ... ``high`` of the mean.

    Raises
    ------
    ValueError
        If scores lack rows or queries of the truth, or the truth has no such output, or either is
        not finite.

    Examples
    --------
    >>> from ppl_bif.evaluation import random_subsets
    >>> masks = random_subsets(8, 20)
    >>> truth = xr.Dataset(
    ...     {
    ...         "mask": (("subset", "train"), masks),
    ...         "loss": (("subset", "seed", "query"), -(masks @ np.arange(8.0))[:, None, None]),
    ...     }
    ... )
    >>> round(float(lds(np.arange(8.0)[None], truth)["mean"]), 3)
    1.0
    """
    sums, values = _foretold(scores, truth), outcomes(truth, output)
    found = interval(_mean_of(sums, values), *values.shape, count=resamples, seed=seed)
    return xr.Dataset(
        {"lds": ("query", spearman(sums, values)), **_named("mean", found)},
        coords={"query": truth["query"]} if "query" in truth.coords else None,
    )


def compare(
    methods: Mapping[str, Any],
    truth: xr.Dataset,
    *,
    output: str = "loss",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Linear datamodeling scores of several methods, and their differences on the same resamples.

    Parameters
    ----------
    methods
        Scores by name, each as :func:`lds` takes them.
    truth, output, resamples, seed
        As :func:`lds` takes them.

    Returns
    -------
    xarray.Dataset
        ``lds`` with ``low`` and ``high`` (attributor); ``difference`` (attributor, other), the
        first less the second, with its 95% interval ``difference_low`` ... ``difference_high``.
    """
    values, names = outcomes(truth, output), list(methods)
    subsets, queries = values.shape
    each = [_mean_of(_foretold(scores, truth), values) for scores in methods.values()]
    drawn = np.array(
        [[mean(*which) for mean in each] for which in resampled(subsets, queries, resamples, seed)]
    ).reshape(resamples, len(names))
    own = np.array([mean(np.arange(subsets), np.arange(queries)) for mean in each])
    parts = {"lds": own, **_limits(drawn)}
    apart = {"difference": own[:, None] - own}
    for name, limit in _limits(drawn[:, :, None] - drawn[:, None]).items():
        apart[f"difference_{name}"] = limit
    return xr.Dataset(
        {name: ("attributor", v) for name, v in parts.items()}
        | {name: (("attributor", "other"), v) for name, v in apart.items()},
        coords={"attributor": names, "other": names},
    )


def ceiling(truth: xr.Dataset, *, output: str = "loss") -> float:
    """Upper bound of the LDS, set by the noise of seeds, which no score foretells.

    The square root of the reliability of the mean over seeds: rank correlations between halves of
    the seeds, mean over queries, carried on to all seeds by the Spearman-Brown formula.

    It is what scores reach that foretell everything but the noise of seeds, where queries are
    equally noisy. Where they differ it is too high, as the mean is taken before the root: of
    queries half without noise and half nothing but noise, no score exceeds 0.5, and this is 0.82.

    Parameters
    ----------
    truth, output
        As :func:`lds` takes them.

    Raises
    ------
    ValueError
        If there is one seed only, the truth has no such output, or it is not finite.

    Examples
    --------
    >>> from ppl_bif.evaluation import random_subsets, retrain
    >>> truth = retrain(lambda rows, seed: [rows.sum() + 0.1 * seed], random_subsets(8, 20))
    >>> round(ceiling(truth), 3)
    1.0
    """
    values = outcomes_by_seed(truth, output)
    seeds = values.shape[1]
    if seeds < 2:
        raise ValueError("what seeds add is told by two of them at least: retrain with more seeds")
    between = [
        spearman(values[:, one].mean(axis=1), values[:, other].mean(axis=1)).mean()
        for one, other in _halves(seeds)
    ]
    r, more = max(0.0, float(np.mean(between))), seeds / (seeds // 2)
    return float(np.sqrt(more * r / (1 + (more - 1) * r)))


def _halves(seeds: int) -> Iterator[tuple[list[int], list[int]]]:
    """Give halves of the seeds, as large as each other: an odd number leaves one out in turn."""
    for one in combinations(range(seeds), seeds // 2):
        rest = [seed for seed in range(seeds) if seed not in one]
        for other in combinations(rest, seeds // 2):
            yield list(one), list(other)


def _limits(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return the 95% interval of what was resampled, ``(resample, ...)``; NaN of none."""
    if not len(drawn):
        return dict.fromkeys(("low", "high"), np.full(drawn.shape[1:], np.nan))
    return dict(zip(("low", "high"), np.quantile(drawn, [0.025, 0.975], axis=0), strict=True))


def _named(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, "low": found.low, "high": found.high}


def _mean_of(sums: np.ndarray, values: np.ndarray) -> Any:
    """Return the mean correlation as a function of subsets and queries."""

    def mean(subsets: np.ndarray, queries: np.ndarray) -> float:
        which, counts = np.unique(queries, return_counts=True)
        rows = np.ix_(subsets, which)
        return float(np.average(spearman(sums[rows], values[rows]), weights=counts))

    return mean


def _foretold(scores: Any, truth: xr.Dataset) -> np.ndarray:
    """Sum the scores of the rows of each subset, ``(subset, query)``."""
    masks = truth["mask"].transpose("subset", "train").values.astype(float)
    found, expected = table(scores, truth), (truth.sizes["query"], masks.shape[1])
    if found.shape != expected:
        raise ValueError(f"scores have shape {found.shape}, expected (query, train) = {expected}")
    return masks @ found.T
