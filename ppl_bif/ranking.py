"""The rows that most raise and most lower each query, and which of these ranks are resolved."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import t as student

from ppl_bif.checks import whole
from ppl_bif.scores import BLOCK_PAIRS, RESOLVED_ERRORS, influence

__all__ = ["top"]

DIRECTIONS = ("raises", "lowers")


def top(scores: Any, k: int = 10, *, fdr: float = 0.05) -> xr.Dataset:
    """List the k training rows that most raise, and that most lower, each query.

    The best of many noisy scores look large by chance: 5% of all rows lie beyond two errors when
    nothing is there. A listed row is therefore marked ``resolved`` only if, over all rows of its
    query, it is among the surest of which no more than a share ``fdr`` is expected to be false:
    by the false sign rates of shrunk scores (s-values, Stephens 2017), or else by the
    Benjamini-Hochberg procedure. A *rank* is ``settled`` if the score differs from those listed
    before and after it by more than twice the error of the difference, the two taken as
    independent: with other draws, the neighbours would stand in the same order.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` gave, or a run, of which it is then asked.
    k
        Rows listed in each direction.
    fdr
        Expected share of false discoveries among the rows called resolved.

    Returns
    -------
    xarray.Dataset
        Dims (query, direction, rank): ``train`` (the id), ``influence``, ``mcse``, ``resolved``,
        ``settled``. ``direction`` is ``raises`` (most positive first) or ``lowers`` (most
        negative first).

    Raises
    ------
    ValueError
        If there are fewer than k training rows, or ``fdr`` is not between 0 and 1.

    Examples
    --------
    >>> scores = xr.Dataset(
    ...     {
    ...         "influence": (("query", "train"), [[5.0, 0.1, -4.0]]),
    ...         "mcse": (("query", "train"), [[0.5, 0.5, 0.5]]),
    ...     },
    ...     coords={"query": ["q"], "train": ["a", "b", "c"]},
    ...     attrs={"blocks": 80},
    ... )
    >>> best = top(scores, k=2)
    >>> best["train"].sel(direction="raises").values.tolist()
    [['a', 'b']]
    >>> best["resolved"].sel(direction="raises").values.tolist()
    [[True, False]]
    >>> best["settled"].sel(direction="raises").values.tolist()
    [[True, True]]
    """
    if not isinstance(scores, xr.Dataset) or "influence" not in scores:
        scores = influence(scores)
    rows = scores.sizes["train"]
    if whole("k", k) > rows:
        raise ValueError(f"k must be at most the {rows} training rows; got {k}")
    if not 0 < fdr < 1:
        raise ValueError(f"fdr must lie between 0 and 1; got {fdr!r}")
    height = max(1, BLOCK_PAIRS // rows)
    parts = [
        _top_of(scores.isel(query=slice(start, start + height)).compute(), k, fdr)
        for start in range(0, scores.sizes["query"], height)
    ]
    best = xr.concat(parts, "query") if len(parts) > 1 else parts[0]
    return best.assign_attrs({**scores.attrs, "k": k, "fdr": fdr})


def _top_of(scores: xr.Dataset, k: int, fdr: float) -> xr.Dataset:
    value, error = scores["influence"].values, scores["mcse"].values
    if "false_sign" in scores:
        found = _sure(scores["false_sign"].values, fdr)
    else:
        found = _discoveries(value, error, int(scores.attrs.get("blocks", 100)), fdr)
    more = min(k + 1, value.shape[1])
    order = np.stack([_largest(value, more), _largest(-value, more)], axis=1)
    settled = _settled(value, error, order)[..., :k]
    order = order[..., :k]

    def pick(table: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        chosen = np.take_along_axis(table[:, None, :], order, axis=2)
        return ("query", "direction", "rank"), chosen

    signs = np.array([1, -1])[None, :, None]
    influence = pick(value)
    return xr.Dataset(
        {
            "train": (influence[0], scores["train"].values[order]),
            "influence": influence,
            "mcse": pick(error),
            # A row of the other sign is in the list only for want of better ones.
            "resolved": (influence[0], pick(found)[1] & (signs * influence[1] > 0)),
            "settled": (influence[0], settled),
        },
        coords={
            "query": scores["query"].values,
            "direction": list(DIRECTIONS),
            "rank": np.arange(k),
        },
    )


def _settled(value: np.ndarray, error: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Mark the ranks whose scores differ from those of both neighbours."""
    v, e = (np.take_along_axis(table[:, None, :], order, axis=2) for table in (value, error))
    apart = np.abs(np.diff(v, axis=2)) > RESOLVED_ERRORS * np.hypot(e[..., 1:], e[..., :-1])
    end = np.ones_like(v[..., :1], bool)
    return np.concatenate([end, apart], axis=2) & np.concatenate([apart, end], axis=2)


def _largest(value: np.ndarray, k: int) -> np.ndarray:
    some = np.argpartition(-value, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(value, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _discoveries(value: np.ndarray, error: np.ndarray, blocks: int, fdr: float) -> np.ndarray:
    """Mark the discoveries of each query, by Benjamini & Hochberg (1995)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * student.sf(np.abs(value / error), blocks - 1)
    p = np.where(error > 0, p, 1.0)
    ranked = np.sort(p, axis=1)
    limit = fdr * np.arange(1, p.shape[1] + 1) / p.shape[1]
    below = ranked <= limit
    cut = np.where(below, ranked, -1.0).max(axis=1, keepdims=True)
    return p <= cut


def _sure(false_sign: np.ndarray, fdr: float) -> np.ndarray:
    """Mark the surest scores of each query, whose mean false sign rate is at most ``fdr``."""
    order = np.argsort(false_sign, axis=1, kind="stable")
    ranked = np.take_along_axis(false_sign, order, axis=1)
    mean = np.cumsum(ranked, axis=1) / np.arange(1, ranked.shape[1] + 1)
    found = np.zeros_like(false_sign, bool)
    np.put_along_axis(found, order, mean <= fdr, axis=1)
    return found
