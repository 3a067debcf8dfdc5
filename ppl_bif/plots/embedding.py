"""plot_embedding: the map of a loss kernel, its points coloured and named by what they are."""

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import shorten
from ppl_bif.plots.facets import facets, hover, panel_of, spot
from ppl_bif.plots.style import ThemeName, get_theme

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

__all__ = ["plot_embedding"]

MARKERS = {
    "matplotlib": "osD^",
    "plotly": ("circle", "square", "diamond", "triangle-up"),
    "bokeh": ("circle", "square", "diamond", "triangle"),
}
KINDS = 24


def plot_embedding(
    kernel: xr.Dataset,
    labels: Any = None,
    *,
    title: str = "",
    theme: ThemeName = "light",
    plot_collection: "PlotCollection | None" = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
    **pc_kwargs: Any,
) -> "PlotCollection":
    """Draw the first two axes of the map of a loss kernel.

    Points that are near each other have losses that move together. Of classical scaling each axis
    says which share of squared distance it shows, and which share it has where it was not fitted.

    Parameters
    ----------
    kernel
        What :func:`ppl_bif.loss_kernel` returned.
    labels
        What each point is, ``(point,)``, such as its class: a colour and marker each, and its name
        at the median of its points. At most 24 different ones.
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
        Its visuals: ``points_`` of each label, counted from 0 in their order. Save it with
        ``pc.savefig(path)``.

    Raises
    ------
    ValueError
        If ``kernel`` has no embedding of two axes, the labels do not fit its points, or the backend
        is unknown.
    ImportError
        If arviz-plots, or what the backend draws with, is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_embedding
    >>> place = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> kernel = xr.Dataset({"embedding": (("point", "axis"), place)})
    >>> pc = plot_embedding(kernel, ["cat", "dog", "dog"], backend="matplotlib")
    >>> [text.get_text() for text in pc.viz["plot"].item().texts]
    ['cat', 'dog']
    """
    if "embedding" not in kernel or kernel["embedding"].sizes["axis"] < 2:
        raise ValueError("expected what ppl_bif.loss_kernel returns, with dims=2 or more")
    place = kernel["embedding"].isel(axis=slice(2)).transpose("point", "axis")
    kinds = None if labels is None else _checked(labels, place.sizes["point"])
    colors = get_theme(theme)
    pc = facets(
        place.to_dataset(name="embedding"),
        [],
        colors,
        size=(5.4, 4.6),
        left=0.6,
        plot_collection=plot_collection,
        backend=backend,
        figure_kwargs=figure_kwargs,
        **pc_kwargs,
    )
    panel = panel_of(pc)
    panel.label(colors, x=_axis(kernel, 0), y=_axis(kernel, 1), title=title)
    panel.square()
    looks = list(product(MARKERS[pc.backend], colors.chains))
    _draw(pc, place.rename("embedding"), kinds, looks)
    if kinds is not None:
        for kind, (_, color) in zip(np.unique(kinds), looks, strict=False):
            x, y = np.nanmedian(place.values[kinds == kind], axis=0)
            panel.tag(x, y, shorten(kind, 16), color, colors)
    return pc


def _checked(labels: Any, points: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (points,):
        raise ValueError(f"labels must name each of {points} points; got shape {labels.shape}")
    kinds = len(np.unique(labels))
    if kinds > KINDS:
        raise ValueError(f"labels must be of at most {KINDS} kinds, to be told apart; got {kinds}")
    return labels


def _draw(
    pc: Any, place: xr.DataArray, kinds: np.ndarray | None, looks: list[tuple[str, str]]
) -> None:
    """Draw each kind of points in a colour and marker of its own."""
    from arviz_plots import visuals

    names = place["point"].astype(str)
    named = [None] if kinds is None else np.unique(kinds).tolist()
    for at, (kind, (marker, color)) in enumerate(zip(named, looks, strict=False)):
        mine = np.ones(len(place), dtype=bool) if kinds is None else kinds == kind
        x, y = (place[mine].isel(axis=axis, drop=True) for axis in (0, 1))
        look = {"color": color, "marker": marker, "alpha": 0.65, "width": 0.0, **spot(pc, 4.5)}
        pc.map(visuals.scatter_xy, f"points_{at}", data=y, x=x, **look, **hover(pc, names[mine]))


def _axis(kernel: xr.Dataset, at: int) -> str:
    name = f"axis {at + 1}"
    if "variance" not in kernel:
        return name
    shown, checked = (float(kernel[of][at]) for of in ("variance", "variance_checked"))
    return f"{name}: {shown:.1%} of squared distance ({checked:.1%} checked)"
