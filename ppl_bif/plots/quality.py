"""plot_lds: linear datamodeling scores of several methods, with their intervals, as a forest."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ppl_bif.plots.style import ThemeName, get_theme, headline, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_lds"]


def plot_lds(
    found: xr.Dataset,
    *,
    reference: str | None = None,
    ceiling: float | None = None,
    title: str = "",
    theme: ThemeName = "light",
) -> "Figure":
    """Draw how well methods foretell retraining, best first, each with its 95% interval.

    Parameters
    ----------
    found
        What :func:`ppl_bif.evaluation.compare` returned.
    reference
        Name of a method: beside each of the others stands its difference from this one, with its
        paired interval.
    ceiling
        What :func:`ppl_bif.evaluation.ceiling` returned: a dashed line.
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
        If ``found`` is not a comparison, or the reference is not among its methods.
    ImportError
        If Matplotlib is not installed.

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
    >>> figure = plot_lds(found, reference="exact")
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['exact', 'backwards']
    """
    if "lds" not in found or "attributor" not in found["lds"].dims:
        raise ValueError("expected what ppl_bif.evaluation.compare returns")
    names = found["attributor"].values.tolist()
    if reference is not None and reference not in names:
        raise ValueError(f"reference {reference!r} is not among {names}")
    best_first = found.isel(attributor=np.argsort(-found["lds"].values, kind="stable"))
    colors, places = get_theme(theme), np.arange(len(names))
    figure = new_figure(7.2, 0.9 + 0.34 * len(names), colors)
    ax = figure.subplots()
    tidy(ax, colors)
    value, low, high = (best_first[name].values for name in ("lds", "low", "high"))
    marked = best_first["attributor"].values == reference
    for i in places:
        color = colors.raises if marked[i] else colors.ink
        ax.plot([low[i], high[i]], [i, i], color=color, lw=1.6, solid_capstyle="round")
        ax.plot(value[i], i, "o", color=color, ms=5)
    ax.axvline(0, color=colors.line, lw=1, zorder=0)
    if ceiling is not None:
        ax.axvline(ceiling, color=colors.muted, lw=1, ls="--", zorder=0)
        ax.text(ceiling, -0.75, "ceiling", color=colors.muted, size=8, ha="right", va="center")
    ax.set_yticks(places, best_first["attributor"].values)
    ax.set_ylim(len(names) - 0.4, -1.1)
    ax.set_xlabel("LDS: rank correlation of summed scores with retraining", size=9)
    if reference is not None:
        _differences(ax, best_first, reference, colors.muted)
    headline(ax, title, colors)
    return figure


def _differences(ax: "Axes", found: xr.Dataset, reference: str, color: str) -> None:
    """Write beside each method how far it is from the reference."""
    other = found.sel(other=reference)
    right = ax.get_yaxis_transform()
    for i, name in enumerate(found["attributor"].values):
        one = other.isel(attributor=i)
        words = (
            "reference"
            if name == reference
            else (
                f"{float(one.difference):+.3f} "
                f"({float(one.difference_low):+.3f} … {float(one.difference_high):+.3f})"
            )
        )
        ax.text(1.02, i, words, transform=right, color=color, size=8, va="center")
