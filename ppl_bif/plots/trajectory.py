"""plot_over_checkpoints: an estimate at each checkpoint of training, as curves with bands."""

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import shorten
from ppl_bif.plots.curves import End, band, dots, name_ends
from ppl_bif.plots.facets import DASHED, DOTTED, SOLID, facets, panel_of
from ppl_bif.plots.style import Theme, ThemeName, get_theme

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

__all__ = ["plot_over_checkpoints"]

STYLES = (SOLID, DASHED, DOTTED)
MOST, NAMED = 12, 8
"""Curves that can be told apart; checkpoints that can be named below them."""

UNITS = {
    "influence": "influence (nats per unit of weight)",
    "learning_coefficient": "learning coefficient",
}
ERRORS = 2


def plot_over_checkpoints(
    found: xr.Dataset,
    value: str | None = None,
    *,
    error: str = "mcse",
    labels: Any = None,
    spacing: Literal["linear", "log"] = "linear",
    title: str = "",
    theme: ThemeName = "light",
    plot_collection: "PlotCollection | None" = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> "PlotCollection":
    """Draw an estimate over checkpoints: a curve each, in a band of two standard errors.

    A point whose band holds 0 is hollow: its sign is not resolved. A checkpoint that was left out
    is a gap.

    Parameters
    ----------
    found
        What :func:`ppl_bif.over_checkpoints` returned, of a few curves: take them by
        ``found.sel(query=..., train=[...])``. Checkpoints that are numbers lie as they are, others
        side by side.
    value
        The variable drawn, ``influence`` or ``learning_coefficient`` by default, with dims
        checkpoint and at most one other of more than one entry.
    error
        The variable that is its standard error.
    labels
        Names of the curves, written at their ends; by default the coordinate along them.
    spacing
        ``"log"`` lays checkpoints, which must be positive numbers, out by their logarithm.
    title
        Of the panel.
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
        Its visuals: ``zero``, and of each curve, counted from 0, ``band_``, ``line_``,
        ``unresolved_`` and ``resolved_``. Save it with ``pc.savefig(path)``.

    Raises
    ------
    ValueError
        If there are no checkpoints or no such variables, more than 12 curves, labels that do not
        fit, checkpoints without a logarithm, or the backend is unknown.
    ImportError
        If arviz-plots, or what the backend draws with, is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_over_checkpoints
    >>> found = xr.Dataset(
    ...     {
    ...         "influence": (("checkpoint", "train"), [[0.0, 0.1], [0.5, -0.3]]),
    ...         "mcse": (("checkpoint", "train"), np.full((2, 2), 0.1)),
    ...     },
    ...     coords={"checkpoint": [0, 100], "train": ["a", "b"]},
    ... )
    >>> pc = plot_over_checkpoints(found, backend="matplotlib")
    >>> [text.get_text() for text in pc.viz["plot"].item().texts]
    ['a', 'b']
    """
    value = value or next((name for name in UNITS if name in found), "influence")
    curves, errors = (_curves(found, name) for name in (value, error))
    if curves.shape != errors.shape:
        raise ValueError(
            f"{error!r} must have an error for each {value!r}; it has dims {found[error].dims}"
        )
    names = _checked(curves, labels)
    at, colors = _places(found["checkpoint"].values, spacing), get_theme(theme)
    pc = facets(
        curves.to_dataset(name=value),
        [],
        colors,
        size=(7.2, 3.4),
        left=0.6,
        plot_collection=plot_collection,
        backend=backend,
        figure_kwargs=figure_kwargs,
        **pc_kwargs,
    )
    panel, reach = panel_of(pc), ERRORS * errors
    panel.label(
        colors, x="checkpoint", y=f"{UNITS.get(value, value)} ± {ERRORS} errors", title=title
    )
    looks = list(zip(range(len(curves)), product(STYLES, colors.chains), strict=False))
    _draw(pc, curves.rename(value), reach, at, looks, colors)
    ends = [
        End(_last(curves.values[i]), name, color)
        for (i, (_, color)), name in zip(looks, names, strict=True)
    ]
    low = min(0.0, float((curves - reach).min()))
    high = max(0.0, float((curves + reach).max()))
    name_ends(panel, ends if len(ends) > 1 else [], (at[0], at[-1]), low, high)
    shown = np.unique(np.linspace(0, len(at) - 1, NAMED).astype(int))
    steps = [shorten(step, 12) for step in found["checkpoint"].values[shown]]
    panel.draw.xticks(at[shown].tolist(), steps, panel.target)
    return pc


def _places(steps: np.ndarray, spacing: str) -> np.ndarray:
    """Return where each checkpoint lies."""
    numbers = steps.dtype.kind in "iuf"
    if spacing == "linear":
        return steps.astype(float) if numbers else np.arange(len(steps), dtype=float)
    if spacing != "log":
        raise ValueError(f"spacing must be 'linear' or 'log'; got {spacing!r}")
    if not numbers or not (steps > 0).all():
        raise ValueError(
            f"spacing='log' takes checkpoints that are positive numbers; got {steps.tolist()}"
        )
    return np.log10(steps)


def _last(values: np.ndarray) -> float:
    """Return the last value that is finite; 0 of none."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else 0.0


def _curves(found: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable as curves ``(curve, checkpoint)``."""
    if "checkpoint" not in found.dims or name not in found:
        raise ValueError(
            "expected what ppl_bif.over_checkpoints returns, with a dim checkpoint and the "
            f"variable {name!r}; got {list(found)}"
        )
    array = found[name].squeeze([d for d in found[name].dims if found[name].sizes[d] == 1])
    array = array if "checkpoint" in array.dims else array.expand_dims("checkpoint")
    others = [d for d in array.dims if d != "checkpoint"]
    if len(others) > 1:
        raise ValueError(
            f"{name!r} has dims {found[name].dims}: choose curves along one of them, such as "
            "found.sel(query=...)"
        )
    array = array if others else array.expand_dims("curve")
    return array.transpose(..., "checkpoint")


def _checked(curves: xr.DataArray, labels: Any) -> list[str]:
    """Return the names of the curves."""
    if len(curves) > MOST:
        raise ValueError(
            f"at most {MOST} curves can be told apart; got {len(curves)}: choose some, such as "
            f"found.isel({curves.dims[0]}=slice({MOST}))"
        )
    names = curves[curves.dims[0]].values if labels is None else labels
    if len(names) != len(curves):
        raise ValueError(f"labels must name {len(curves)} curves; got {len(names)}")
    return [shorten(name, 24) for name in names]


def _draw(
    pc: Any, curves: xr.DataArray, reach: xr.DataArray, at: np.ndarray, looks: Any, theme: Theme
) -> None:
    from arviz_plots import visuals

    along = curves.dims[0]
    for i, (_, color) in looks:
        one, spread = (of.isel({along: i}, drop=True) for of in (curves, reach))
        band(pc, f"{i}", one, spread, at, color)
    zero = xr.DataArray(0.0, name=curves.name)
    pc.map(visuals.hline, "zero", data=zero, color=theme.muted, width=0.8)
    for i, (dash, color) in looks:
        one, spread = (of.isel({along: i}, drop=True) for of in (curves, reach))
        look = {"color": color, "width": 1.5, "linestyle": dash[pc.backend]}
        pc.map(visuals.line_xy, f"line_{i}", data=one, x=at, **look)
        dots(pc, f"{i}", one, abs(one) > spread, at, color, theme)
