"""Colours and figures shared by the plots: a theme's name in, an empty figure in its colours out.

The hues are Okabe and Ito's, which stay apart for colour-blind readers; what they say is always
said a second time in words or by a line style.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Theme",
    "ThemeName",
    "get_theme",
    "new_figure",
    "tidy",
]

ThemeName = Literal["light", "dark"]


class Theme(NamedTuple):
    """Colours of a figure."""

    paper: str
    ink: str
    muted: str
    line: str
    raises: str
    lowers: str
    chains: tuple[str, ...]


_CHAINS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")

THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#626a73", "#d5d9de", "#0072b2", "#c2500a", _CHAINS),
    "dark": Theme(
        "#16191d",
        "#e9ecef",
        "#9aa3ad",
        "#3a4149",
        "#56b4e9",
        "#f08a4b",
        ("#56b4e9", *_CHAINS[1:4], "#f0e442", "#d55e00"),
    ),
}


def get_theme(name: str) -> Theme:
    """Return the colours of ``"light"`` or ``"dark"``."""
    if name not in THEMES:
        raise ValueError(f"theme must be one of {list(THEMES)}; got {name!r}")
    return THEMES[name]


def new_figure(
    width: float,
    height: float,
    theme: Theme,
    *,
    arrange: bool = True,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> "Figure":
    """Make an empty figure of so many inches that needs neither pyplot nor a backend.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    """
    try:
        from ppl_bif.plots.figure import StandaloneFigure, airy
    except ImportError as error:
        raise ImportError(
            "plots need Matplotlib, which is not installed: pip install 'ppl_bif[plots]'"
        ) from error
    given = {
        "figsize": (width, height),
        "facecolor": theme.paper,
        "layout": airy() if arrange else None,
    }
    return StandaloneFigure(**given | dict(figure_kwargs or {}))


def tidy(ax: Any, theme: Theme) -> None:
    """Dress axes in the colours of a theme: no box, quiet ticks, a light grid behind."""
    ax.set_facecolor(theme.paper)
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.line)
    ax.tick_params(colors=theme.muted, labelsize=8, length=0, pad=5)
    ax.grid(True, color=theme.line, linewidth=0.6, alpha=0.7)
    ax.set_axisbelow(True)
    ax.xaxis.label.set(color=theme.muted, size=8.5)
    ax.yaxis.label.set(color=theme.muted, size=8.5)
