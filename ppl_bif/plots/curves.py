"""Curves in bands of their errors, hollow where not resolved, each named at its end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from ppl_bif.plots.facets import Panel, spot
from ppl_bif.plots.style import Theme

__all__ = ["End", "band", "dots", "name_ends"]

LETTER = 0.0135
"""The width of a letter, as a share of that of a narrow panel."""


class End(NamedTuple):
    """Where a curve ends, and what is written there."""

    height: float
    text: str
    color: str


def band(pc: Any, name: str, value: xr.DataArray, reach: xr.DataArray, x: Any, color: str) -> None:
    """Fill between a curve less its errors and more of them."""
    from arviz_plots import visuals

    ends = {"y_bottom": value - reach, "y_top": value + reach}
    look: dict[str, Any] = {"color": color, "alpha": 0.14}
    pc.map(visuals.fill_between_y, f"band_{name}", data=value, x=x, **ends, **look)


def dots(
    pc: Any, name: str, value: xr.DataArray, known: xr.DataArray, x: Any, color: str, theme: Theme
) -> None:
    """Draw points, hollow where it is not known which sign they have."""
    from arviz_plots import visuals

    for what, where, fill in (("unresolved", ~known, theme.paper), ("resolved", known, color)):
        look = {"facecolor": fill, "edgecolor": color, "width": 1.2, **spot(pc, 4.5)}
        pc.map(visuals.scatter_xy, f"{what}_{name}", data=value.where(where), x=x, **look)


def name_ends(
    panel: Panel, ends: Sequence[End], x: Sequence[float], low: float, high: float
) -> None:
    """Write the names of curves to the right of their ends, and set the panel's limits for it.

    Parameters
    ----------
    panel
        Where the curves are.
    ends
        Of each curve.
    x
        The first and the last place of all.
    low, high
        Between which heights curves and bands lie.
    """
    first, last = x
    across = (last - first) or 1.0
    high = high if high > low else low + 1.0
    heights = _apart(np.array([end.height for end in ends]), 0.065 * (high - low))
    low, high = min([low, *heights]), max([high, *heights])
    for end, height in zip(ends, heights, strict=True):
        panel.text(last + 0.03 * across, height, end.text, end.color)
    share = min(LETTER * max((len(end.text) for end in ends), default=0), 0.6)
    room = (0.03 + 1.05 * share / (1 - share)) * across
    panel.draw.xlim((first - 0.03 * across, last + room), panel.target)
    room = 0.05 * (high - low)
    panel.draw.ylim((low - room, high + room), panel.target)


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Move labels as little as keeps them a gap apart, in least squares."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    moved = np.empty_like(heights)
    if len(heights):
        moved[order] = isotonic_regression(heights[order] - steps).x + steps
    return moved
