"""Plots by arviz-plots draw what the scores say, at its place, in the backends there are."""

import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from ppl_bif.plots import (
    plot_convergence,
    plot_embedding,
    plot_forest,
    plot_heatmap,
    plot_lds,
    plot_over_checkpoints,
)
from ppl_bif.plots.captions import score_text
from ppl_bif.plots.choose import best_of
from ppl_bif.plots.style import get_theme
from ppl_bif.ranking import discovered
from ppl_bif.schema import group
from tests.synthetic_run import make_run
from tests.test_plots import compared, kernel, over_checkpoints

azp = pytest.importorskip("arviz_plots")
pytest.importorskip("matplotlib")

PLOTS = {
    "forest": plot_forest,
    "heatmap": plot_heatmap,
    "convergence": plot_convergence,
    "lds": lambda run, **how: plot_lds(compared(), reference="ours", ceiling=0.8, **how),
    "embedding": lambda run, **how: plot_embedding(kernel(), np.arange(30) % 10, **how),
    "over_checkpoints": lambda run, **how: plot_over_checkpoints(over_checkpoints(), **how),
}
NEEDS = {"matplotlib": ["matplotlib"], "plotly": ["plotly", "webcolors"], "bokeh": ["bokeh"]}


@pytest.fixture(scope="module")
def run():
    return make_run()


@pytest.fixture(scope="module")
def scores(run):
    return bif.influence(run)


@pytest.fixture(autouse=True)
def _close():
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    yield
    plt.close("all")


def table(queries=3, rows=10, seed=0):
    """Scores of which about half are resolved."""
    rng = np.random.default_rng(seed)
    dims, shape = ("query", "train"), (queries, rows)
    value = rng.normal(size=shape)
    return xr.Dataset(
        {"influence": (dims, value), "mcse": (dims, np.full(shape, 0.2))},
        coords={"query": [f"q{i}" for i in range(queries)], "train": np.arange(rows) + 100},
        attrs={"blocks": 200},
    )


def panel(pc, **entry):
    return pc.get_target(None, entry)


def visual(pc, name, **entry):
    return pc.get_viz(name, "influence", entry)


def to_hex(color):
    from matplotlib.colors import to_hex

    return to_hex(color)


def labels(ax, axis):
    return [label.get_text() for label in getattr(ax, f"get_{axis}ticklabels")()]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_forest_points_and_intervals_are_the_scores(scores, theme):
    pc = plot_forest(scores, ["q0", "q3"], 4, theme=theme, backend="matplotlib")
    best, colors = best_of(scores, ["q0", "q3"], 4), get_theme(theme)
    for query in ("q0", "q3"):
        one = best.sel(query=query).stack(row=("direction", "rank")).sortby("influence")
        assert labels(panel(pc, query=query), "y") == [str(row) for row in one["train"].values]
        for look, some in (("raises", one["resolved"]), ("unresolved", ~one["resolved"])):
            points = visual(pc, f"point_{look}", query=query)
            drawn = np.ma.filled(points.get_offsets(), np.nan)
            drawn = drawn[np.isfinite(drawn[:, 0])]
            drawn = drawn[np.argsort(drawn[:, 1])]
            np.testing.assert_allclose(drawn[:, 0], one["influence"].values[some])
            np.testing.assert_array_equal(drawn[:, 1], np.flatnonzero(some))
            fill, edge = (to_hex(points.get_facecolor()[0]), to_hex(points.get_edgecolor()[0]))
            color = colors.raises if look == "raises" else colors.muted
            assert (fill, edge) == (color if look == "raises" else colors.paper, color)
            for part, errors in (("interval", 2), ("core", 1)):
                ends = visual(pc, f"{part}_{look}", query=query).get_xdata()
                ends = np.sort(ends[np.isfinite(ends)])
                value, error = one["influence"].values[some], one["mcse"].values[some]
                both = np.concatenate([value - errors * error, value + errors * error])
                np.testing.assert_allclose(ends, np.sort(both))
        assert visual(pc, "interval_raises", query=query).get_linestyle() == "-"
        assert visual(pc, "interval_unresolved", query=query).get_linestyle() == "--"
        assert visual(pc, "zero", query=query).get_xdata()[0] == 0
    assert to_hex(pc.viz["figure"].item().get_facecolor()) == colors.paper


