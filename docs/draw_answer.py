"""The picture on the home page: a digit that was misread, and the training digits that did it.

``python docs/draw_answer.py`` trains the digits' MLP, samples around it with NumPyro, and draws the
strongest scores of one query, with their errors, into ``docs/assets``.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

import ppl_bif as bif
from ppl_bif.numpyro import localize
from ppl_bif.plots.style import Theme, get_theme, new_figure, tidy
from ppl_bif_models import digits, digits_jax

ASSETS = Path(__file__).parent / "assets"
WIDTH, HEIGHT, K = 8.0, 3.9, 4


def main() -> None:
    """Run, and draw for light and dark pages."""
    data = digits.load()
    params = digits_jax.train(digits_jax.mlp, digits_jax.init_mlp(jax.random.key(0)), *data.train)
    predicted = np.asarray(digits_jax.mlp(params, data.query_x)).argmax(axis=1)
    query = int(np.flatnonzero(predicted != data.query_y)[0])
    run = bif.sample(
        localize(digits_jax.mlp, params, likelihood="categorical"),
        train=data.train,
        query=(data.query_x[[query]], data.query_y[[query]]),
        draws=1000,
        seed=0,
    )
    best = bif.top(bif.influence(run), k=K).isel(query=0)
    asked = f"is a {data.query_y[query]},\nread as a {predicted[query]}"
    for name in ("light", "dark"):
        figure = draw(best, data, data.query_x[query], asked, get_theme(name))
        figure.savefig(ASSETS / f"answer-{name}.png", dpi=130)


def draw(best: xr.Dataset, data: Any, query: np.ndarray, asked: str, theme: Theme) -> Any:
    """Draw the query on the left, and a row for each score."""
    figure = new_figure(WIDTH, HEIGHT, theme, arrange=False)
    write = {"color": theme.ink, "ha": "center", "transform": figure.transFigure}
    thumbnail(figure, (0.045, 0.41, 0.17, 0.17 * WIDTH / HEIGHT), query, theme.ink)
    figure.text(0.13, 0.81, "Which examples\ndecided this?", weight="bold", size=10, **write)
    figure.text(0.13, 0.24, asked, size=10, **write)

    axes = figure.add_axes((0.4, 0.14, 0.42, 0.76))
    tidy(axes, theme)
    axes.axvline(0, color=theme.muted, lw=1)
    rows = [(best.sel(direction="raises").isel(rank=r), theme.raises) for r in range(K)]
    rows += [(best.sel(direction="lowers").isel(rank=r), theme.lowers) for r in range(K)[::-1]]
    for at, (row, hue) in enumerate(rows):
        name, score, error = (row[n].item() for n in ("train", "influence", "mcse"))
        axes.barh(at, score, color=hue, height=0.62)
        axes.errorbar(score, at, xerr=2 * error, color=theme.ink, lw=1.4, capsize=2.5)
        text = f"{score:+.3f} ± {error:.3f}".replace("-", "\N{MINUS SIGN}")
        figure.text(0.845, y_of(axes, at), text, color=theme.ink, size=9, va="center")
        middle = y_of(axes, at)
        thumbnail(
            figure, (0.35, middle - 0.04, 0.08 * HEIGHT / WIDTH, 0.08), data.train_x[name], hue
        )
        label = f"a {data.train_y[name]}"
        figure.text(0.34, middle, label, color=hue, size=9, ha="right", va="center")
    axes.set(yticks=[], ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel("influence on the log-likelihood of the true label (nats); bars: two errors")
    heading = {"size": 9, "weight": "bold", "ha": "right", "va": "center"}
    figure.text(0.82, y_of(axes, 3), "raise it", color=theme.raises, **heading)
    figure.text(0.82, y_of(axes, 4), "lower it", color=theme.lowers, **heading)
    return figure


def y_of(axes: Any, row: int) -> float:
    """Return where a row of the axes is in the figure."""
    box = axes.get_position()
    return float(box.y1 - (row + 0.5) / (2 * K) * box.height)


def thumbnail(figure: Any, place: tuple[float, ...], image: np.ndarray, hue: str) -> None:
    """Put a digit into a frame."""
    axes = figure.add_axes(place)
    axes.imshow(image.reshape(8, 8), cmap="gray_r")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=hue, linewidth=1.6)


if __name__ == "__main__":
    main()
