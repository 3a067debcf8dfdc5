"""plot_top: the training rows that most raise and most lower a query's log-likelihood, pictured."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.plots.captions import UNRESOLVED, score_lines, score_text, shorten
from ppl_bif.plots.choose import best_of
from ppl_bif.plots.gallery import Gallery, gallery
from ppl_bif.plots.style import Theme, ThemeName, get_theme, new_figure, tidy

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
) -> "Figure":
    """Picture the training rows that most raise and most lower the log-likelihood of queries.

    With pictures, each query is a row: its own picture, ``k`` that raise its log-likelihood and
    ``k`` that lower it, the strongest first. Without, each query is a panel of scores with bars of
    two standard errors. Scores that are not resolved from zero are grey and dashed, and say so.

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

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to the caller alone: save it with ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        If a query is unknown, or pictures have a wrong shape or cannot be matched to ids.
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
    >>> figure = plot_top(scores, k=1)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['q']
    """
    if not isinstance(scores, xr.Dataset) and idata is None:
        idata = scores
    best = best_of(scores, query, k, first=5)
    ids = {name: _ids(scores, name) for name in ("train", "query")}
    of = {name: best.attrs.get(f"{name}_variable") for name in ids}
    train = gallery(idata, "train", train_images, ids["train"], of["train"])
    asked = gallery(idata, "query", query_images, ids["query"], of["query"])
    if train.images is None:
        return _forest(best, train, asked, get_theme(theme))
    return _pictures(best, train, asked, get_theme(theme))


def _ids(scores: Any, name: str) -> Any:
    return scores[name].values if isinstance(scores, xr.Dataset) and name in scores.dims else None


def _pictures(best: xr.Dataset, train: Gallery, asked: Gallery, theme: Theme) -> "Figure":
    queries, k = best.sizes["query"], best.sizes["rank"]
    width = 2 * EDGE + (2 * k + 1) * CELL + (2 * k - 2) * GAP + 4 * GAP * 2
    height = TOP + queries * (CELL + CAPTION) + BOTTOM
    figure = new_figure(width, height, theme, arrange=False)
    starts = {"query": EDGE, "raises": EDGE + CELL + 4 * GAP}
    starts["lowers"] = starts["raises"] + k * (CELL + GAP) - GAP + 4 * GAP
    _headings(figure, starts, theme)
    for row in range(queries):
        y = height - TOP - row * (CELL + CAPTION) - CELL
        one = best.isel(query=row)
        name = one["query"].values[()]
        _picture(figure, starts["query"], y, asked.image(name), theme.ink, theme)
        _caption(figure, starts["query"], y, _lines(name, asked), theme.ink, theme)
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
        lines = _lines(name, train) + list(
            score_lines(float(cell["influence"]), float(cell["mcse"]))
        )
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


def _lines(name: Any, rows: Gallery) -> list[str]:
    return [shorten(name, 13), *(shorten(text, 16) for text in rows.label(name))]


def _caption(
    figure: "Figure", x: float, y: float, lines: list[str], color: str, theme: Theme
) -> None:
    width, height = figure.get_size_inches()
    at = (x + CELL / 2) / width
    text = figure.text(at, (y - 0.06) / height, "\n".join(lines), size=7, ha="center", va="top")
    text.set(color=theme.ink if color != theme.muted else theme.muted, linespacing=1.25)


def _footnote(best: xr.Dataset) -> str:
    rate, lost = best.attrs.get("fdr"), list(best.attrs.get("chains_excluded", []))
    told = "two standard errors" if rate is None else f"a false discovery rate of {rate:.0%}"
    note = f"id, label, score ± standard error.  Grey, dashed: not resolved from 0 at {told}."
    return note + (f"  Diverged chains left out: {', '.join(map(str, lost))}." if lost else "")


def _forest(best: xr.Dataset, train: Gallery, asked: Gallery, theme: Theme) -> "Figure":
    queries, rows = best.sizes["query"], 2 * best.sizes["rank"]
    figure = new_figure(7.2, 0.45 + queries * (0.62 + 0.21 * rows), theme)
    panels = figure.subplots(queries, 1, squeeze=False)[:, 0]
    for at, ax in enumerate(panels):
        one = best.isel(query=at)
        _forest_panel(ax, one, train, theme)
        title = " · ".join(_lines(one["query"].values[()], asked))
        ax.set_title(title, loc="left", size=10, weight="bold", color=theme.ink)
    figure.supxlabel(_footnote(best), x=0.02, ha="left", size=7, color=theme.muted)
    return figure


def _forest_panel(ax: Any, one: xr.Dataset, train: Gallery, theme: Theme) -> None:
    """Draw the scores of one query, from the strongest that raises to the strongest that lowers."""
    ranks = range(one.sizes["rank"])
    cells = [(one.sel(direction="raises").isel(rank=i), theme.raises) for i in ranks]
    cells += [(one.sel(direction="lowers").isel(rank=i), theme.lowers) for i in ranks[::-1]]
    tidy(ax, theme)
    ax.axvline(0, color=theme.muted, linewidth=0.8)
    texts = [_forest_row(ax, y, cell, hue, theme) for y, (cell, hue) in enumerate(cells)]
    names = [" · ".join(_lines(cell["train"].values[()], train)) for cell, _ in cells]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(names)), texts)
    right.tick_params(colors=theme.muted, labelsize=8, length=0)
    right.spines["right"].set_visible(False)


def _forest_row(ax: Any, y: int, cell: xr.Dataset, hue: str, theme: Theme) -> str:
    score, error, resolved = (float(cell[n]) for n in ("influence", "mcse", "resolved"))
    color = hue if resolved else theme.muted
    style, fill = ("-", color) if resolved else ((0, (2, 1.5)), theme.paper)
    ends = [score - 2 * error, score + 2 * error]
    ax.plot(ends, [y, y], color=color, linewidth=1.6, linestyle=style)
    ax.plot(score, y, "o", color=color, markersize=5, markerfacecolor=fill)
    return score_text(score, error) + ("" if resolved else f"  {UNRESOLVED}")
