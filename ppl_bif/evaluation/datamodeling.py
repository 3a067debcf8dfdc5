"""Linear datamodeling score: do sums of scores foretell what retraining on subsets gives?"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.evaluation.ranks import Interval, interval, spearman
from ppl_bif.evaluation.ranks import resamples as resampled
from ppl_bif.evaluation.tables import table

__all__ = ["ceiling", "compare", "lds"]

RESAMPLES = 500


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
        If scores lack rows or queries of the truth, or are not finite.

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
    sums, values = _foretold(scores, truth), _values(truth, output)
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
    values, names = _values(truth, output), list(methods)
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
    """LDS of scores that foretell everything but the noise of seeds.

    The square root of the reliability of the mean over seeds: rank correlations of halves of the
    seeds, carried on to all of them by the Spearman-Brown formula, mean over queries.

    Raises
    ------
    ValueError
        If there is one seed only.
    """
    loss = truth[output].transpose("subset", "seed", "query").values
    seeds = set(range(loss.shape[1]))
    if len(seeds) < 2:
        raise ValueError("what seeds add is told by two of them at least: retrain with more seeds")
    between = [
        spearman(loss[:, list(half)].mean(1), loss[:, list(seeds - set(half))].mean(1)).mean()
        for half in combinations(sorted(seeds), len(seeds) // 2)
    ]
    r = float(np.mean(between))
    return float(np.sqrt(max(0.0, 2 * r / (1 + r))))


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


def _values(truth: xr.Dataset, output: str) -> np.ndarray:
    """Return what is to be foretold, ``(subset, query)``."""
    if output not in truth:
        raise ValueError(f"the truth has no {output!r}; it has {list(truth.data_vars)}")
    values = truth[output].transpose("subset", "seed", "query").values.astype(float)
    bad = ~np.isfinite(values).all(axis=(0, 1))
    if bad.any():
        raise ValueError(
            f"{output} of queries {np.flatnonzero(bad)[:5].tolist()} is not finite after some "
            "retraining: leave these queries out, or see why training failed"
        )
    mean = values.mean(axis=1)
    return -mean if output == "loss" else mean


def _foretold(scores: Any, truth: xr.Dataset) -> np.ndarray:
    """Sum the scores of the rows of each subset, ``(subset, query)``."""
    masks = truth["mask"].transpose("subset", "train").values.astype(float)
    found, expected = table(scores, truth), (truth.sizes["query"], masks.shape[1])
    if found.shape != expected:
        raise ValueError(f"scores have shape {found.shape}, expected (query, train) = {expected}")
    return masks @ found.T
