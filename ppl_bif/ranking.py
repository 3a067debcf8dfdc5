"""The rows that most raise and most lower each query, and which of these ranks are resolved."""

from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.approximation import is_weighted
from ppl_bif.blocks import RESOLVED_ERRORS, blocks_against
from ppl_bif.checks import whole
from ppl_bif.discoveries import benjamini_hochberg, surest
from ppl_bif.scores import BLOCK_PAIRS, attributes, influence, shrinks
from ppl_bif.search import Best, search
from ppl_bif.streaming import is_streamed
from ppl_bif.traces import Parts, Traces, refuse_unsampled, traces

__all__ = ["discovered", "top"]

DIRECTIONS = ("raises", "lowers")


def top(
    scores: Any,
    k: int = 10,
    *,
    fdr: float = 0.05,
    train: Any = "train_obs",
    query: Any = "query_obs",
    observable: Any = None,
    groups: Any = None,
    shrink: str | None = "auto",
    by: Any = "sequence",
    spans: Any = None,
    reduce: str = "sum",
) -> xr.Dataset:
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
        What :func:`ppl_bif.influence` gave, or a run. Of a run, plain covariances are searched
        without forming the matrix of all pairs: blocks of training rows pass by, and only what
        enters a list is kept and gets an error; a run on disk is read as they pass. How many of
        a query's p-values are small, on which ``resolved`` hangs, is then counted in a random
        sample of 4,096 rows, less two standard errors.
    k
        Rows listed in each direction.
    fdr
        Expected share of false discoveries among the rows called resolved.
    train, query, observable, groups, shrink, by, spans, reduce
        Of a run, as :func:`ppl_bif.influence` takes them. ``shrink="auto"`` shrinks where that
        function does, but no more than 2^24 pairs.

    Returns
    -------
    xarray.Dataset
        Dims (query, direction, rank): ``train`` (the id), ``influence``, ``mcse``, ``resolved``,
        ``settled``, and what else is known of the rows listed, such as ``train_token``.
        ``direction`` is ``raises`` (most positive first) or ``lowers`` (most
        negative first).

    Raises
    ------
    ValueError
        If there are fewer than k training rows or groups, ``fdr`` is not between 0 and 1, or scores
        that are there already are to be grouped or made of something else.

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
    if not 0 < fdr < 1:
        raise ValueError(f"fdr must lie between 0 and 1; got {fdr!r}")
    if isinstance(scores, xr.Dataset) and "influence" in scores:
        if any(asked is not None for asked in (observable, groups, spans)):
            raise ValueError(
                "observable, groups and spans are taken of a run, and these are scores: pass the "
                "run, or give them to ppl_bif.influence"
            )
    else:
        if not is_streamed(scores) and not is_weighted(scores):
            sides = traces(scores, train, query, observable, Parts(by, spans, reduce, groups))
            rows, queries = (len(side.ids) for side in sides)
            few = shrink == "eb" or rows * queries <= BLOCK_PAIRS
            if not (few and shrinks(shrink, "covariance", rows)):
                return _searched(scores, *sides, k, fdr)
            shrink = "eb"
        scores = influence(
            scores,
            train=train,
            query=query,
            observable=observable,
            groups=groups,
            shrink=shrink,
            by=by,
            spans=spans,
            reduce=reduce,
        )
    rows, queries = scores.sizes["train"], scores.sizes["query"]
    _check_k(k, rows)
    height = max(1, BLOCK_PAIRS // rows)
    parts = [
        _best(scores.isel(query=slice(start, start + height)).compute(), min(k + 1, rows), fdr)
        for start in range(0, queries, height)
    ]
    best = Best(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    listed = _listed(best, k, *(_known(scores, side) for side in ("train", "query")))
    return listed.assign_attrs({**scores.attrs, "k": k, "fdr": fdr})


def _searched(run: Any, rows: Traces, explained: Traces, k: int, fdr: float) -> xr.Dataset:
    """Search the plain covariances of a run."""
    refuse_unsampled(run)
    size = len(rows.ids), len(explained.ids)
    _check_k(k, size[0])
    blocks = blocks_against(rows.some(), explained.some())
    attrs = attributes(run, rows, explained, blocks, kind="covariance", shrunk=False)
    best = search(
        rows.read,
        explained.read,
        size,
        min(k + 1, size[0]),
        blocks,
        fdr=fdr,
        width=rows.width(),
    )
    beta = attrs["inverse_temperature"]
    best = best._replace(value=beta * best.value, error=beta * best.error)
    known = (
        {side: found.ids} | {f"{side}_{name}": values for name, values in found.coords.items()}
        for side, found in (("train", rows), ("query", explained))
    )
    return _listed(best, k, *known).assign_attrs({**attrs, "k": k, "fdr": fdr})


def _known(scores: xr.Dataset, side: str) -> dict[str, np.ndarray]:
    """Return ids, and what else is known along a dim, by name."""
    found = {str(name): of.values for name, of in scores.coords.items() if of.dims == (side,)}
    return {side: scores[side].values, **found}


def _check_k(k: int, rows: int) -> None:
    if whole("k", k) > rows:
        raise ValueError(f"k must be at most the {rows} training rows; got {k}")


def discovered(scores: xr.Dataset, fdr: float) -> np.ndarray:
    """Mark the scores of each query, ``(query, train)``, of which a share ``fdr`` is false."""
    if "false_sign" in scores:
        return surest(scores["false_sign"].values, fdr)
    value, error = scores["influence"].values, scores["mcse"].values
    return benjamini_hochberg(value, error, fdr, int(scores.attrs.get("blocks", 100)))


def _best(scores: xr.Dataset, k: int, fdr: float) -> Best:
    """Find the best of a table of scores."""
    value, error = scores["influence"].values, scores["mcse"].values
    found = discovered(scores, fdr)
    order = np.stack([_largest(value, k), _largest(-value, k)], axis=1)
    picked = (np.take_along_axis(t[:, None, :], order, axis=2) for t in (value, error, found))
    return Best(order, *picked)


def _listed(
    best: Best, k: int, train: dict[str, np.ndarray], query: dict[str, np.ndarray]
) -> xr.Dataset:
    """Lay out the first k of each list; the one after them tells whether the last is settled."""
    dims = ("query", "direction", "rank")
    settled = _settled(best.value, best.error)[..., :k]
    best = Best(*(part[..., :k] for part in best))
    signs = np.array([1, -1])[:, None]
    return xr.Dataset(
        {
            **{name: (dims, values[best.row]) for name, values in train.items()},
            "influence": (dims, best.value),
            "mcse": (dims, best.error),
            # A row of the other sign is in the list only for want of better ones.
            "resolved": (dims, best.found & (signs * best.value > 0)),
            "settled": (dims, settled),
        },
        coords={
            **{name: ("query", values) for name, values in query.items()},
            "direction": list(DIRECTIONS),
            "rank": np.arange(k),
        },
    )


def _settled(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Mark the ranks whose scores differ from those of both neighbours."""
    both = np.hypot(error[..., 1:], error[..., :-1])
    apart = np.abs(np.diff(value, axis=2)) > RESOLVED_ERRORS * both
    end = np.ones_like(value[..., :1], bool)
    return np.concatenate([end, apart], axis=2) & np.concatenate([apart, end], axis=2)


def _largest(value: np.ndarray, k: int) -> np.ndarray:
    some = np.argpartition(-value, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(value, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