def test_forest_of_few_rows_lists_each_once():
    pc = plot_forest(table(1, 3), k=3, backend="matplotlib")
    assert sorted(labels(panel(pc, query="q0"), "y")) == ["100", "101", "102"]
    nothing = table(1, 3)
    nothing["influence"] = 0 * nothing["influence"]
    assert labels(panel(plot_forest(nothing, backend="matplotlib"), query="q0"), "y") == []


def test_forest_names_labels_and_criterion(run):
    ax = panel(plot_forest(run, "q0", 2, backend="matplotlib"), query="q0")
    assert ax.get_title() == "q0 · digit 2 · guess: digit 7"
    assert labels(ax, "y")[-1] == "112 · digit 2"
    assert "not resolved at a false discovery rate of 5%" in ax.get_xlabel()
    assert ax.get_xlabel().startswith("influence, per unit of weight")


@pytest.mark.parametrize("rows", [10, 10_000])
def test_any_number_of_rows(rows):
    some = table(2, rows)
    best = best_of(some, "q1", 5)
    pc = plot_forest(some, "q1", 5, backend="matplotlib")
    signs = xr.DataArray([1, -1], dims="direction")
    listed = best["train"].values[(signs * best["influence"] > 0).transpose(*best["train"].dims)]
    assert set(labels(panel(pc, query="q1"), "y")) == {str(row) for row in listed}
    ax = panel(plot_heatmap(some, k=8, backend="matplotlib"))
    left = ax.get_title()
    assert left == f"8 of {rows:,} training rows, the strongest"
    assert len(labels(ax, "x")) == 8
    growing = xr.concat([some, 2 * some], xr.DataArray([50, 100], dims="draws", name="draws"))
    growing["resolved"] = abs(growing["influence"]) > 0.5
    pc = plot_convergence(growing, "q1", 1, backend="matplotlib")
    strongest = abs(some["influence"].sel(query="q1")).max()
    assert abs(visual(pc, "dashed_0", query="q1").get_ydata()[-1]) == 2 * strongest


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_cells_are_full_where_resolved_and_small_elsewhere(theme):
    some = table(4, 6)
    pc = plot_heatmap(some, theme=theme, limit=2.0, backend="matplotlib")
    image = visual(pc, "cells")
    drawn = image.get_array().filled(np.nan).reshape(4, 5, 6, 5)[::-1]
    resolved = discovered(some, 0.05)
    np.testing.assert_array_equal(drawn[:, 2, :, 2], some["influence"].values)
    np.testing.assert_array_equal(np.isfinite(drawn[:, 0, :, 0]), resolved)
    assert 0 < resolved.sum() < resolved.size
    assert image.get_clim() == (-2, 2)
    colors, ends = get_theme(theme), image.get_cmap()([0.0, 1.0])
    assert [to_hex(color) for color in ends] == [colors.lowers, colors.raises]
    assert labels(panel(pc), "y") == ["q0", "q1", "q2", "q3"]
    assert panel(pc).get_yticks().tolist() == [3, 2, 1, 0]


def test_rows_of_a_kind_stand_together():
    some, kinds = table(2, 6), np.array(["b", "a", "b", "a", "c", "a"])
    pc = plot_heatmap(some, labels={"train": kinds}, backend="matplotlib")
    order = np.argsort(kinds, kind="stable")
    middle = visual(pc, "cells").get_array().filled(np.nan)[2::5, 2::5][::-1]
    np.testing.assert_array_equal(middle, some["influence"].values[:, order])
    assert labels(panel(pc), "x") == ["a", "b", "c"]
    assert panel(pc).get_xticks().tolist() == [1, 3.5, 5]
    lines = [line.get_xdata()[0] for line in panel(pc).lines]
    assert lines == [2.5, 4.5]


