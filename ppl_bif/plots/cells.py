"""Cells of a heatmap with their colour bar, in each backend: a DataArray (query, train) in.

A cell is a few pixels square, all in its colour if it is resolved, else only those in its midst.
"""

from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.plots.style import Theme

__all__ = ["cells", "diverging"]

PIXELS, MIDST = 5, slice(1, 4)
COLORS = 255


def cells(
    da: xr.DataArray, target: Any, *, resolved: Any, limit: float, label: str, theme: Theme
) -> Any:
    """Draw cells at whole numbers, the first query on top.

    Parameters
    ----------
    da
        Values, ``(query, train)``.
    target
        The panel of a PlotCollection.
    resolved
        Which of them are, ``(query, train)``.
    limit
        The value from which on colours do not change, either way.
    label
        Of the colour bar.
    theme
        Its colours.
    """
    package = type(target).__module__.partition(".")[0]
    package = "plotly" if package == "arviz_plots" else package
    pixels = _pixels(da.transpose("query", "train").values[::-1], np.asarray(resolved)[::-1])
    return _DRAW[package](pixels, da.shape, target, limit, label, theme)


def _pixels(values: np.ndarray, resolved: np.ndarray) -> np.ndarray:
    """Make pixels ``(5 query, 5 train)`` of cells; NaN where nothing is drawn."""
    inner = np.zeros((PIXELS, PIXELS), dtype=bool)
    inner[MIDST, MIDST] = True
    drawn = np.kron(resolved, np.ones_like(inner)) | np.kron(np.ones_like(resolved), inner)
    return np.where(drawn, np.kron(values, np.ones(inner.shape)), np.nan)


def diverging(theme: Theme) -> list[str]:
    """Return colours from what lowers, through a grey near the paper's, to what raises."""
    paper, line, raises, lowers = map(_rgb, (theme.paper, theme.line, theme.raises, theme.lowers))
    middle = (paper + line) / 2
    share = np.linspace(-1, 1, COLORS)[:, None]
    mixed = middle + np.abs(share) * (np.where(share < 0, lowers, raises) - middle)
    return ["#" + "".join(f"{c:02x}" for c in color) for color in mixed.round().astype(int)]


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)], dtype=float)


def _matplotlib(
    pixels: np.ndarray, shape: tuple[int, ...], ax: Any, limit: float, label: str, theme: Theme
) -> Any:
    from matplotlib.colors import ListedColormap

    down, across = shape
    image = ax.imshow(
        np.ma.masked_invalid(pixels),
        # Where pixels are averaged, those of nothing count as paper: else cells had dark edges.
        cmap=ListedColormap(diverging(theme)).with_extremes(bad=theme.paper),
        vmin=-limit,
        vmax=limit,
        origin="lower",
        aspect="auto",
        extent=(-0.5, across - 0.5, -0.5, down - 0.5),
        interpolation="antialiased",
        interpolation_stage="rgba",
        zorder=-1,
    )
    beyond = "both" if np.nanmax(np.abs(pixels)) > limit else "neither"
    shape_of_bar = {"pad": 0.02, "fraction": 0.05, "aspect": 30, "extendfrac": 0.03}
    bar = ax.figure.colorbar(image, ax=ax, extend=beyond, **shape_of_bar)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, labelsize=8, length=0)
    bar.set_label(label, color=theme.muted, size=8.5)
    ax.grid(visible=False)
    return image


def _plotly(
    pixels: np.ndarray, shape: tuple[int, ...], target: Any, limit: float, label: str, theme: Theme
) -> Any:
    import plotly.graph_objects as go

    first, step = -0.5 + 0.5 / PIXELS, 1 / PIXELS
    font = {"color": theme.muted, "size": 11}
    image = go.Heatmap(
        z=pixels,
        x0=first,
        dx=step,
        y0=first,
        dy=step,
        zmin=-limit,
        zmax=limit,
        colorscale=diverging(theme),
        hoverongaps=False,
        hovertemplate="%{z:+.3g}<extra></extra>",
        colorbar={
            "title": {"text": label, "side": "right", "font": font},
            "tickfont": font,
            "outlinewidth": 0,
        },
    )
    target.add_trace(image)
    target.update_xaxes(showgrid=False)
    target.update_yaxes(showgrid=False)
    return image


def _bokeh(
    pixels: np.ndarray, shape: tuple[int, ...], target: Any, limit: float, label: str, theme: Theme
) -> Any:
    from bokeh.models import ColorBar, LinearColorMapper

    down, across = shape
    colors = LinearColorMapper(
        palette=diverging(theme), low=-limit, high=limit, nan_color="rgba(0, 0, 0, 0)"
    )
    image = target.image([pixels], x=-0.5, y=-0.5, dw=across, dh=down, color_mapper=colors)
    bar = ColorBar(
        color_mapper=colors,
        title=label,
        title_text_color=theme.muted,
        major_label_text_color=theme.muted,
        background_fill_color=theme.paper,
        bar_line_color=None,
    )
    target.add_layout(bar, "right")
    target.grid.visible = False
    return image


_DRAW = {"matplotlib": _matplotlib, "plotly": _plotly, "bokeh": _bokeh}
