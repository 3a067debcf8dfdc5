"""plot_heatmap: the influences of training rows on queries as cells coloured by sign and size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import criterion, quantity, shorten
from ppl_bif.plots.cells import cells
from ppl_bif.plots.choose import select
from ppl_bif.plots.facets import Panel, facets, panel_of
from ppl_bif.plots.style import Theme, ThemeName, get_theme
from ppl_bif.ranking import discovered
from ppl_bif.scores import influence

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

__all__ = ["plot_heatmap"]

MOST = 300
MOST_PAIRS = 2**26
MOST_NAMES = 40
FDR = 0.05
# Cells beyond this quantile of the sizes have the last colour: one large one hides no other.
SHOWN = 0.98
SIDES = {"query": "queries", "train": "training rows"}


def plot_heatmap(
    scores: Any,
    query: Any = None,
    train: Any = None,
    k: int = 40,
    *,
    labels: Mapping[str, Any] | None = None,
    limit: float | None = None,
    title: str = "",
    theme: ThemeName = "light",
    plot_collection: "PlotCollection | None" = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> "PlotCollection":
    """Draw how training rows influence queries: blue cells raise, orange cells lower.

    A full cell is resolved from zero, at a false discovery rate of 5% over all training rows of its
    query; a small square is not. Where there are more rows than ``k``, only the strongest are
    drawn, and the title says so.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` returned, ``(query, train)``, or a run. Positive: more weight
        on the training row raises the query's log-likelihood, in nats per unit of weight, or
        whatever else was explained, in its unit. Correlations are between -1 and 1.
    query, train
        Ids of the rows to draw, in their order, up to 300. By default all, or the ``k`` strongest:
        those whose resolved scores have the largest sum of squares.
    k
        How many rows of a side are drawn that were not named, at most.
    labels
        What the rows of ``scores`` are, such as their classes: ``{"query": (query,), "train":
        (train,)}``, or one of the two. Rows of a kind then stand together and are named by it.
    limit
        The size of a score from which on colours do not change. By default the 98% quantile of the
        sizes that are drawn.
    title
        Of the figure, before what is left out.
    theme
        ``"light"`` or ``"dark"``.
    plot_collection
        Draw on this one, which has a single panel, in place of a new one.
    backend
        ``"matplotlib"``, ``"plotly"`` or ``"bokeh"``; by default what arviz-plots is set to.
    figure_kwargs
        Of the figure, such as ``figsize``, for arviz-plots' ``create_plotting_grid``.
    pc_kwargs
        Of ``arviz_plots.PlotCollection.wrap``.

    Returns
    -------
    arviz_plots.PlotCollection
        Its visual: ``cells``. Save it with ``pc.savefig(path)``.

    Raises
    ------
    ValueError
        If there are no scores of all pairs, a row is unknown, more than 300 rows are to be drawn,
        labels do not fit, or the backend is unknown.
    ImportError
        If arviz-plots, or what the backend draws with, is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_heatmap
    >>> value = np.array([[0.9, -0.4, 0.1], [0.2, -0.8, 0.7]])
    >>> scores = xr.Dataset(
    ...     {
    ...         "influence": (("query", "train"), value),
    ...         "mcse": (("query", "train"), np.full((2, 3), 0.1)),
    ...     },
    ...     coords={"query": ["q", "r"], "train": ["a", "b", "c"]},
    ... )
    >>> pc = plot_heatmap(scores, labels={"train": ["cat", "dog", "cat"]}, backend="matplotlib")
    >>> panel = pc.viz["plot"].item()
    >>> [label.get_text() for label in panel.get_xticklabels()]
    ['cat', 'dog']
    >>> pc.viz["cells"]["influence"].item().get_array().shape  # 5 x 5 pixels each
    (10, 15)
    """
    scores = _labelled(scores if isinstance(scores, xr.Dataset) else influence(scores), labels)
    drawn, left_out = _chosen(scores, {"query": query, "train": train}, k)
    colors = get_theme(theme)
    drawn = drawn.assign_attrs(drawn.attrs | {"fdr": FDR})
    pc = facets(
        drawn[["influence"]],
        [],
        colors,
        size=(_inches(drawn.sizes["train"], 2.8), _inches(drawn.sizes["query"], 1.3)),
        plot_collection=plot_collection,
        backend=backend,
        figure_kwargs=figure_kwargs,
        **pc_kwargs,
    )
    pc.map(
        cells,
        "cells",
        data=drawn["influence"],
        resolved=drawn["resolved"],
        limit=_limit(drawn) if limit is None else limit,
        label=quantity(drawn.attrs),
        theme=colors,
    )
    panel = panel_of(pc)
    heading = "\n".join(part for part in (title, left_out) if part)
    legend = f"small squares: not resolved at {criterion(drawn.attrs)}"
    panel.label(colors, x=f"training row\n{legend}", y="query", title=heading)
    for side in SIDES:
        _name_rows(panel, side, drawn, colors)
    return pc


def _inches(rows: int, rest: float) -> float:
    return rest + float(np.clip(0.2 * rows, 1.6, 8.0))


def _labelled(scores: xr.Dataset, labels: Mapping[str, Any] | None) -> xr.Dataset:
    """Check scores and say of their rows what they are."""
    if not set(SIDES) <= set(scores.dims) or "influence" not in scores:
        raise ValueError(
            "expected what ppl_bif.influence returns, scores of all pairs of query and train; got "
            f"dims {list(scores.dims)}"
        )
    for side, kinds in (labels or {}).items():
        if side not in SIDES:
            raise ValueError(f"labels are of 'query' and 'train'; got {side!r}")
        kinds = np.asarray(kinds)
        if kinds.shape != (scores.sizes[side],):
            raise ValueError(
                f"labels must say what each of the {scores.sizes[side]} {side} rows of the scores "
                f"is; got shape {kinds.shape}"
            )
        scores = scores.assign_coords({f"{side}_kind": (side, kinds)})
    return scores


def _chosen(scores: xr.Dataset, ids: dict[str, Any], k: int) -> tuple[xr.Dataset, str]:
    """Take the rows that are drawn, those of a kind together; say which were left out."""
    if not 1 <= k <= MOST:
        raise ValueError(f"k must be between 1 and {MOST}, rows that can be told apart; got {k}")
    scores = select(scores, "query", ids["query"])
    if scores.sizes["query"] * scores.sizes["train"] > MOST_PAIRS:
        raise ValueError(
            f"{scores.sizes['query']} x {scores.sizes['train']} scores are too many to look for "
            "the strongest: name some queries by query="
        )
    scores = scores.transpose("query", "train").compute()
    scores = scores.assign(resolved=(("query", "train"), discovered(scores, FDR)))
    scores, told = select(scores, "train", ids["train"]), []
    for side, many in SIDES.items():
        rows = scores.sizes[side]
        if ids[side] is None and rows > k:
            scores = scores.isel({side: _strongest(scores, side, k)})
            told.append(f"{k} of {rows:,} {many}")
        elif rows > MOST:
            raise ValueError(f"at most {MOST} {many} can be told apart; got {rows}: name fewer")
        if f"{side}_kind" in scores.coords:
            order = np.argsort(scores[f"{side}_kind"].values, kind="stable")
            scores = scores.isel({side: order})
    return scores, f"{' and '.join(told)}, the strongest" if told else ""


def _strongest(scores: xr.Dataset, side: str, k: int) -> np.ndarray:
    """Return where the rows of a side with the largest sums of squares are, in order."""
    (other,) = set(SIDES) - {side}
    square = scores["influence"] ** 2
    resolved = square.where(scores["resolved"], 0.0).sum(other).values
    # Where nothing is resolved, what is not decides.
    return np.sort(np.lexsort([square.sum(other).values, resolved])[::-1][:k])


def _limit(drawn: xr.Dataset) -> float:
    sizes = np.abs(drawn["influence"].values)
    return float(np.nanquantile(sizes, SHOWN, method="higher")) or 1.0


def _name_rows(panel: Panel, side: str, drawn: xr.Dataset, theme: Theme) -> None:
    """Name the rows of a side, or their kinds with a line between one and the next."""
    rows = drawn.sizes[side]
    if f"{side}_kind" in drawn.coords:
        kinds, starts = np.unique(drawn[f"{side}_kind"].values, return_index=True)
        ends = np.append(starts[1:], rows)
        at, names = (starts + ends - 1) / 2, kinds
        for edge in starts[1:] - 0.5:
            across = panel.draw.hline if side == "query" else panel.draw.vline
            height = rows - 1 - edge if side == "query" else edge
            across(float(height), panel.target, color=theme.ink, width=0.8)
    else:
        every = -(-rows // MOST_NAMES)
        at, names = np.arange(0, rows, every), drawn[side].values[::every]
    texts = [shorten(name, 13) for name in names]
    limits = (-0.5, rows - 0.5)
    if side == "query":
        # The first is on top.
        panel.draw.yticks((rows - 1 - at).tolist(), texts, panel.target)
        panel.draw.ylim(limits, panel.target)
    else:
        turned = 90 if max(map(len, texts)) > (3 if len(texts) < 20 else 2) else 0
        panel.draw.xticks(at.tolist(), texts, panel.target, rotation=turned)
        panel.draw.xlim(limits, panel.target)