def test_rows_named_are_drawn_in_their_order_and_resolved_among_all():
    some = table(3, 50)
    pc = plot_heatmap(some, ["q2", "q0"], [103, "101"], backend="matplotlib")
    drawn = visual(pc, "cells").get_array().filled(np.nan)[::-1]
    expected = some.sel(query=["q2", "q0"], train=[103, 101])["influence"].values
    np.testing.assert_array_equal(drawn[2::5, 2::5], expected)
    found = discovered(some, 0.05)[[2, 0]][:, [3, 1]]
    np.testing.assert_array_equal(np.isfinite(drawn[::5, ::5]), found)


def test_the_strongest_are_those_with_the_largest_resolved_scores():
    some = table(2, 20)
    some["mcse"][:, 3] = 50.0
    some["influence"][:, 3] = 40.0  # large and unresolved
    some["influence"][:, 7] = 9.0
    ax = panel(plot_heatmap(some, k=2, backend="matplotlib"))
    assert "107" in labels(ax, "x")
    assert "103" not in labels(ax, "x")


def test_over_draws_are_the_scores_of_the_first_draws(run):
    found = bif.over_draws(run, points=[50, 200])
    for draws in (50, 200):
        part = group(run, "log_likelihood").isel(draw=slice(draws))
        expected = bif.influence({"log_likelihood": part})
        np.testing.assert_array_equal(found["influence"].sel(draws=draws), expected["influence"])
        np.testing.assert_array_equal(found["mcse"].sel(draws=draws), expected["mcse"])
    assert bif.over_draws(run, points=30)["draws"].values[0] >= 10


def test_over_draws_leaves_diverged_chains_out_from_the_start():
    run = make_run(diverged=True)
    found = bif.over_draws(run, points=[50])
    assert found.attrs["chains_used"] == [0, 1, 2]


@pytest.mark.parametrize("points", [0, [300], [5], []])
def test_draws_that_are_not_there(run, points):
    with pytest.raises(ValueError, match="points must be"):
        bif.over_draws(run, points=points)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_convergence_draws_estimates_bands_and_what_is_resolved(run, theme):
    pc = plot_convergence(run, ["q3", "q1"], 5, theme=theme, backend="matplotlib")
    found = bif.over_draws(run)
    for query in ("q3", "q1"):
        one = found.sel(query=query)
        order = np.argsort(-abs(one["influence"].isel(draws=-1).values), kind="stable")[:5]
        for rank, row in enumerate(order):
            value, error = (one[of].isel(train=row).values for of in ("influence", "mcse"))
            known = one["resolved"].isel(train=row).values
            line = visual(pc, f"dashed_{rank}", query=query)
            np.testing.assert_array_equal(line.get_xdata(), found["draws"])
            np.testing.assert_array_equal(line.get_ydata(), value)
            solid = visual(pc, f"solid_{rank}", query=query)
            if known.any():
                shown = np.isfinite(np.ma.filled(solid.get_ydata(), np.nan))
                np.testing.assert_array_equal(shown, known)
            corners = visual(pc, f"band_{rank}", query=query).get_paths()[0].vertices[:, 1]
            assert corners.max() == pytest.approx((value + 2 * error).max())
            assert corners.min() == pytest.approx((value - 2 * error).min())
        texts = [text.get_text() for text in panel(pc, query=query).texts]
        assert [text.split(":")[0] for text in texts] == [
            str(found["train"][i].item()) for i in order
        ]


