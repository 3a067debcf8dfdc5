"""Panels of arviz-plots in the colours of a theme: data in, a PlotCollection to draw on out.

What Matplotlib, Plotly and Bokeh call differently has its names here. arviz-plots is imported when
a figure is made, never before.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import xarray as xr

from ppl_bif.plots.style import Theme, tidy

__all__ = [
    "BACKENDS",
    "DASHED",
    "DOTTED",
    "SOLID",
    "Panel",
    "Size",
    "facets",
    "hover",
    "panel_of",
    "segments",
    "spot",
    "spots",
]

BACKENDS = ("matplotlib", "plotly", "bokeh")
SOLID = {"matplotlib": "-", "plotly": "solid", "bokeh": "solid"}
DASHED = {"matplotlib": (0, (2, 1.5)), "plotly": "4px,3px", "bokeh": [4, 3]}
DOTTED = {"matplotlib": (0, (1, 1.2)), "plotly": "1px,2px", "bokeh": [1, 2]}
DOTS_PER_INCH = 100

Size = tuple[float, float]


def facets(
    data: xr.Dataset,
    dims: Sequence[str],
    theme: Theme,
    *,
    size: Size,
    columns: int = 1,
    left: float = 0.0,
    plot_collection: Any = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> Any:
    """Make a PlotCollection with a panel for each entry of some dims, or take the caller's own.

    Parameters
    ----------
    data
        What is drawn.
    dims
        Dims along which the panels lie; none for a single panel.
    theme
        Its colours; a collection of the caller's keeps its own.
    size
        Inches of a panel.
    columns
        Panels side by side, at most.
    left
        Inches that tick labels take up, where panels are not arranged by themselves.
    plot_collection, backend, figure_kwargs, pc_kwargs
        As the plots take them.

    Raises
    ------
    ValueError
        If the backend is unknown, an entry comes twice, or the caller's collection has other
        panels.
    ImportError
        If arviz-plots or what the backend draws with is not installed.
    """
    azp = _arviz_plots()
    _check_entries(data, dims)
    if plot_collection is not None:
        _check_panels(plot_collection, data, dims)
        return plot_collection
    name = _named(backend)
    panels = max(1, data[dims[0]].size) if dims else 1
    across = min(columns, panels)
    given = _figure(name, size, across, -(-panels // across), left) | dict(figure_kwargs or {})
    pc_kwargs.setdefault("col_wrap", columns)
    pc = azp.PlotCollection.wrap(
        data, cols=list(dims), backend=name, figure_kwargs=given, **pc_kwargs
    )
    _DRESS[name](pc, theme)
    return pc


def _arviz_plots() -> Any:
    try:
        import arviz_plots
    except ImportError as error:
        raise ImportError(
            "this plot needs arviz-plots, which is not installed: pip install 'ppl_bif[plots]'"
        ) from error
    return arviz_plots


class Panel(NamedTuple):
    """One panel of a collection, and the name of its backend."""

    target: Any
    backend: str

    @property
    def draw(self) -> Any:
        """The functions of the backend."""
        return import_module(f"arviz_plots.backend.{self.backend}")

    def label(self, theme: Theme, *, x: str = "", y: str = "", title: str = "") -> None:
        """Write what lies along the axes, and a title."""
        if title:
            self.draw.title(title, self.target, color=theme.ink, size=self.points(10))
        for text, write in ((x, self.draw.xlabel), (y, self.draw.ylabel)):
            if text:
                write(text, self.target, color=theme.muted, size=self.points(8.5))

    def text(self, x: float, y: float, text: str, color: str) -> None:
        """Write to the right of a place."""
        look = {"color": color, "size": self.points(7.5), "horizontal_align": "left"}
        self.draw.text(x, y, text, self.target, **look)

    def tag(self, x: float, y: float, text: str, color: str, theme: Theme) -> None:
        """Write over a place, in a box of this colour where that can be had."""
        box = {"boxstyle": "round,pad=0.2", "facecolor": theme.paper, "edgecolor": color}
        boxes: dict[str, dict[str, Any]] = {
            "matplotlib": {"bbox": {**box, "alpha": 0.85}, "weight": "bold"},
            "plotly": {"vertical_align": "middle"},
            "bokeh": {"background_fill_color": theme.paper, "background_fill_alpha": 0.85},
        }
        look = {"color": theme.ink, "size": self.points(9), "horizontal_align": "center"}
        self.draw.text(x, y, text, self.target, **look, **boxes[self.backend])

    def square(self) -> None:
        """Let a unit be as long down as across."""
        if self.backend == "matplotlib":
            self.target.set_aspect("equal", "datalim")
        elif self.backend == "bokeh":
            self.target.match_aspect = True
        else:
            self.target.update_yaxes(scaleanchor="x", scaleratio=1)

    def points(self, size: float) -> float:
        """Return a size of letters in the units of the backend."""
        return size if self.backend == "matplotlib" else 4 / 3 * size

    def rows(self, names: Sequence[str]) -> None:
        """Name rows from the top down, which lie at heights from 0 up."""
        self.draw.yticks(list(range(len(names))), list(names)[::-1], self.target)
        self.draw.ylim((-0.6, max(len(names), 1) - 0.4), self.target)


def panel_of(plot_collection: Any, **entry: Any) -> Panel:
    """Return the panel of an entry."""
    return Panel(plot_collection.get_target(None, entry), plot_collection.backend)


def spot(plot_collection: Any, diameter: float) -> dict[str, float]:
    """Return the size of a point so many pixels wide; Bokeh counts these, the others areas."""
    return {"size": diameter if plot_collection.backend == "bokeh" else diameter**2}


def hover(plot_collection: Any, text: xr.DataArray) -> dict[str, Any]:
    """Let points say what they are where one points at them: in Plotly."""
    if plot_collection.backend != "plotly":
        return {}
    return {"text": text, "hovertemplate": "%{text}<extra></extra>"}


def spots(name: str, x: xr.DataArray, y: xr.DataArray) -> xr.DataArray:
    """Lay out places of what is drawn by this name, ``(..., plot_axis)``."""
    axis = xr.DataArray(["x", "y"], dims="plot_axis", name="plot_axis")
    return xr.concat([x, y], axis).rename(name)


def segments(name: str, ends: Sequence[xr.DataArray], y: xr.DataArray, dim: str) -> xr.DataArray:
    """Join level intervals, one for each entry of ``dim``, to one line with gaps."""
    low, high = ends
    across = xr.concat([low, high, low * float("nan")], "end")
    x, y = (of.stack(point=(dim, "end"), create_index=False) for of in xr.broadcast(across, y))
    return spots(name, x, y)


def _named(backend: str | None) -> str:
    """Return the backend, that of arviz-plots' settings by default."""
    from arviz_base import rcParams

    name = rcParams["plot.backend"] if backend is None else backend
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {name!r}")
    try:
        import_module(f"arviz_plots.backend.{name}")
    except ImportError as error:
        raise ImportError(
            f"backend {name!r} is not installed: pip install 'arviz-plots[{name}]'"
        ) from error
    return str(name)


