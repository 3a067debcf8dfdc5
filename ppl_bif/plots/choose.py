"""Which queries and how many of their influences are shown: scores, a ranking or a run in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.ranking import top
from ppl_bif.scores import influence

__all__ = ["best_of", "select", "select_queries"]


def best_of(scores: Any, query: Any = None, k: int = 5, first: int | None = None) -> xr.Dataset:
    """Return the ``k`` strongest influences either way on the chosen queries, in memory.

    Parameters
    ----------
    scores
        What `ppl_bif.influence` or `ppl_bif.top` returned, or a run (InferenceData, DataTree).
    query
        Ids of the queries, in the order wanted; one id or several. None for all of them.
    k
        How many influences in each direction.
    first
        Without ``query``, take only so many queries.

    Raises
    ------
    ValueError
        If a query is not among those scored, or ``k`` is not positive.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if not isinstance(scores, xr.Dataset):
        scores = influence(scores)
    scores = select_queries(scores, query, first)
    if "rank" in scores.dims:
        return scores.isel(rank=slice(k)).compute()
    return top(scores, min(k, scores.sizes["train"]))


def select_queries(data: xr.Dataset, query: Any = None, first: int | None = None) -> xr.Dataset:
    """Return the rows of the named queries, or the first ones."""
    return data.isel(query=slice(first)) if query is None else select(data, "query", query)


def select(data: xr.Dataset, side: str, ids: Any = None) -> xr.Dataset:
    """Return the named rows of a side; an id may be given as the text it prints as."""
    if ids is None:
        return data
    wanted = [ids] if isinstance(ids, str) or np.ndim(ids) == 0 else list(ids)
    where = {str(row): at for at, row in enumerate(data[side].values)}
    unknown = [row for row in wanted if str(row) not in where]
    if unknown:
        what = "query" if side == "query" else "training row"
        raise ValueError(
            f"no {what} named {', '.join(map(str, unknown[:5]))}; the run scored "
            f"{_some(list(where))}"
        )
    if not wanted:
        raise ValueError(f"{side} names no row: pass one id or more, or None")
    return data.isel({side: [where[str(row)] for row in wanted]})


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:8])
    return shown if len(ids) <= 8 else f"{shown}, … ({len(ids)} in all)"
