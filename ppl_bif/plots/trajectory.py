"""plot_over_checkpoints: an estimate at each checkpoint of training, as curves with bands."""

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import shorten
from ppl_bif.plots.style import (
    Theme,
    ThemeName,
    get_theme,
    headline,
    legend_beside,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_over_checkpoints"]

STYLES = ("-", "--", ":")
MOST = 12
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
    title: str = "",
    theme: ThemeName = "light",
) -> "Figure":
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
        Names of the curves; by default the coordinate along them.
    title
        Of the figure.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to the caller alone: save it with ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        If there are no checkpoints or no such variables, more than 12 curves, or labels that do
        not fit.
    ImportError
        If Matplotlib is not installed.

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
    >>> figure = plot_over_checkpoints(found)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['a', 'b']
    """
    value = value or next((name for name in UNITS if name in found), "influence")
    curves, errors = (_curves(found, name) for name in (value, error))
    if curves.shape != errors.shape:
        raise ValueError(
            f"{error!r} must have an error for each {value!r}; it has dims {found[error].dims}"
        )
    names = _checked(curves, labels)
    colors = get_theme(theme)
    figure = new_figure(7.0, 3.4, colors)
    ax = figure.subplots()
    tidy(ax, colors)
    ax.axhline(0, color=colors.muted, linewidth=0.8)
    steps = found["checkpoint"].values
    at = steps if steps.dtype.kind in "iuf" else np.arange(len(steps))
    looks = product(STYLES, colors.chains)
    for name, one, spread, look in zip(names, curves.values, errors.values, looks, strict=False):
        _curve(ax, at, one, ERRORS * spread, name, look, colors)
    if at is not steps:
        ax.set_xticks(at, [shorten(step, 12) for step in steps])
    ax.set(xlabel="checkpoint", ylabel=f"{UNITS.get(value, value)} ± {ERRORS} errors")
    if len(names) > 1:
        legend_beside(figure, colors)
    headline(ax, title, colors)
    return figure


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


def _curve(
    ax: Any,
    at: np.ndarray,
    value: np.ndarray,
    band: np.ndarray,
    name: str,
    look: tuple[str, str],
    theme: Theme,
) -> None:
    style, color = look
    ax.fill_between(at, value - band, value + band, color=color, alpha=0.16, linewidth=0)
    ax.plot(at, value, color=color, linestyle=style, linewidth=1.5, label=name)
    known = np.abs(value) > band
    for some, fill in ((known, color), (~known, theme.paper)):
        ax.plot(at[some], value[some], "o", color=color, markerfacecolor=fill, markersize=4.5)
