"""Brittleness: what becomes of a query when its strongest proponents are left out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.checks import whole
from ppl_bif.data import as_ids
from ppl_bif.evaluation.retraining import leave_out, retrain
from ppl_bif.evaluation.tables import row_numbers, table

__all__ = ["brittleness"]


def brittleness(
    train: Callable[[np.ndarray, int], Any],
    scores: Any,
    *,
    queries: Sequence[int],
    ks: Sequence[int],
    seeds: Sequence[int] = (0, 1),
    chance: int = 5,
    seed: int = 0,
    train_ids: Any = None,
    query_ids: Any = None,
    **options: Any,
) -> xr.Dataset:
    """Retrain without the top k proponents of each of some queries, and without k rows at random.

    It costs ``((len(queries) + chance) * len(ks) + 1) * len(seeds)`` retrainings.

    Parameters
    ----------
    train
        As :func:`ppl_bif.evaluation.retrain` takes it.
    scores
        Of all rows and queries that ``train`` knows: what :func:`ppl_bif.influence` gave, or a
        DataArray (query, train), in which they are found by their ids; or an array
        ``(query, train)`` in the order of ``train``.
    queries
        Numbers of the queries to try, in the order of ``train``.
    ks
        How many rows are left out.
    seeds
        Of each retraining.
    chance
        How often rows are drawn at random. The draws are the same for all queries, and what a
        smaller k leaves out, a larger one does, too.
    seed
        Of these draws.
    train_ids, query_ids
        Names of the rows and queries that ``train`` knows, numbers by default.
    **options
        ``store``, ``workers`` and ``progress`` of :func:`ppl_bif.evaluation.retrain`.

    Returns
    -------
    xarray.Dataset
        ``loss``, and what else ``train`` returned, of each query itself (removed, query, k, seed),
        where ``removed`` is ``"top"`` or ``"random"``, the mean over the draws; ``loss_spread``
        and the like (query, k), the standard deviation over the draws of the mean over seeds,
        against which to hold the distance of the two; and with all rows, ``loss_before`` and the
        like (query, seed).

    Raises
    ------
    ValueError
        If scores are not finite or not of all rows and queries, or there are no such queries, or
        so many rows cannot be left out.

    Examples
    --------
    >>> y = np.array([0.0, 0.0, 0.0, 8.0])
    >>> def train(rows, seed):
    ...     return (y[rows].mean() - np.array([8.0])) ** 2
    >>> found = brittleness(train, [[0.0, 0.0, 0.0, 1.0]], queries=[0], ks=[1], seeds=[0])
    >>> found["loss_before"].item(), found["loss"].sel(removed="top").item()
    (36.0, 64.0)
    """
    count, rows = table(scores).shape
    ids = {"train": as_ids(train_ids, rows, "train"), "query": as_ids(query_ids, count, "query")}
    values = table(scores, xr.Dataset(coords=ids))
    chosen, ks = row_numbers(queries, count, "queries"), [whole("ks", k) for k in ks]
    if not chosen.size or not ks or max(ks) >= rows:
        raise ValueError(f"queries and ks must be some, and ks below the {rows} rows; got {ks}")
    rng, draws = np.random.default_rng(seed), whole("chance", chance, least=2)
    orders = [
        *np.argsort(-values[chosen], axis=1, kind="stable"),
        *(rng.permutation(rows) for _ in range(draws)),
    ]
    masks = leave_out(rows, [[], *(order[:k] for order in orders for k in ks)])
    found = retrain(train, masks, seeds=seeds, **options)
    if found.sizes["query"] != count:
        raise ValueError(
            f"train returned {found.sizes['query']} numbers, the scores are of {count} queries: "
            "hand over the scores of all queries that train knows"
        )
    out: dict[str, Any] = {}
    for name in (name for name in found.data_vars if name != "mask"):
        own = found[name].transpose("query", "subset", "seed").values[chosen]
        out |= _apart(str(name), own, len(ks))
    coords = {"removed": ["top", "random"], "query": ids["query"][chosen], "k": ks}
    return xr.Dataset(out, coords=coords | {"seed": list(seeds)})


def _apart(name: str, own: np.ndarray, ks: int) -> dict[str, Any]:
    """Tell apart what became of queries ``(query, subset, seed)``.

    The first subset is of all rows; then come those without the top of each query, for each k; and
    those without rows at random, for each draw and k.
    """
    queries = len(own)
    without = own[:, 1:].reshape(queries, -1, ks, own.shape[2])
    top, random = without[np.arange(queries), np.arange(queries)], without[:, queries:]
    return {
        name: (("removed", "query", "k", "seed"), np.stack([top, random.mean(axis=1)])),
        f"{name}_spread": (("query", "k"), random.mean(axis=3).std(axis=1, ddof=1)),
        f"{name}_before": (("query", "seed"), own[:, 0]),
    }
