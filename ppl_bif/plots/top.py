"""plot_top: the training rows that most raise and most lower a query's log-likelihood, pictured."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import UNRESOLVED, criterion, score_lines
from ppl_bif.plots.choose import best_of
from ppl_bif.plots.gallery import Gallery, gallery
from ppl_bif.plots.style import Theme, ThemeName, get_theme, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_top"]

MAT = 0.05

CELL, GAP, CAPTION, TOP, BOTTOM, EDGE = 0.82, 0.13, 0.82, 0.52, 0.3, 0.12
"""Inches: a picture, the space between two, its caption, heading, footnote, side margin."""


def plot_top(
    scores: Any,
    *,
    query: Any = None,
    k: int = 5,
    train_images: Any = None,
    query_images: Any = None,
    idata: Any = None,
    theme: ThemeName = "light",
    figure_kwargs: Mapping[str, Any] | None = None,
) -> "Figure":
    """Picture the training rows that most raise and most lower the log-likelihood of queries.

    Each query is a row: its own picture, ``k`` that raise its log-likelihood and ``k`` that lower
    it, the strongest first. Scores that are not resolved from zero are grey and dashed, and say so.
    Where there are no pictures, :func:`ppl_bif.plot_forest` draws the same rows as scores.

    Parameters
    ----------
    scores
        What `ppl_bif.influence` (query, train) or `ppl_bif.top` (query, direction, rank) returned,
        or a run. Positive: more weight on the training row raises the query's log-likelihood.
    query
        Ids of the queries to show; the first five by default.
    k
        How many training rows in each direction.
    train_images, query_images
        Pictures (row, y, x) or (row, y, x, c), numbers of any scale; by default ``train_image`` and
        ``query_image`` of the ``constant_data`` of ``idata``. Arrays without coordinates are in the
        order of the rows of ``scores`` or ``idata``.
    idata
        The run, for pictures and labels.
    theme
        ``"light"`` or ``"dark"``.
    figure_kwargs
        Of Matplotlib's ``Figure``, such as ``dpi``; how large it is follows from the pictures.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to the caller alone: save it with ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        If a query is unknown, there are no pictures of the training rows, or pictures have a wrong
        shape or cannot be matched to ids.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_top
    >>> value = np.array([[0.9, -0.4, 0.1]])
    >>> scores = xr.Dataset(
    ...     {
    ...         "influence": (("query", "train"), value),
    ...         "mcse": (("query", "train"), np.full((1, 3), 0.1)),
    ...         "resolved": (("query", "train"), abs(value) > 0.2),
    ...     },
    ...     coords={"query": ["q"], "train": [10, 11, 12]},
    ... )
    >>> figure = plot_top(scores, k=1, train_images=np.zeros((3, 8, 8)))
    >>> [len(axes.images) for axes in figure.axes]
    [0, 1, 1]
    """
    if not isinstance(scores, xr.Dataset) and idata is None:
        idata = scores
    best = best_of(scores, query, k, first=5)
    ids = {name: _ids(scores, name) for name in ("train", "query")}
    of = {name: best.attrs.get(f"{name}_variable") for name in ids}
    train = gallery(idata, "train", train_images, ids["train"], of["train"])
    asked = gallery(idata, "query", query_images, ids["query"], of["query"])
    if train.images is None:
        raise ValueError(
            "there are no pictures of the training rows: pass train_images=, or draw their scores "
            "by bif.plot_forest"
        )
    return _pictures(best, train, asked, get_theme(theme), figure_kwargs)


def _ids(scores: Any, name: str) -> Any:
    return scores[name].values if isinstance(scores, xr.Dataset) and name in scores.dims else None


def _pictures(
    best: xr.Dataset,
    train: Gallery,
    asked: Gallery,
    theme: Theme,
    figure_kwargs: Mapping[str, Any] | None,
) -> "Figure":
    queries, k = best.sizes["query"], best.sizes["rank"]
    width = 2 * EDGE + (2 * k + 1) * CELL + (2 * k - 2) * GAP + 4 * GAP * 2
    height = TOP + queries * (CELL + CAPTION) + BOTTOM
    figure = new_figure(width, height, theme, arrange=False, figure_kwargs=figure_kwargs)
    starts = {"query": EDGE, "raises": EDGE + CELL + 4 * GAP}
    starts["lowers"] = starts["raises"] + k * (CELL + GAP) - GAP + 4 * GAP
    _headings(figure, starts, theme)
    for row in range(queries):
        y = height - TOP - row * (CELL + CAPTION) - CELL
        one = best.isel(query=row)
        name = one["query"].values[()]
        _picture(figure, starts["query"], y, asked.image(name), theme.ink, theme)
        _caption(figure, starts["query"], y, asked.lines(name), theme.ink, theme)
        for direction in best["direction"].values:
            _strip(figure, starts[str(direction)], y, one.sel(direction=direction), train, theme)
    figure.text(EDGE / width, 0.13 / height, _footnote(best), size=7, color=theme.muted)
    return figure


def _headings(figure: "Figure", starts: dict[str, float], theme: Theme) -> None:
    width, height = figure.get_size_inches()
    texts = {
        "query": ("query", theme.ink),
        "raises": ("raises its log-likelihood", theme.raises),
        "lowers": ("lowers its log-likelihood", theme.lowers),
    }
    for name, (text, color) in texts.items():
        place = starts[name] / width, 1 - 0.32 / height
        figure.text(*place, text, color=color, size=10, weight="bold")


def _strip(
    figure: "Figure", x: float, y: float, one: xr.Dataset, train: Gallery, theme: Theme
) -> None:
    """Draw the pictures of one query in one direction, the strongest first."""
    hue = theme.raises if one["direction"].item() == "raises" else theme.lowers
    for rank in range(one.sizes["rank"]):
        cell = one.isel(rank=rank)
        name, resolved = cell["train"].values[()], bool(cell["resolved"])
        color = hue if resolved else theme.muted
        left = x + rank * (CELL + GAP)
        _picture(figure, left, y, train.image(name), color, theme, faint=not resolved)
        lines = train.lines(name) + list(score_lines(float(cell["influence"]), float(cell["mcse"])))
        _caption(figure, left, y, lines if resolved else [*lines, UNRESOLVED], color, theme)


def _picture(
    figure: "Figure",
    x: float,
    y: float,
    image: np.ndarray | None,
    color: str,
    theme: Theme,
    faint: bool = False,
) -> None:
    width, height = figure.get_size_inches()
    ax = figure.add_axes((x / width, y / height, CELL / width, CELL / height))
    ax.set(xticks=[], yticks=[], facecolor=theme.paper)
    if image is None:
        ax.text(0.5, 0.5, "no picture", color=theme.muted, size=7, ha="center", va="center")
    else:
        ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, alpha=0.45 if faint else 1.0)
        # A mat between picture and frame keeps the frame's colour and dashes readable.
        down, across = 0.5 + MAT * image.shape[0], 0.5 + MAT * image.shape[1]
        ax.set(xlim=(-across, image.shape[1] - 1 + across), ylim=(image.shape[0] - 1 + down, -down))
    for spine in ax.spines.values():
        spine.set(color=color, linewidth=1.2 if faint else 2.2, linestyle="--" if faint else "-")


def _caption(
    figure: "Figure", x: float, y: float, lines: list[str], color: str, theme: Theme
) -> None:
    width, height = figure.get_size_inches()
    at = (x + CELL / 2) / width
    text = figure.text(at, (y - 0.06) / height, "\n".join(lines), size=7, ha="center", va="top")
    text.set(color=theme.ink if color != theme.muted else theme.muted, linespacing=1.25)


def _footnote(best: xr.Dataset) -> str:
    told, lost = criterion(best.attrs), list(best.attrs.get("chains_excluded", []))
    note = f"id, label, score ± standard error.  Grey, dashed: not resolved from 0 at {told}."
    return note + (f"  Diverged chains left out: {', '.join(map(str, lost))}." if lost else "")
