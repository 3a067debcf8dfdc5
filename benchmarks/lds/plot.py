"""Cost against quality, drawn: ``python -m benchmarks.lds.plot`` writes the picture in the docs.

From ``results/ours.jsonl`` and ``results/peers.jsonl`` alone.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ppl_bif.plots.style import get_theme, new_figure, tidy

HERE = Path(__file__).parent
PICTURE = HERE.parents[1] / "docs" / "assets" / "quality.png"
TASKS = {"digits_mlp": "digits MLP", "digits_cnn": "digits CNN", "fashion_cnn": "Fashion CNN"}
# Rows of panels: what is drawn against what.
PANELS = (
    ("lds", "passes", "LDS", "network passes"),
    ("lds", "seconds", "LDS", "seconds (one thread, shared machine)"),
    ("pearson", "passes", "Pearson r with a long run", "network passes"),
    ("pearson", "seconds", "Pearson r with a long run", "seconds (one thread, shared machine)"),
)
# Curves of our own: name, colour among the theme's, marker, label.
CURVES = {
    "default": (0, "o", "default (underdamped, 4 steps)"),
    "underdamped_1": (4, "s", "underdamped, 1 step"),
    "hmc": (2, "D", "HMC"),
    "sgld": (1, "^", "SGLD"),
    "sgld_rmsprop": (5, "v", "SGLD, RMSprop"),
    "sgld_partition": (3, "<", "SGLD, partition"),
    "sgld_cv": (1, "x", "SGLD, control variates"),
}
ESTIMATORS = {"eb": ("-", "shrunk"), "raw": (":", "plain")}
PEERS = {"graddot": ("+", "GradDot"), "ekfac": ("*", "EK-FAC"), "devinterp": ("X", "devinterp")}


def main() -> None:
    """Draw every task and panel."""
    theme = get_theme("light")
    ours, peers = (_read(HERE / "results" / f"{name}.jsonl") for name in ("ours", "peers"))
    figure = new_figure(12, 14, theme)
    axes = figure.subplots(len(PANELS), len(TASKS), sharex="row", sharey="row")
    for (quality, cost, y_label, x_label), row in zip(PANELS, axes, strict=True):
        for (task, title), ax in zip(TASKS.items(), row, strict=True):
            curves(ax, [r for r in ours if r["task"] == task], quality, cost, theme)
            if quality == "lds":
                points(ax, [r for r in peers if r["task"] == task], cost, theme)
            ax.set(xscale="log", xlabel=x_label, title=title)
            ax.set_visible(bool(ax.lines))
            ax.xaxis.set_minor_formatter("")
            tidy(ax, theme)
        row[0].set_ylabel(y_label)
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(PICTURE, dpi=90)
    print(PICTURE)


def curves(ax: Any, rows: Iterable[dict[str, Any]], quality: str, cost: str, theme: Any) -> None:
    """Draw our kernels and estimators, means over seeds, at growing numbers of draws."""
    found: dict[Any, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["name"] in CURVES and row.get(quality) is not None:
            key = row["name"], row["backend"], row["estimator"], row["draws"]
            found[key].append((row[cost], row[quality]))
    for (name, backend, estimator), line in _lines(found).items():
        colour, marker, label = CURVES[name]
        style, how = ESTIMATORS[estimator]
        ax.plot(
            *line.T,
            linestyle=style,
            marker=marker,
            markersize=4,
            color=theme.chains[colour],
            alpha=1.0 if backend == "numpyro" else 0.5,
            label=f"{label}, {how}" if backend == "numpyro" else f"{label}, {how}, Pyro",
        )


def points(ax: Any, rows: Iterable[dict[str, Any]], cost: str, theme: Any) -> None:
    """Draw the best settings of each peer, chosen by the very truth, at each cost."""
    best: dict[tuple[str, float], float] = {}
    for row in rows:
        key = row["method"], float(f"{row[cost]:.1g}")
        best[key] = max(best.get(key, -1.0), row["lds"])
    for method, (marker, label) in PEERS.items():
        there = np.array(sorted((x, y) for (m, x), y in best.items() if m == method))
        if there.size:
            ax.plot(*there.T, marker, color=theme.ink, markersize=8, label=f"{label}, best setting")


def _lines(found: dict[Any, list[tuple[float, float]]]) -> dict[Any, np.ndarray]:
    """Gather means over seeds into lines, by name, backend and estimator."""
    lines = defaultdict(list)
    for key, values in sorted(found.items()):
        lines[key[:3]].append(np.mean(values, axis=0))
    return {key: np.array(line) for key, line in lines.items()}


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main()
