"""plot_convergence: how the strongest influences of a query move as draws are added."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.growth import over_draws
from ppl_bif.plots.captions import quantity, score_text, shorten
from ppl_bif.plots.choose import select_queries
from ppl_bif.plots.curves import End, band, dots, name_ends
from ppl_bif.plots.facets import DASHED, SOLID, Panel, facets, panel_of
from ppl_bif.plots.style import Theme, ThemeName, get_theme
from ppl_bif.scores import influence

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

__all__ = ["plot_convergence"]

FIRST = 4
# Pairs formed at once: of many training rows, those of few queries that nobody asked for.
BLOCK_PAIRS = 2**14
ERRORS = 2


def plot_convergence(
    run: Any,
    query: Any = None,
    k: int = 5,
    *,
    points: int | Sequence[int] = 10,
    theme: ThemeName = "light",
    plot_collection: "PlotCollection | None" = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> "PlotCollection":
    """Draw how the strongest influences on each query move as draws are added.

    A panel for each query: a line for each of the training rows whose influence is largest, either
    way, from all draws; in a band of two Monte Carlo standard errors, with the final value at its
    end. Solid and filled where the sign is resolved, dashed and hollow where it is not. Rows are
    chosen by the last estimate: on the way there they look larger than others by chance too.

    Parameters
    ----------
    run
        A run, InferenceData or DataTree, of which the default influences are estimated; or what
        :func:`ppl_bif.over_draws` returned, such as of another observable.
    query
        Ids of the queries, one or several; the first four by default.
    k
        Training rows of each query, 6 at most.
    points
        As :func:`ppl_bif.over_draws` takes them: how many estimates, after equal shares of the
        draws, or the numbers of draws of a chain.
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
        Its visuals: ``zero`` and, by number from the strongest row on, ``band_0``, ``dashed_0``,
        ``solid_0``, ``unresolved_0`` and ``resolved_0``. Save it with ``pc.savefig(path)``.

    Raises
    ------
    ValueError
        If a query is unknown or named twice, ``k`` is not between 1 and 6, the backend is unknown,
        or as :func:`ppl_bif.over_draws`.
    ImportError
        If arviz-plots, or what the backend draws with, is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_convergence
    >>> dims = ("draws", "query", "train")
    >>> value = np.array([[[0.2, 1.0]], [[0.4, 0.8]], [[0.5, 0.7]]])
    >>> found = xr.Dataset(
    ...     {
    ...         "influence": (dims, value),
    ...         "mcse": (dims, np.full((3, 1, 2), 0.1)),
    ...         "resolved": (dims, value > 0.2),
    ...     },
    ...     coords={"draws": [100, 200, 300], "query": ["q"], "train": ["a", "b"]},
    ... )
    >>> pc = plot_convergence(found, k=1, backend="matplotlib")
    >>> pc.viz["solid_0"]["influence"].item().get_ydata().tolist()
    [1.0, 0.8, 0.7]
    """
    colors = get_theme(theme)
    if not 1 <= k <= len(colors.chains):
        raise ValueError(
            f"k must be between 1 and {len(colors.chains)}, lines that can be told apart; got {k}"
        )
    curves = _strongest(_over_draws(run, query, points), k)
    pc = facets(
        curves[["influence"]],
        ["query"],
        colors,
        size=(5.4, 3.2),
        columns=2,
        left=0.6,
        plot_collection=plot_collection,
        backend=backend,
        figure_kwargs=figure_kwargs,
        **pc_kwargs,
    )
    _draw(pc, curves, colors)
    label = "draws of each chain (solid, filled: sign resolved)"
    for one in curves["query"].values:
        panel = panel_of(pc, query=one)
        heading = shorten(one, 28)
        panel.label(
            colors, x=label, y=f"{quantity(curves.attrs)}\n± {ERRORS} errors", title=heading
        )
        _name(panel, curves.sel(query=one), colors)
    return pc


def _over_draws(run: Any, query: Any, points: int | Sequence[int]) -> xr.Dataset:
    """Estimate the influences on the queries that are shown."""
    if isinstance(run, xr.Dataset):
        if not {"draws", "query", "train"} <= set(run.dims) or "influence" not in run:
            raise ValueError(
                "expected a run, or what ppl_bif.over_draws made of influences, with dims draws, "
                f"query and train; got {list(run.dims)}"
            )
        return select_queries(run, query, FIRST).compute()

    def estimate(part: Any) -> xr.Dataset:
        scores = influence(part, block_pairs=BLOCK_PAIRS)
        return select_queries(scores, query, FIRST).compute()

    return over_draws(run, estimate=estimate, points=points)


def _strongest(found: xr.Dataset, k: int) -> xr.Dataset:
    """Take the rows that are largest in the end, ``(query, rank, draws)``."""
    last = abs(found["influence"].isel(draws=-1)).transpose("query", "train")
    order = np.argsort(-last.values, axis=1, kind="stable")[:, :k]
    at = xr.DataArray(order, dims=("query", "rank"))
    names = ["influence", "mcse", "resolved"]
    rows = found[names].isel(train=at, query=xr.DataArray(np.arange(len(order)), dims="query"))
    return rows.transpose("query", "rank", "draws").assign_coords(query=found["query"].values)


def _draw(pc: Any, curves: xr.Dataset, theme: Theme) -> None:
    from arviz_plots import visuals

    value, reach, draws = curves["influence"], ERRORS * curves["mcse"], curves["draws"]
    hues = list(zip(range(curves.sizes["rank"]), theme.chains, strict=False))
    for rank, color in hues:
        one, spread = (of.isel(rank=rank, drop=True) for of in (value, reach))
        band(pc, f"{rank}", one, spread, draws, color)
    # Plotly draws no line across a panel that is empty.
    zero = xr.zeros_like(value.isel(rank=0, draws=0, drop=True))
    pc.map(visuals.hline, "zero", data=zero, color=theme.muted, width=0.8)
    for rank, color in hues:
        one = value.isel(rank=rank, drop=True)
        known = curves["resolved"].isel(rank=rank, drop=True)
        for name, some, dash in (("dashed", one, DASHED), ("solid", one.where(known), SOLID)):
            look = {"color": color, "width": 1.5, "linestyle": dash[pc.backend]}
            pc.map(visuals.line_xy, f"{name}_{rank}", data=some, x=draws, **look)
        dots(pc, f"{rank}", one, known, draws, color, theme)


def _name(panel: Panel, one: xr.Dataset, theme: Theme) -> None:
    """Write at the end of each curve of a query whose it is, and its final value."""
    last, draws = one.isel(draws=-1), one["draws"].values
    rows = zip(last["train"].values, last["influence"].values, last["mcse"].values, strict=True)
    ends = [
        End(value, f"{shorten(name, 13)}: {score_text(value, error)}", color)
        for (name, value, error), color in zip(rows, theme.chains, strict=False)
    ]
    reach = ERRORS * one["mcse"]
    low = min(0.0, float((one["influence"] - reach).min()))
    high = max(0.0, float((one["influence"] + reach).max()))
    name_ends(panel, ends, (draws[0], draws[-1]), low, high)
    ticks = draws[np.unique(np.linspace(0, len(draws) - 1, 6).astype(int))].tolist()
    panel.draw.xticks(ticks, [str(tick) for tick in ticks], panel.target)
