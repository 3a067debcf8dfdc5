"""plot_embedding: the map of a loss kernel, its points coloured and named by what they are."""

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import shorten
from ppl_bif.plots.style import ThemeName, get_theme, headline, legend_beside, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_embedding"]

MARKERS = "osD^vP"


def plot_embedding(
    kernel: xr.Dataset, labels: Any = None, *, title: str = "", theme: ThemeName = "light"
) -> "Figure":
    """Draw the first two axes of the map of a loss kernel.

    Points that are near each other have losses that move together. Of classical scaling each axis
    says which share of squared distance it shows, and which share it has where it was not fitted.

    Parameters
    ----------
    kernel
        What :func:`ppl_bif.loss_kernel` returned.
    labels
        What each point is, ``(point,)``, such as its class: a colour and marker each, in a legend,
        and its name at the median of its points. At most 24 different ones.
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
        If ``kernel`` has no embedding of two axes, or the labels do not fit its points.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_embedding
    >>> place = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> kernel = xr.Dataset({"embedding": (("point", "axis"), place)})
    >>> figure = plot_embedding(kernel, ["cat", "dog", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['cat', 'dog']
    """
    if "embedding" not in kernel or kernel["embedding"].sizes["axis"] < 2:
        raise ValueError("expected what ppl_bif.loss_kernel returns, with dims=2 or more")
    place = kernel["embedding"].values[:, :2]
    colors = get_theme(theme)
    figure = new_figure(5.8, 4.6, colors)
    ax = figure.subplots()
    tidy(ax, colors)
    if labels is None:
        ax.scatter(place[:, 0], place[:, 1], s=9, color=colors.raises, alpha=0.7, linewidths=0)
    else:
        _named(ax, place, _checked(labels, len(place)), colors)
        legend_beside(figure, colors)
    ax.set_aspect("equal", "datalim")
    ax.set(xlabel=_axis(kernel, 0), ylabel=_axis(kernel, 1))
    headline(ax, title, colors)
    return figure


def _checked(labels: Any, points: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (points,):
        raise ValueError(f"labels must name each of {points} points; got shape {labels.shape}")
    if len(np.unique(labels)) > 24:
        raise ValueError(
            f"labels must be of at most 24 kinds, to be told apart; got {len(np.unique(labels))}"
        )
    return labels


def _named(ax: Any, place: np.ndarray, labels: np.ndarray, colors: Any) -> None:
    """Draw each kind of points in its own colour and marker, and name it in their midst."""
    looks = product(MARKERS, colors.chains)
    kinds = list(zip(np.unique(labels), looks, strict=False))
    for kind, (marker, color) in kinds:
        mine = place[labels == kind]
        look = {"s": 11, "marker": marker, "color": color, "label": shorten(kind, 16)}
        ax.scatter(*mine.T, alpha=0.65, linewidths=0, **look)
    box = {"boxstyle": "round,pad=0.2", "facecolor": colors.paper, "alpha": 0.85}
    for kind, (_, color) in kinds:
        x, y = np.nanmedian(place[labels == kind], axis=0)
        style = {"ha": "center", "va": "center", "size": 9, "weight": "bold"}
        name = shorten(kind, 16)
        ax.text(x, y, name, color=colors.ink, bbox={**box, "edgecolor": color}, **style)


def _axis(kernel: xr.Dataset, at: int) -> str:
    name = f"axis {at + 1}"
    if "variance" not in kernel:
        return name
    shown, checked = (float(kernel[of][at]) for of in ("variance", "variance_checked"))
    return f"{name}: {shown:.1%} of squared distance ({checked:.1%} checked)"