def test_labels_of_curves_do_not_lie_on_each_other(run):
    ax = panel(plot_convergence(run, "q1", backend="matplotlib"), query="q1")
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(above.y0 >= below.y1 - 1 for below, above in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= ax.get_window_extent().x1 + 1


@pytest.mark.parametrize("backend", NEEDS)
@pytest.mark.parametrize("plot", PLOTS)
def test_each_backend_draws_and_saves(run, plot, backend, tmp_path):
    if not all(map(find_spec, NEEDS[backend])):
        pytest.skip(f"{backend} is not installed")
    pc = PLOTS[plot](run, backend=backend, theme="dark")
    assert pc.backend == backend
    where = tmp_path / ("it.png" if backend == "matplotlib" else "it.html")
    pc.savefig(where)
    assert where.stat().st_size > 1000


def test_points_say_what_they_are_in_plotly(scores):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    points = visual(plot_forest(scores, "q0", 3, backend="plotly"), "point_raises", query="q0")
    best = best_of(scores, "q0", 3).sel(direction="raises").isel(query=0)
    first = best.isel(rank=0)
    said = score_text(float(first["influence"]), float(first["mcse"]))
    assert points.text[0] == f"{first['train'].item()}: {said}"
    named = kernel().assign_coords(point=[f"row {i}" for i in range(30)])
    pc = plot_embedding(named, np.arange(30) % 10, backend="plotly")
    assert list(pc.get_viz("points_3", "embedding").text) == ["row 3", "row 13", "row 23"]


def test_a_collection_of_ones_own_is_drawn_on(scores):
    data = scores[["influence"]].sel(query=["q0", "q3"])
    mine = azp.PlotCollection.wrap(data, cols=["query"], backend="matplotlib")
    assert plot_forest(scores, ["q0", "q3"], plot_collection=mine) is mine
    assert panel(mine, query="q3").collections
    with pytest.raises(ValueError, match=r"a panel for each query of \['q3'\], in this"):
        plot_forest(scores, "q3", plot_collection=mine)
    with pytest.raises(ValueError, match="must have a single panel"):
        plot_heatmap(scores, plot_collection=mine)


@pytest.mark.parametrize(
    ("plot", "arguments", "message"),
    [
        (plot_forest, {"query": "nobody"}, "no query named nobody"),
        (plot_forest, {"query": ["q0", "q0"]}, "q0 came twice: name it once"),
        (plot_forest, {"k": 0}, "k must be at least 1; got 0"),
        (plot_forest, {"backend": "gnuplot"}, "backend must be one of matplotlib, plotly, bokeh"),
        (plot_forest, {"theme": "sepia"}, "theme must be one of"),
        (plot_heatmap, {"train": [7]}, "no training row named 7; the run scored 100, 101"),
        (plot_heatmap, {"train": []}, "train names no row"),
        (plot_heatmap, {"k": 301}, "k must be between 1 and 300"),
        (plot_heatmap, {"labels": {"train": [1, 2]}}, r"each of the 40 train rows.*shape \(2,\)"),
        (plot_heatmap, {"labels": {"rows": []}}, "labels are of 'query' and 'train'; got 'rows'"),
        (plot_convergence, {"k": 7}, "k must be between 1 and 6.*got 7"),
        (plot_convergence, {}, "expected a run, or what ppl_bif.over_draws made"),
    ],
)
def test_bad_arguments(scores, plot, arguments, message):
    with pytest.raises(ValueError, match=message):
        plot(scores, **arguments)


def test_a_heatmap_needs_all_pairs_and_no_more_than_can_be_told_apart(scores):
    with pytest.raises(ValueError, match="scores of all pairs of query and train"):
        plot_heatmap(bif.top(scores, 2))
    many = table(1, 400)
    with pytest.raises(ValueError, match="at most 300 training rows can be told apart; got 400"):
        plot_heatmap(many, train=many["train"].values)
    with pytest.raises(ValueError, match="too many to look for the strongest: name some queries"):
        plot_heatmap(xr.Dataset({"influence": (("query", "train"), np.empty((8193, 8192), bool))}))


def test_what_is_missing_is_named(run, scores, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_plots.backend.bokeh", None)
    with pytest.raises(ImportError, match=r"pip install 'arviz-plots\[bokeh\]'"):
        plot_forest(scores, backend="bokeh")
    monkeypatch.setitem(sys.modules, "arviz_plots", None)
    for plot in PLOTS.values():
        with pytest.raises(ImportError, match=r"arviz-plots.*pip install 'ppl_bif\[plots\]'"):
            plot(run)


def test_arviz_plots_is_loaded_by_no_import():
    code = (
        "import sys, ppl_bif, ppl_bif.plots\n"
        "print(sorted({'arviz_plots', 'arviz_base', 'matplotlib'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
