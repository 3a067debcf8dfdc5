"""Do the strongest proponents look right? Of the query's class, or the very row planted."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.special import digamma

from ppl_bif.checks import whole
from ppl_bif.evaluation.ranks import RESAMPLES, interval
from ppl_bif.evaluation.tables import row_numbers, table

__all__ = ["planted", "retrieval"]


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
    A plausible list is no proof of a faithful one: a nearest neighbour does as well. Rows with the
    same score count as if they were ordered at random, by expectation.

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

    Raises
    ------
    ValueError
        If scores are not finite, labels are not one for each row, or k is more than the rows.

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
    same = train[None] == query[:, None]
    precision = (_in_top(values, k) * same).sum(axis=1) / k
    found = {"precision": ("query", precision), "chance": same.mean()}
    return xr.Dataset(found | _mean(precision, resamples, seed))


def planted(scores: Any, rows: Any, *, resamples: int = RESAMPLES, seed: int = 0) -> xr.Dataset:
    """Tell at which rank of each query its copy in the training data lies.

    Rows with the same score count as if they were ordered at random, by expectation: scores that
    are all the same get what chance gets.

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
        ``rank`` (query), 1 for the strongest proponent; ``reciprocal`` (query), 1 / rank; the
        ``mean`` of that, with the 95% interval ``low`` ... ``high``; ``chance``, what rows in
        random order would have.

    Raises
    ------
    ValueError
        If scores are not finite, or rows are not one for each query, or not among those trained on.

    Examples
    --------
    >>> planted([[0.9, 0.1], [0.4, 0.3]], [0, 1])["rank"].values.tolist()
    [1.0, 2.0]
    >>> found = planted(np.zeros((1, 3)), [0])
    >>> float(found["rank"][0]), float(found["mean"]) == float(found["chance"])
    (2.0, True)
    """
    values = table(scores)
    queries, train = values.shape
    rows = row_numbers(_fitting(rows, queries, "query"), train, "rows")
    copies = values[np.arange(queries), rows][:, None]
    above, level = (values > copies).sum(axis=1), (values == copies).sum(axis=1)
    reciprocal = _mean_reciprocal(above, level)
    found = {
        "rank": ("query", above + (level + 1) / 2),
        "reciprocal": ("query", reciprocal),
        "chance": _mean_reciprocal(0, train),
    }
    return xr.Dataset(found | _mean(reciprocal, resamples, seed))


def _in_top(values: np.ndarray, k: int) -> np.ndarray:
    """Return each row's chance to be among the top k of a query, ``(query, train)``.

    It is 0 or 1 but for rows level with the last of the top, which share the places left.
    """
    last = np.partition(values, -k, axis=1)[:, [-k]]
    above, level = values > last, values == last
    left = k - above.sum(axis=1, keepdims=True)
    return above + level * left / level.sum(axis=1, keepdims=True)


def _mean_reciprocal(above: Any, level: Any) -> Any:
    """Return the mean of 1 / rank over the ranks ``above`` + 1 ... ``above`` + ``level``."""
    # A sum of reciprocals is a difference of digammas.
    return (digamma(above + level + 1) - digamma(above + 1)) / level


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
