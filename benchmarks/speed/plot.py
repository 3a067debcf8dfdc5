"""Speed, drawn: ``python -m benchmarks.speed.plot`` writes the picture in the docs.

From ``results/cpu.jsonl`` alone: of each case, subject and number of threads the last line.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.speed.compare import RESULTS
from ppl_bif.plots.style import get_theme, new_figure, tidy

PICTURE = Path(__file__).parents[2] / "docs" / "assets" / "speed.png"
TITLES = {
    "mlp4": "MLP, 4 chains, all rows scored at every step",
    "mlp16": "MLP, 16 chains, all rows scored at every step",
    "cnn4": "CNN, 4 chains, all rows scored at every step",
    "steps16": "MLP, 16 chains, steps alone",
}
LABELS = {
    "devinterp": "devinterp",
    "bare_torch": "PyTorch by hand",
    "pyro": "ppl_bif, Pyro",
    "bare_jax": "JAX by hand",
    "numpyro": "ppl_bif, NumPyro",
}


def main() -> None:
    """Draw a panel for each case."""
    theme = get_theme("light")
    found = latest()
    figure = new_figure(10, 6, theme)
    for ax, (case, title) in zip(figure.subplots(2, 2).flat, TITLES.items(), strict=True):
        rates = {name: found[case, name, 1]["call"] for name in LABELS if (case, name, 1) in found}
        ax.set_visible(bool(rates))
        for place, (name, (middle, least, most)) in enumerate(rates.items()):
            ours = name in ("pyro", "numpyro")
            ax.barh(place, middle, color=theme.raises if ours else theme.line, height=0.7)
            ax.plot([least, most], [place, place], color=theme.ink, linewidth=1)
            ax.text(most, place, f"  {middle:,.0f}", va="center", color=theme.ink)
        ax.set_yticks(range(len(rates)), [LABELS[name] for name in rates])
        ax.set(title=title, xlabel="chain-steps a CPU-second, whole warm call")
        ax.margins(x=0.15)
        tidy(ax, theme)
    figure.savefig(PICTURE, dpi=90)
    print(PICTURE)


def latest() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the last line of each case, subject and number of threads."""
    lines = (json.loads(line) for line in RESULTS.read_text().splitlines())
    return {(line["case"], line["subject"], line["threads"]): line for line in lines}


if __name__ == "__main__":
    main()
