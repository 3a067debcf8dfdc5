"""Brittleness: what becomes of a query when its strongest proponents are left out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.checks import whole
from ppl_bif.evaluation.retraining import leave_out, retrain
from ppl_bif.evaluation.tables import table

__all__ = ["brittleness"]


def brittleness(
    train: Callable[[np.ndarray, int], Any],
    scores: Any,
    *,
    queries: Sequence[int],
    ks: Sequence[int],
    seeds: Sequence[int] = (0, 1),
    **options: Any,
) -> xr.Dataset:
    """Retrain without the top k proponents of each of some queries, and without k rows at random.

    Parameters
    ----------
    train
        As :func:`ppl_bif.evaluation.retrain` takes it.
    scores
        What :func:`ppl_bif.influence` gave, or an array ``(query, train)``, in the order of the
        rows and of the queries that ``train`` knows.
    queries
        Numbers of the queries to try.
    ks
        How many rows are left out.
    seeds
        Of each retraining.
    **options
        ``store``, ``workers`` and ``progress`` of :func:`ppl_bif.evaluation.retrain`.

    Returns
    -------
    xarray.Dataset
        ``loss``, and what else ``train`` returned, of each query itself (removed, query, k, seed),
        where ``removed`` is ``"top"`` or ``"random"``; and with all rows, ``loss_before`` and the
        like (query, seed).

    Examples
    --------
    >>> y = np.array([0.0, 0.0, 0.0, 8.0])
    >>> def train(rows, seed):
    ...     return (y[rows].mean() - np.array([8.0])) ** 2
    >>> found = brittleness(train, [[0.0, 0.0, 0.0, 1.0]], queries=[0], ks=[1], seeds=[0])
    >>> found["loss_before"].item(), found["loss"].sel(removed="top").item()
    (36.0, 64.0)
    """
    values = table(scores)
    chosen, ks = np.asarray(queries, int), [whole("ks", k) for k in ks]
    rows = values.shape[1]
    if not chosen.size or not ks or max(ks) >= rows:
        raise ValueError(f"queries and ks must be some, and ks below the {rows} rows; got {ks}")
    order = np.argsort(-values[chosen], axis=1, kind="stable")
    # The same rows for all queries: what they lose at random is then one retraining a k.
    chance = np.random.default_rng(0).permutation(rows)
    groups = [ranked[:k] for ranked in order for k in ks] + [chance[:k] for k in ks]
    masks = np.concatenate([leave_out(rows, groups), np.ones((1, rows), bool)])
    found = retrain(train, masks, seeds=seeds, **options)
    cells, size = len(chosen) * len(ks), (len(chosen), len(ks), -1)
    out: dict[str, Any] = {}
    for name in (name for name in found.data_vars if name != "mask"):
        all_of = found[name].transpose("query", "subset", "seed").values
        own = all_of[chosen]
        top = np.stack([own[i, i * len(ks) : (i + 1) * len(ks)] for i in range(len(chosen))])
        random = own[:, cells : cells + len(ks)].reshape(size)
        out[str(name)] = (("removed", "query", "k", "seed"), np.stack([top, random]))
        out[f"{name}_before"] = (("query", "seed"), own[:, -1])
    coords = {"removed": ["top", "random"], "query": chosen, "k": ks, "seed": list(seeds)}
    return xr.Dataset(out, coords=coords)
