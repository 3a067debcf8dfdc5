"""plot_lds: linear datamodeling scores of several methods, with their intervals, as a forest."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.facets import DASHED, Panel, facets, panel_of, segments, spot, spots
from ppl_bif.plots.style import Theme, ThemeName, get_theme

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

__all__ = ["plot_lds"]

WIDTH, ROW, AROUND = 7.2, 0.34, 0.9
LETTER = 0.062
"""Inches: the figure's width, the height of a row and of all else, the width of a small letter."""


def plot_lds(
    found: xr.Dataset,
    *,
    reference: str | None = None,
    ceiling: float | None = None,
    title: str = "",
    theme: ThemeName = "light",
    plot_collection: "PlotCollection | None" = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> "PlotCollection":
    """Draw how well methods foretell retraining, best first, each with its 95% interval.

    Parameters
    ----------
    found
        What :func:`ppl_bif.evaluation.compare` returned; with ``resamples=0``, points alone.
    reference
        Name of a method: beside each of the others stands its difference from this one, with its
        paired interval.
    ceiling
        What :func:`ppl_bif.evaluation.ceiling` returned: a dashed line.
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
        Its visuals: ``zero``, ``ceiling`` where there is one, and the ``interval_`` and ``point_``
        of each of ``reference`` and ``others``. Save it with ``pc.savefig(path)``.

    Raises
    ------
    ValueError
        If ``found`` is not a comparison, the reference is not among its methods, or the backend is
        unknown.
    ImportError
        If arviz-plots, or what the backend draws with, is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.evaluation import compare, random_subsets
    >>> masks = random_subsets(12, 20)
    >>> scores = np.arange(24.0).reshape(2, 12)
    >>> loss = -(masks @ scores.T)[:, None]
    >>> truth = xr.Dataset(
    ...     {"mask": (("subset", "train"), masks), "loss": (("subset", "seed", "query"), loss)}
    ... )
    >>> found = compare({"exact": scores, "backwards": -scores}, truth, resamples=20)
    >>> pc = plot_lds(found, reference="exact", backend="matplotlib")
    >>> [label.get_text() for label in pc.viz["plot"].item().get_yticklabels()]
    ['backwards', 'exact']
    """
    if "lds" not in found or "attributor" not in found["lds"].dims:
        raise ValueError("expected what ppl_bif.evaluation.compare returns")
    names = found["attributor"].values.tolist()
    if reference is not None and reference not in names:
        raise ValueError(f"reference {reference!r} is not among {names}")
    rows = found.isel(attributor=np.argsort(-found["lds"].values, kind="stable"))
    listed, colors = rows["attributor"].values.tolist(), get_theme(theme)
    left = 0.075 * max(map(len, listed))
    pc = facets(
        rows[["lds"]],
        [],
        colors,
        size=(WIDTH, AROUND + ROW * len(names)),
        left=left,
        plot_collection=plot_collection,
        backend=backend,
        figure_kwargs=figure_kwargs,
        **pc_kwargs,
    )
    panel = panel_of(pc)
    panel.label(colors, x="LDS: rank correlation of summed scores with retraining", title=title)
    panel.rows(listed)
    _draw(pc, rows, reference, colors)
    if ceiling is not None:
        _ceiling(pc, panel, ceiling, len(names), colors)
    words = [_difference(rows.sel(attributor=name), reference) for name in listed]
    # Of a comparison without intervals, the points are all there is.
    ends = {end: rows[end].fillna(rows["lds"]).values for end in ("low", "high")}
    for y, (text, end) in enumerate(zip(words[::-1], ends["high"][::-1], strict=True)):
        panel.text(float(end), y, text and f"  {text}", colors.muted)
    panel.draw.xlim(_reach(ends, ceiling, words, WIDTH - left - 0.5), panel.target)
    return pc


def _draw(pc: Any, rows: xr.Dataset, reference: str | None, theme: Theme) -> None:
    from arviz_plots import visuals

    count = rows.sizes["attributor"]
    y = xr.DataArray(np.arange(count)[::-1].astype(float), dims="attributor")
    here = rows["attributor"] == reference
    zero = xr.DataArray(0.0, name="lds")
    pc.map(visuals.vline, "zero", data=zero, color=theme.muted, width=0.8)
    for look, where, color in (("reference", here, theme.raises), ("others", ~here, theme.ink)):
        some = rows[["lds", "low", "high"]].where(where)
        line = segments("lds", [some["low"], some["high"]], y, "attributor")
        pc.map(visuals.line_xy, f"interval_{look}", data=line, color=color, width=1.6)
        point = {"facecolor": color, "edgecolor": color, **spot(pc, 5)}
        pc.map(visuals.scatter_xy, f"point_{look}", data=spots("lds", some["lds"], y), **point)


def _ceiling(pc: Any, panel: Panel, ceiling: float, rows: int, theme: Theme) -> None:
    """Mark what no method can exceed, and make room above the rows for its name."""
    from arviz_plots import visuals

    at = xr.DataArray(float(ceiling), name="lds")
    look = {"color": theme.muted, "width": 1.0, "linestyle": DASHED[pc.backend]}
    pc.map(visuals.vline, "ceiling", data=at, **look)
    panel.text(ceiling, rows - 0.35, " ceiling", theme.muted)
    panel.draw.ylim((-0.6, rows + 0.1), panel.target)


def _difference(row: xr.Dataset, reference: str | None) -> str:
    """Write how far a method is from the reference."""
    if reference is None:
        return ""
    if row["attributor"].item() == reference:
        return "reference"
    value, *ends = (
        float(row[name].sel(other=reference))
        for name in ("difference", "difference_low", "difference_high")
    )
    if np.isnan(value):
        return "not paired"
    known = np.isfinite(ends).all()
    return f"{value:+.3f}" + (f" ({ends[0]:+.3f} … {ends[1]:+.3f})" if known else "")


def _reach(
    limits: Mapping[str, np.ndarray], ceiling: float | None, words: list[str], inches: float
) -> tuple[float, float]:
    """Return between which values the panel lies, with room for words to the right of intervals."""
    ends = [*limits["high"].tolist(), 0.0 if ceiling is None else ceiling]
    letters = [*(len(text) + 2 for text in words), 0 if ceiling is None else 9]
    low = min(0.0, float(limits["low"].min()))
    low -= 0.04 * (max(ends) - low) or 0.1
    # A word that starts at x and takes a share s of the panel needs the right end at (x - s low) /
    # (1 - s).
    shares = [min(LETTER * count / inches, 0.7) for count in letters]
    right = ((end - share * low) / (1 - share) for end, share in zip(ends, shares, strict=True))
    return low, max(right)
