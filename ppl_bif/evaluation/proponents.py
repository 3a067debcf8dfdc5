"""Do the strongest proponents look right? Of the query's class, or the very row planted."""

from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.checks import whole
from ppl_bif.evaluation.ranks import interval
from ppl_bif.evaluation.tables import table

__all__ = ["planted", "retrieval"]

RESAMPLES = 500


def retrieval(
    scores: Any,
    train_labels: Any,
    query_labels: Any,
    *,
    k: int = 10,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Share of the top k proponents of each query that are of its class.

    Classes may be finer than those that the network was trained on: breeds of what it calls dogs.
    A plausible list is no proof of a faithful one: a nearest neighbour does as well.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` gave, or an array ``(query, train)``.
    train_labels, query_labels
        ``(train,)`` and ``(query,)``.
    k
        Proponents of a query.
    resamples, seed
        Of the bootstrap over queries.

    Returns
    -------
    xarray.Dataset
        ``precision`` (query); its ``mean`` with the 95% interval ``low`` ... ``high``; ``chance``,
        what rows drawn at random would have.

    Examples
    --------
    >>> float(retrieval([[0.9, 0.1], [0.2, 0.3]], ["cat", "dog"], ["cat", "dog"], k=1)["mean"])
    1.0
    """
    values = table(scores)
    whole("k", k)
    train, query = (
        _fitting(labels, n, name)
        for labels, n, name in zip(
            (train_labels, query_labels), values.shape[::-1], ("train", "query"), strict=True
        )
    )
    if k > len(train):
        raise ValueError(f"k must not be more than the {len(train)} training rows; got {k}")
    top = np.argpartition(-values, k - 1, axis=1)[:, :k]
    precision = (train[top] == query[:, None]).mean(axis=1)
    chance = (train[None] == query[:, None]).mean()
    return xr.Dataset(
        {"precision": ("query", precision), **_mean(precision, resamples, seed), "chance": chance}
    )


def planted(scores: Any, rows: Any, *, resamples: int = RESAMPLES, seed: int = 0) -> xr.Dataset:
    """Tell at which rank of each query its copy in the training data lies.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` gave, or an array ``(query, train)``.
    rows
        Number of the training row that is the query's copy, ``(query,)``.
    resamples, seed
        Of the bootstrap over queries.

    Returns
    -------
    xarray.Dataset
        ``rank`` (query), 1 for the strongest proponent; ``reciprocal`` 1 / rank; the ``mean`` of
        that, with the 95% interval ``low`` ... ``high``.

    Examples
    --------
    >>> planted([[0.9, 0.1], [0.4, 0.3]], [0, 1])["rank"].values.tolist()
    [1, 2]
    """
    values = table(scores)
    rows = _fitting(rows, len(values), "query")
    copies = values[np.arange(len(values)), rows]
    rank = 1 + (values > copies[:, None]).sum(axis=1)
    found = {"rank": ("query", rank), "reciprocal": ("query", 1 / rank)}
    return xr.Dataset(found | _mean(1 / rank, resamples, seed))


def _fitting(labels: Any, count: int, name: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"expected one for each of {count} {name} rows; got {labels.shape}")
    return labels


def _mean(values: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    found = interval(
        lambda _, queries: float(values[queries].mean()), 1, len(values), count=resamples, seed=seed
    )
    return {"mean": found.value, "low": found.low, "high": found.high}
