"""plot_forest: the training rows that most raise and most lower queries, with their errors."""

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import criterion, quantity, score_text
from ppl_bif.plots.choose import best_of
from ppl_bif.plots.facets import DASHED, SOLID, facets, hover, panel_of, segments, spot, spots
from ppl_bif.plots.gallery import Gallery, gallery
from ppl_bif.plots.style import Theme, ThemeName, get_theme

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

__all__ = ["plot_forest"]

FIRST = 4


def plot_forest(
    scores: Any,
    query: Any = None,
    k: int = 10,
    *,
    idata: Any = None,
    theme: ThemeName = "light",
    plot_collection: "PlotCollection | None" = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> "PlotCollection":
    """Draw the training rows that most raise and most lower each query, with their errors.

    A panel for each query: a row for each training row, from the one that most raises it to the one
    that most lowers it, with its score, a thick line of one Monte Carlo standard error to either
    side and a thin one of two. Scores that are not resolved from zero are grey, dashed and hollow.

    Parameters
    ----------
    scores
        What :func:`ppl_bif.influence` (query, train) or :func:`ppl_bif.top` (query, direction,
        rank) returned, or a run. Positive: more weight on the training row raises the query's
        log-likelihood, in nats per unit of weight, or whatever else was explained, in its unit.
    query
        Ids of the queries, one or several; the first four by default.
    k
        How many training rows in each direction, at most: none is listed under the other sign.
    idata
        A run, for labels beside the ids; the run itself where ``scores`` is one.
    theme
        ``"light"`` or ``"dark"``.
    plot_collection
        Draw on this one, which has a panel for each query drawn, in place of a new one.
    backend
        ``"matplotlib"``, ``"plotly"`` or ``"bokeh"``; by default what arviz-plots is set to.
    figure_kwargs
        Of the figure, such as ``figsize``, for arviz-plots' ``create_plotting_grid``.
    pc_kwargs
        Of ``arviz_plots.PlotCollection.wrap``, such as ``col_wrap``, 2 by default.

    Returns
    -------
    arviz_plots.PlotCollection
        Its visuals: ``zero``, and of each of ``raises``, ``lowers`` and ``unresolved`` the
        ``interval_``, ``core_`` and ``point_`` of its rows. Save it with ``pc.savefig(path)``.

    Raises
    ------
    ValueError
        If a query is unknown or named twice, ``k`` is not positive, or the backend is unknown.
    ImportError
        If arviz-plots, or what the backend draws with, is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_forest
    >>> value = np.array([[0.9, -0.4, 0.1]])
    >>> scores = xr.Dataset(
    ...     {
    ...         "influence": (("query", "train"), value),
    ...         "mcse": (("query", "train"), np.full((1, 3), 0.1)),
    ...         "resolved": (("query", "train"), abs(value) > 0.2),
    ...     },
    ...     coords={"query": ["q"], "train": ["a", "b", "c"]},
    ... )
    >>> pc = plot_forest(scores, k=2, backend="matplotlib")
    >>> panel = pc.viz["plot"].sel(query="q").item()
    >>> [label.get_text() for label in panel.get_yticklabels()]
    ['b', 'c', 'a']
    """
    if not isinstance(scores, xr.Dataset) and idata is None:
        idata = scores
    best = best_of(scores, query, k, first=FIRST)
    rows, colors = _rows(best), get_theme(theme)
    known = gallery(idata, "train", variable=best.attrs.get("train_variable"))
    names = [_names(rows.isel(query=at), known) for at in range(rows.sizes["query"])]
    pc = facets(
        rows[["influence"]],
        ["query"],
        colors,
        size=(5.2, 1.2 + 0.21 * rows.sizes["row"]),
        columns=2,
        left=0.075 * max(len(name) for name in chain.from_iterable([[""], *names])),
        plot_collection=plot_collection,
        backend=backend,
        figure_kwargs=figure_kwargs,
        **pc_kwargs,
    )
    _draw(pc, rows, colors)
    label = (
        f"{quantity(best.attrs)} ± 1 and 2 errors\n"
        f"grey, dashed, hollow: not resolved at {criterion(best.attrs)}"
    )
    asked = gallery(idata, "query", variable=best.attrs.get("query_variable"))
    for one, listed in zip(best["query"].values, names, strict=True):
        panel = panel_of(pc, query=one)
        panel.label(colors, x=label, title=" · ".join(asked.lines(one, 28)))
        panel.rows(listed)
        panel.draw.xlim(_reach(rows.sel(query=one)), panel.target)
    return pc


def _rows(best: xr.Dataset) -> xr.Dataset:
    """Lay both lists of each query under each other, ``(query, row)``, from high to low.

    ``y`` is the height at which a row is drawn, the last at 0. After it all is NaN.
    """
    sides = {"raises": slice(None), "lowers": slice(None, None, -1)}
    lists = [best.sel(direction=side).isel(rank=order) for side, order in sides.items()]
    tables = {
        of: np.concatenate([one[of].transpose("query", "rank").values for one in lists], axis=1)
        for of in ("influence", "mcse", "resolved", "train")
    }
    # A row of the other sign is in a list only for want of better ones.
    listed = np.repeat([1, -1], best.sizes["rank"]) * tables["influence"] > 0
    order = np.argsort(~listed, axis=1, kind="stable")
    rows = xr.Dataset(
        {
            of: (("query", "row"), np.take_along_axis(table, order, axis=1))
            for of, table in tables.items()
        },
        coords={"query": best["query"].values},
    )
    last = xr.DataArray(listed.sum(axis=1) - 1, dims="query")
    y = last - xr.DataArray(np.arange(order.shape[1]), dims="row")
    return rows.assign(y=y.where(y >= 0), influence=rows["influence"].where(y >= 0))


def _names(one: xr.Dataset, known: Gallery) -> list[str]:
    """Name the rows of a query, from high to low."""
    listed = np.isfinite(one["y"].values)
    return [" · ".join(known.lines(row, 20)) for row in one["train"].values[listed]]


def _reach(one: xr.Dataset) -> tuple[float, float]:
    """Return between which values a query's rows lie, 0 among them."""
    low = min(0.0, float((one["influence"] - 2 * one["mcse"]).min().fillna(0)))
    high = max(0.0, float((one["influence"] + 2 * one["mcse"]).max().fillna(0)))
    rest = 0.05 * (high - low) or 1.0
    return low - rest, high + rest


def _draw(pc: Any, rows: xr.Dataset, theme: Theme) -> None:
    from arviz_plots import visuals

    resolved = rows["resolved"]
    said = xr.apply_ufunc(_said, *(rows[of] for of in ("train", "influence", "mcse")))
    looks = {
        "raises": (resolved & (rows["influence"] > 0), theme.raises),
        "lowers": (resolved & (rows["influence"] < 0), theme.lowers),
        "unresolved": (~resolved, theme.muted),
    }
    for look, (where, color) in looks.items():
        some, plainly = rows[["influence", "mcse", "y"]].where(where), look != "unresolved"
        parts = (("interval", 2, 1.2, SOLID if plainly else DASHED), ("core", 1, 3.0, SOLID))
        for part, errors, width, dash in parts:
            pc.map(
                visuals.line_xy,
                f"{part}_{look}",
                data=segments("influence", _ends(some, errors), some["y"], "row"),
                color=color,
                width=width,
                linestyle=dash[pc.backend],
            )
        pc.map(
            visuals.scatter_xy,
            f"point_{look}",
            data=spots("influence", some["influence"], some["y"]),
            facecolor=color if plainly else theme.paper,
            edgecolor=color,
            width=1.3,
            **spot(pc, 5.5),
            **hover(pc, said),
        )
    # Plotly draws no line across a panel that is empty.
    zero = xr.zeros_like(rows["influence"].isel(row=0, drop=True).fillna(0))
    pc.map(visuals.vline, "zero", data=zero, color=theme.muted, width=0.8)


def _ends(rows: xr.Dataset, errors: int) -> list[xr.DataArray]:
    return [rows["influence"] + errors * way * rows["mcse"] for way in (-1, 1)]


@np.vectorize
def _said(row: Any, value: float, error: float) -> str:
    return f"{row}: {score_text(value, error)}"
