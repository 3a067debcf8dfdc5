"""Every plot looks as it did when somebody last looked at it, light and dark.

After a change that is meant, look at the pictures that `REMAKE=1 pytest tests/test_pictures.py`
makes anew in tests/images. They are without words, whose letters differ from one Matplotlib to the
next and move all else; what is written, other tests read.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from ppl_bif.diagnostics import diagnose
from ppl_bif.plots import (
    plot_convergence,
    plot_diagnosis,
    plot_embedding,
    plot_forest,
    plot_heatmap,
    plot_lds,
    plot_over_checkpoints,
    plot_top,
)
from ppl_bif.schema import group
from ppl_bif.scores import influence
from tests.synthetic_run import make_run
from tests.test_plots import compared, kernel, over_checkpoints

pytest.importorskip("arviz_plots")
matplotlib = pytest.importorskip("matplotlib")

IMAGES = Path(__file__).parent / "images"
# No figure is a whole number of pixels, of which one Matplotlib may leave out the last.
DPI = 51
# Pictures in a picture are resampled, by one Matplotlib not quite as by the next.
TOLERANCE = {"top": 30, "heatmap": 12}


@pytest.fixture(scope="module")
def run():
    return make_run()


@pytest.fixture(scope="module")
def scores(run):
    return influence(run)


@pytest.fixture(autouse=True)
def _as_delivered():
    """Draw with Matplotlib's own settings, DejaVu Sans among them, and leave no figure open."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        yield
    plt.close("all")


def kinds(run, side):
    return group(run, "constant_data")[f"{side}_target"].values


PLOTS = {
    "top": lambda run, scores, **how: plot_top(scores, query=["q0", "q3"], k=3, idata=run, **how),
    "forest": lambda run, scores, **how: plot_forest(scores, ["q0", "q3"], 5, idata=run, **how),
    "heatmap": lambda run, scores, **how: plot_heatmap(scores, k=20, **how),
    "heatmap_of_kinds": lambda run, scores, **how: plot_heatmap(
        scores, labels={side: kinds(run, side) for side in ("train", "query")}, **how
    ),
    "convergence": lambda run, scores, **how: plot_convergence(run, ["q0", "q3"], **how),
    "diagnosis": lambda run, scores, **how: plot_diagnosis(
        diagnose(run, verbose=False), run, **how
    ),
    "lds": lambda run, scores, **how: plot_lds(compared(), reference="ours", ceiling=0.8, **how),
    "embedding": lambda run, scores, **how: plot_embedding(kernel(), np.arange(30) % 10, **how),
    "over_checkpoints": lambda run, scores, **how: plot_over_checkpoints(
        over_checkpoints(), labels=["a 3", "a 5"], **how
    ),
}


def wordless(figure):
    from matplotlib.text import Text

    for ax in figure.axes:
        sides = ("labelbottom", "labelleft", "labelright", "labeltop")
        ax.tick_params(which="both", **dict.fromkeys(sides, False))
        ax.xaxis.offsetText.set_visible(False)
        ax.yaxis.offsetText.set_visible(False)
    for text in figure.findobj(Text):
        text.set_visible(False)
    for legend in [*figure.legends, *(ax.legend_ for ax in figure.axes if ax.legend_)]:
        legend.remove()
    return figure


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PLOTS)
def test_it_looks_as_it_did(name, theme, run, scores, tmp_path):
    from matplotlib.testing.compare import compare_images

    drawn = PLOTS[name](run, scores, theme=theme)
    expected = IMAGES / f"{name}_{theme}.png"
    where = expected if "REMAKE" in os.environ else tmp_path / expected.name
    figure = drawn.viz["figure"].item() if hasattr(drawn, "viz") else drawn
    wordless(figure).savefig(where, dpi=DPI)
    assert compare_images(str(expected), str(where), TOLERANCE.get(name, 3)) is None