def _check_entries(data: xr.Dataset, dims: Sequence[str]) -> None:
    for dim in dims:
        twice = data[dim].to_index().duplicated()
        if twice.any():
            raise ValueError(
                f"each {dim} has a panel of its own; {data[dim].values[twice][0]} came twice: "
                "name it once"
            )


def _check_panels(plot_collection: Any, data: xr.Dataset, dims: Sequence[str]) -> None:
    """Check that a caller's panels are those that are drawn: arviz-plots fills all, in order."""
    found = plot_collection.viz["plot"]
    have = {dim: found[dim].values.tolist() for dim in found.dims}
    needed = {dim: data[dim].values.tolist() for dim in dims}
    if have != needed:
        shown = f"a panel for each {dims[0]} of {needed[dims[0]]}" if dims else "a single panel"
        raise ValueError(
            f"plot_collection must have {shown}, in this order; its panels are {have}: make "
            f"it by PlotCollection.wrap(scores, cols={list(dims)})"
        )


def _figure(name: str, size: Size, across: int, down: int, left: float) -> dict[str, Any]:
    """Say how large a figure is, in each backend's own words."""
    width, height = size[0] * across, size[1] * down
    if name == "matplotlib":
        return {"figsize": (width, height), "layout": "constrained"}
    dots = (width * DOTS_PER_INCH, height * DOTS_PER_INCH)
    given: dict[str, Any] = {"figsize": dots, "figsize_units": "dots"}
    if name == "plotly":
        # Of the width and height that is left between the figure's margins.
        given["plot_hspace"] = min((left + 0.3) / width, 0.9 / max(across - 1, 1))
        given["vertical_spacing"] = min(1.1 / height, 0.9 / max(down - 1, 1))
    return given


def _dress_matplotlib(pc: Any, theme: Theme) -> None:
    pc.viz["figure"].item().set_facecolor(theme.paper)
    for ax in pc.viz["plot"].values.flat:
        tidy(ax, theme)


def _dress_plotly(pc: Any, theme: Theme) -> None:
    figure = pc.viz["figure"].item()
    figure.update_layout(
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"color": theme.ink, "size": 12},
        margin={"l": 20, "r": 20, "t": 50, "b": 50},
    )
    quiet = {"gridcolor": theme.line, "zeroline": False, "automargin": True}
    font = {"color": theme.muted, "size": 11}
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(**quiet, tickfont=font, title_font=font)


def _dress_bokeh(pc: Any, theme: Theme) -> None:
    for plot in pc.viz["plot"].values.flat:
        plot.update(
            background_fill_color=theme.paper,
            border_fill_color=theme.paper,
            outline_line_color=None,
        )
        for axis in plot.axis:
            axis.update(
                axis_line_color=theme.line,
                major_tick_line_color=None,
                minor_tick_line_color=None,
                major_label_text_color=theme.muted,
                axis_label_text_color=theme.muted,
            )
        for grid in plot.grid:
            grid.grid_line_color = theme.line


_DRESS = {"matplotlib": _dress_matplotlib, "plotly": _dress_plotly, "bokeh": _dress_bokeh}
