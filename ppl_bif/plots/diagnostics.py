"""plot_diagnosis: how the chains went, as four pictures of what `ppl_bif.diagnose` measured."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_bif.diagnostics import CRITERIA
from ppl_bif.plots.style import Theme, ThemeName, get_theme, new_figure, tidy
from ppl_bif.schema import group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Panel", "panels", "plot_diagnosis", "plot_panel"]

_WANTED = {criterion.name: criterion for criterion in CRITERIA}

Panel = Callable[[Any, xr.Dataset, Any, Theme], None]


def plot_diagnosis(
    check: xr.Dataset,
    idata: Any = None,
    *,
    theme: ThemeName = "light",
    figure_kwargs: Mapping[str, Any] | None = None,
) -> "Figure":
    """Draw the loss of each chain, R-hat and effective draws of the points, agreement of rankings.

    Parameters
    ----------
    check
        What `ppl_bif.diagnose` returned.
    idata
        The run it was made of; without it the loss of the chains is left out.
    theme
        ``"light"`` or ``"dark"``.
    figure_kwargs
        Of Matplotlib's ``Figure``, such as ``figsize``.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to the caller alone: save it with ``figure.savefig(path)``.

    Raises
    ------
    ValueError
        If ``check`` is not a diagnosis.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from ppl_bif.plots import plot_diagnosis
    >>> check = xr.Dataset(
    ...     {
    ...         "rhat": ("point", [1.0, 1.01]),
    ...         "ess": ("point", [300.0, 420.0]),
    ...         "rank_agreement_chains": ("query", [0.9]),
    ...         "rank_agreement_halves": ("query", [0.8]),
    ...     },
    ...     coords={"group": ("point", ["train", "query"])},
    ... )
    >>> len(plot_diagnosis(check).axes)
    3
    """
    chosen, colors = panels(check, idata), get_theme(theme)
    across = 2 if len(chosen) % 2 == 0 else len(chosen)
    down = len(chosen) // across
    figure = new_figure(4.4 * across, 2.9 * down, colors, figure_kwargs=figure_kwargs)
    grid = figure.subplots(down, across, squeeze=False).flat
    for ax, (title, draw) in zip(grid, chosen.items(), strict=True):
        draw(ax, check, idata, colors)
        ax.set_title(title, loc="left", size=10, weight="bold", color=colors.ink, pad=8)
    return figure


def plot_panel(panel: Panel, check: xr.Dataset, idata: Any, theme: ThemeName) -> "Figure":
    """Draw one of `panels` as a figure of its own, sized for a page that may be narrow."""
    colors = get_theme(theme)
    figure = new_figure(4.4, 2.9, colors)
    panel(figure.subplots(), check, idata, colors)
    return figure


def panels(check: xr.Dataset, idata: Any = None) -> dict[str, Panel]:
    """Return the pictures that can be drawn of a diagnosis and its run, by their titles."""
    missing = {"rhat", "ess", "rank_agreement_chains", "rank_agreement_halves"} - set(check)
    if missing:
        raise ValueError(
            f"expected what ppl_bif.diagnose returns; it has no {', '.join(sorted(missing))}"
        )
    stats = None if idata is None else group(idata, "sample_stats")
    has_loss = stats is not None and "train_loss" in stats
    return {title: panel for title, panel in _PANELS.items() if has_loss or panel is not _loss}


def _legend(ax: Any, theme: Theme, **where: Any) -> None:
    box = ax.legend(fontsize=7.5, labelcolor=theme.muted, handlelength=1.4, **where)
    box.get_frame().set(facecolor=theme.paper, edgecolor="none", alpha=1)


def _loss(ax: Any, check: xr.Dataset, idata: Any, theme: Theme) -> None:
    """Draw the mean training loss of every draw, against that of the trained weights."""
    stats = group(idata, "sample_stats")
    assert stats is not None
    tidy(ax, theme)
    for at in range(stats.sizes["chain"]):
        chain = stats.isel(chain=at)
        lost = "diverging" in chain and bool(chain["diverging"].any())
        name = f"chain {chain['chain'].item()}" + (" (diverged)" if lost else "")
        color = theme.muted if lost else theme.chains[at % len(theme.chains)]
        style = (0, (2, 1.5)) if lost else "-"
        ax.plot(chain["train_loss"].values, color=color, linestyle=style, linewidth=0.8, label=name)
    data = group(idata, "constant_data")
    if data is not None and "train_loss_at_mode" in data:
        mode = float(data["train_loss_at_mode"].mean())
        ax.axhline(mode, color=theme.ink, linewidth=1.2, linestyle="--", label="trained weights")
    ax.set(xlabel="draw", ylabel="mean loss (nats)")
    ax.margins(x=0.01)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.45 * (high - low))
    _legend(ax, theme, loc="upper right", ncols=2)


def _rhat(ax: Any, check: xr.Dataset, idata: Any, theme: Theme) -> None:
    _histogram(ax, check, "rhat", theme)
    _limit(ax, _WANTED["rhat_high"].high[0], "wanted of 95%: below", theme)
    ax.set(xlabel="R-hat of a point")


def _ess(ax: Any, check: xr.Dataset, idata: Any, theme: Theme) -> None:
    _histogram(ax, check, "ess", theme)
    _limit(ax, _WANTED["ess_low"].low[0], "wanted of 95%: above", theme)
    ax.set(xlabel="effective draws of a point, all chains")


def _limit(ax: Any, value: float, text: str, theme: Theme) -> None:
    """Mark what `ppl_bif.diagnose` passes, where there is a histogram to compare with it."""
    if ax.has_data():
        ax.axvline(
            value, 0, 0.7, color=theme.ink, linewidth=1, linestyle=":", label=f"{text} {value:g}"
        )
        _legend(ax, theme, loc="upper right")


def _histogram(ax: Any, check: xr.Dataset, name: str, theme: Theme) -> None:
    """Draw how a measure spreads over the train and query points as shares of each."""
    where = check["group"].values
    hues = {"train": theme.raises, "query": theme.lowers}
    values = {side: _finite(check[name].values[where == side]) for side in hues}
    _shares(ax, values, hues, theme, "points")


def _agreement(ax: Any, check: xr.Dataset, idata: Any, theme: Theme) -> None:
    names = {"between chains": "rank_agreement_chains", "between halves": "rank_agreement_halves"}
    values = {text: _finite(check[name].values) for text, name in names.items()}
    hues = dict(zip(names, (theme.raises, theme.lowers), strict=True))
    _shares(ax, values, hues, theme, "queries")
    ax.set(xlabel="rank correlation of a query's scores")


def _finite(values: Any) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[np.isfinite(values)]


def _shares(
    ax: Any, values: dict[str, np.ndarray], hues: dict[str, str], theme: Theme, what: str
) -> None:
    """Draw histograms over each other on common bins, and the median of each as a line."""
    tidy(ax, theme)
    ax.set_ylabel(f"share of {what}")
    pooled = np.concatenate(list(values.values()))
    if not pooled.size:
        text = "not available:\nit takes two chains or more draws"
        ax.text(
            0.5,
            0.5,
            text,
            color=theme.muted,
            ha="center",
            va="center",
            size=9,
            transform=ax.transAxes,
        )
        ax.set(xticks=[], yticks=[])
        return
    pad = 0.0 if np.ptp(pooled) else 0.05 * (abs(pooled[0]) or 1.0)
    bins = np.linspace(pooled.min() - pad, pooled.max() + pad, 22)
    for (name, some), style in zip(values.items(), ("-", "--"), strict=True):
        if some.size:
            kind: dict[str, Any] = {"weights": np.full(some.size, 1 / some.size), "bins": bins}
            ax.hist(some, **kind, color=hues[name], alpha=0.28)
            ax.hist(some, **kind, color=hues[name], histtype="step", linewidth=1.3, linestyle=style)
            middle = float(np.median(some))
            label = f"{name}: median {middle:{'.0f' if middle > 10 else '.3f'}}"
            ax.axvline(middle, 0, 0.7, color=hues[name], linestyle=style, label=label)
    ax.set_ylim(top=1.5 * ax.get_ylim()[1])
    _legend(ax, theme, loc="upper right")


_PANELS: dict[str, Panel] = {
    "Training loss of the draws": _loss,
    "R-hat of the losses: 1 is best": _rhat,
    "Effective draws: more is better": _ess,
    "Agreement of rankings: 1 is best": _agreement,
}
