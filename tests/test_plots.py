"""The plots say what the scores say: ids, labels, errors, and what is not resolved."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import xarray as xr

from ppl_bif.diagnostics import diagnose
from ppl_bif.plots import (
    plot_diagnosis,
    plot_embedding,
    plot_lds,
    plot_over_checkpoints,
    plot_top,
)
from ppl_bif.plots.captions import score_lines, score_text, shorten
from ppl_bif.plots.choose import best_of
from ppl_bif.plots.gallery import gallery
from ppl_bif.ranking import top
from ppl_bif.schema import group, inference_data
from ppl_bif.scores import influence
from tests.synthetic_run import QUERY_IDS, make_run

pytest.importorskip("matplotlib")

GROUPS = ("log_likelihood", "constant_data")


@pytest.fixture(scope="module")
def run():
    return make_run()


@pytest.fixture(scope="module")
def scores(run):
    return influence(run)


def texts(figure):
    """All text of a figure that is not empty."""
    from matplotlib.text import Text

    figure.canvas.draw()
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def shown(figure):
    return [ax.images[0].get_array() for ax in figure.axes if ax.images]


def frames(figure):
    return [
        (ax.spines["top"].get_linestyle(), ax.spines["top"].get_edgecolor())
        for ax in figure.axes
        if ax.images
    ]


def test_captions_name_rows_labels_scores_and_errors(run, scores):
    figure = plot_top(scores, idata=run, query=["q0"], k=3)
    best, found = top(scores.sel(query=["q0"]), 3), texts(figure)
    for cell in (best.isel(query=0, direction=d, rank=r) for d in (0, 1) for r in range(3)):
        lines = [str(cell["train"].item()), *score_lines(float(cell.influence), float(cell.mcse))]
        caption = next(text for text in found if text.split("\n")[0] == lines[0])
        assert caption.split("\n")[2:4] == lines[1:]
        assert caption.split("\n")[1].startswith("digit ")
        assert caption.endswith("unresolved") == (not bool(cell["resolved"]))


def test_pictures_belong_to_the_ids_in_their_captions(run, scores):
    figure = plot_top(scores, idata=run, query=["q3"], k=2)
    best = top(scores.sel(query=["q3"]), 2)
    rows = [int(i) - 100 for i in best["train"].values.ravel()]
    truth = run["constant_data"]["train_image"].values
    for picture, row in zip(shown(figure)[1:], rows, strict=True):
        np.testing.assert_array_equal(picture, np.round(truth[row] / 16 * 255))


def test_unresolved_pictures_are_faint_and_dashed_and_resolved_ones_are_not(run, scores):
    figure = plot_top(scores, idata=run, query=["q0"], k=5)
    resolved = top(scores.sel(query=["q0"]), 5)["resolved"].values.ravel()
    assert 0 < resolved.sum() < resolved.size
    assert [style == "-" for style, _ in frames(figure)[1:]] == resolved.tolist()


def test_directions_differ_in_colour_and_in_words(run):
    truth = top(influence(run), 2).assign(resolved=lambda best: xr.ones_like(best["resolved"]))
    figure = plot_top(truth, idata=run, query=["q0"], k=2)
    colours = [colour for _, colour in frames(figure)[1:]]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert {"raises its log-likelihood", "lowers its log-likelihood"} <= set(texts(figure))


def test_a_wrong_prediction_is_told(run, scores):
    assert any("guess: digit 7" in text for text in texts(plot_top(scores, idata=run)))


def test_without_pictures_there_is_the_forest():
    with pytest.raises(ValueError, match=r"pass train_images=, or draw .* by bif\.plot_forest"):
        plot_top(make_run(pictures=False))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_any_canvas_saves_it(run, scores, theme):
    for figure in (
        plot_top(scores, idata=run, theme=theme),
        plot_diagnosis(diagnose(run, verbose=False), run, theme=theme),
    ):
        for kind in ("png", "svg", "pdf"):
            buffer = BytesIO()
            figure.savefig(buffer, format=kind)
            assert buffer.tell() > 1000


def test_a_notebook_shows_it_without_pyplot(run, scores):
    assert plot_top(scores, idata=run, query="q0")._repr_png_().startswith(b"\x89PNG")


def test_a_run_alone_is_enough_and_five_queries_are_shown(run):
    assert len(shown(plot_top(run, k=1))) == 5 * 3


def test_training_rows_explained_have_their_own_pictures_and_labels(run):
    scores, data = influence(run, query="train_obs"), group(run, "constant_data")
    for shown_scores in (scores, top(scores, 2)):
        figure = plot_top(shown_scores, idata=run, query=[103], k=2)
        expected = np.round(data["train_image"].values[3] / 16 * 255)
        np.testing.assert_array_equal(shown(figure)[0], expected)
        label = f"digit {data['train_target'].values[3]}"
        assert any(text.split("\n")[:2] == ["103", label] for text in texts(figure))


def test_rows_of_a_run_without_ids_are_not_taken_for_queries(run):
    """Pictures of six queries are none of forty training rows."""
    nameless = {name: group(run, name).drop_vars(["train", "query"]) for name in GROUPS}
    bare = inference_data(nameless, {})
    figure = plot_top(influence(bare, query="train_obs"), idata=bare, query=[3], k=1)
    assert len(shown(figure)) == 3


def test_groups_and_parameters_have_no_pictures(run):
    groups = influence(run, groups=np.arange(40) % 4 + 100)
    with pytest.raises(ValueError, match="no pictures of the training rows"):
        plot_top(groups, idata=run, k=1)


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_pictures_of_every_kind(scores, channels, dtype):
    images = np.arange(40 * 4 * np.prod((4, *channels))).reshape(40, 4, 4, *channels)
    images = images.astype(dtype)
    figure = plot_top(scores, query=["q0"], k=2, train_images=images)
    assert len(shown(figure)) == 4  # the query has no picture, its training rows do
    assert "no picture" in texts(figure)


def test_arrays_follow_the_rows_of_the_scores(run, scores):
    images = run["constant_data"]["train_image"]
    by_id = plot_top(scores, query="q0", k=2, train_images=images[::-1])
    by_order = plot_top(scores, query="q0", k=2, train_images=images.values)
    for one, other in zip(shown(by_id), shown(by_order), strict=True):
        np.testing.assert_array_equal(one, other)


def test_lazy_scores_are_computed_for_the_queries_asked_for_only(scores):
    lazy = scores.chunk(query=1)
    best = best_of(lazy, "q0", 3)
    xr.testing.assert_equal(best, best_of(scores, "q0", 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": "nobody"}, "no query named nobody; the run scored q0, q1"),
        ({"query": []}, "names no row"),
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"theme": "sepia"}, "theme must be one of"),
        ({"train_images": np.zeros((40, 64))}, r"shape \(row, y, x\).*got \(40, 64\)"),
        ({"train_images": np.zeros((40, 3, 8, 8))}, "move the channels to the end"),
        ({"train_images": np.zeros((7, 8, 8))}, "one picture per train row, 40 in all; got 7"),
    ],
)
def test_bad_arguments(scores, arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_top(scores, **{"train_images": np.zeros((40, 8, 8))} | arguments)


def test_pictures_that_name_no_rows_are_refused(scores):
    with pytest.raises(ValueError, match="do not say which row each belongs to"):
        plot_top(top(scores, 3), train_images=np.zeros((40, 8, 8)))


def test_diagnosis_shows_each_chain_the_trained_weights_and_medians(run):
    check = diagnose(run, verbose=False)
    found = texts(plot_diagnosis(check, run))
    assert {"chain 0", "chain 3", "trained weights"} <= set(found)
    train = check["rhat"].where(check["group"] == "train").median().item()
    assert f"train: median {train:.3f}" in found


def test_diagnosis_marks_a_diverged_chain():
    run = make_run(diverged=True)
    figure = plot_diagnosis(diagnose(run, verbose=False), run)
    assert "chain 3 (diverged)" in texts(figure)


def test_diagnosis_without_a_run_or_with_nothing_measured(run):
    check = diagnose(run, verbose=False)
    assert len(plot_diagnosis(check).axes) == 3
    unknown = check.assign(rhat=check["rhat"] * np.nan)
    assert any("not available" in text for text in texts(plot_diagnosis(unknown)))


def test_diagnosis_refuses_scores(scores):
    with pytest.raises(ValueError, match=r"expected what ppl_bif\.diagnose returns"):
        plot_diagnosis(scores)


@pytest.mark.parametrize(
    ("score", "error", "text"),
    [
        (1.5, 0.25, "+1.50 ± 0.25"),
        (-12.3456, 1.2, "−12.3 ± 1.2"),
        (1234.5, 210.0, "+1234 ± 210"),
        (3.2e-6, 1.1e-6, "(+3.2 ± 1.1)e−6"),
        (2.5e7, 1e6, "(+2.50 ± 0.10)e7"),
        (0.0, 0.0, "+0.00 ± 0.00"),
        (0.001, 12.0, "+0 ± 12"),
        (0.5, np.nan, "+0.50 ± ?"),
        (np.nan, 0.1, "not finite ± ?"),
    ],
)
def test_scores_in_words(score, error, text):
    assert score_text(score, error) == text


@pytest.mark.parametrize("width", [3, 4, 8, 9])
def test_shortened_ids_fit(width):
    assert len(shorten("a long identifier", width)) == width
    assert shorten("ab", width) == "ab"


def test_labels_without_class_names(run):
    constant = group(run, "constant_data").drop_vars(["class_name", "query_prediction"])
    rows = gallery({"constant_data": constant}, "query")
    assert rows.label("q0") == ("2",)
    assert rows.label("stranger") == ()
    assert rows.image("stranger") is None
    assert [len(rows.label(q)) for q in QUERY_IDS] == [1] * 6


def test_no_pyplot_and_no_framework_is_loaded():
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import ppl_bif.plots, ppl_bif.cli\n"
        "print(sorted({'torch', 'jax', 'matplotlib'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def compared():
    names = ["ours", "theirs", "chance"]
    own = {"lds": [0.4, 0.5, 0.0], "low": [0.3, 0.45, -0.1], "high": [0.5, 0.55, 0.1]}
    apart = np.array([[0, -0.1, 0.4], [0.1, 0, 0.5], [-0.4, -0.5, 0]])
    found = {name: ("attributor", values) for name, values in own.items()}
    for name, shift in (("difference", 0), ("difference_low", -0.05), ("difference_high", 0.05)):
        found[name] = (("attributor", "other"), apart + shift)
    return xr.Dataset(found, coords={"attributor": names, "other": names})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lds_are_drawn_best_first_with_their_distance_from_the_reference(theme):
    pc = plot_lds(
        compared(), reference="ours", ceiling=0.8, title="digits", theme=theme, backend="matplotlib"
    )
    ax = pc.viz["plot"].item()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["chance", "ours", "theirs"]
    ends, points = {}, {}
    for look in ("reference", "others"):
        line = pc.get_viz(f"interval_{look}", "lds")
        found = np.stack(line.get_data(), axis=-1)
        ends[look] = found[np.isfinite(found[:, 0])].tolist()
        places = np.ma.filled(pc.get_viz(f"point_{look}", "lds").get_offsets(), np.nan)
        points[look] = places[np.isfinite(places[:, 0])].tolist()
    assert ends["reference"] == [[0.3, 1], [0.5, 1]]
    assert ends["others"] == [[0.45, 2], [0.55, 2], [-0.1, 0], [0.1, 0]]
    assert points == {"reference": [[0.4, 1]], "others": [[0.5, 2], [0.0, 0]]}
    assert pc.get_viz("ceiling", "lds").get_xdata()[0] == 0.8
    assert {text.strip() for text in texts(ax.figure)} >= {
        "+0.100 (+0.050 … +0.150)",
        "-0.400 (-0.450 … -0.350)",
        "reference",
        "ceiling",
        "digits",
    }
    ax.figure.canvas.draw()
    reach = max(text.get_window_extent().x1 for text in ax.texts)
    assert reach <= ax.get_window_extent().x1 + 1


def test_what_is_no_comparison_is_not_drawn():
    with pytest.raises(ValueError, match=r"evaluation\.compare"):
        plot_lds(xr.Dataset())
    with pytest.raises(ValueError, match="'another' is not among"):
        plot_lds(compared(), reference="another")


def kernel():
    place = np.random.default_rng(0).normal(size=(30, 2))
    shares = {"variance": ("axis", [0.5, 0.25]), "variance_checked": ("axis", [0.4, 0.02])}
    return xr.Dataset({"embedding": (("point", "axis"), place), **shares})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_kinds_of_points_are_named_in_their_midst_and_look_each_its_own_way(theme):
    found = kernel()
    kinds = np.arange(30) % 10
    pc = plot_embedding(found, kinds, title="digits", theme=theme, backend="matplotlib")
    ax = pc.viz["plot"].item()
    assert [text.get_text() for text in ax.texts] == [str(kind) for kind in range(10)]
    middle = np.median(found["embedding"].values[kinds == 4], axis=0)
    np.testing.assert_allclose(ax.texts[4].get_position(), middle)
    looks = {
        (tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes())
        for dots in ax.collections
    }
    assert len(looks) == 10
    assert ax.get_ylabel() == "axis 2: 25.0% of squared distance (2.0% checked)"
    assert ax.get_title() == "digits"


def test_a_map_needs_an_embedding_and_labels_that_fit():
    pc = plot_embedding(kernel()[["embedding"]], backend="matplotlib")
    places = pc.get_viz("points_0", "embedding").get_offsets()
    np.testing.assert_array_equal(places, kernel()["embedding"])
    with pytest.raises(ValueError, match=r"expected what ppl_bif\.loss_kernel returns"):
        plot_embedding(kernel().drop_vars("embedding"))
    with pytest.raises(ValueError, match=r"each of 30 points; got shape \(3,\)"):
        plot_embedding(kernel(), [0, 1, 2])
    with pytest.raises(ValueError, match="at most 24 kinds, to be told apart; got 30"):
        plot_embedding(kernel(), np.arange(30))


def over_checkpoints(checkpoints=(0, 10, 100)):
    value = np.array([[0.1, 1.0], [np.nan, np.nan], [0.9, -1.0]])
    dims = ("checkpoint", "query", "train")
    return xr.Dataset(
        {"influence": (dims, value[:, None]), "mcse": (dims, np.full((3, 1, 2), 0.2))},
        coords={"checkpoint": list(checkpoints), "query": ["q"], "train": [7, 8]},
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_curves_have_bands_of_two_errors_and_hollow_points_where_unresolved(theme):
    pc = plot_over_checkpoints(
        over_checkpoints(), labels=["a 3", "a 5"], theme=theme, backend="matplotlib"
    )

    def drawn(name):
        return pc.get_viz(name, "influence")

    np.testing.assert_array_equal(drawn("line_0").get_xdata(), [0, 10, 100])
    np.testing.assert_array_equal(drawn("line_0").get_ydata(), [0.1, np.nan, 0.9])
    resolved, unresolved = drawn("resolved_0"), drawn("unresolved_0")
    for points, at in ((resolved, 100), (unresolved, 0)):
        places = np.ma.filled(points.get_offsets(), np.nan)
        assert places[np.isfinite(places[:, 1]), 0].tolist() == [at]
    assert tuple(unresolved.get_facecolor()[0]) != tuple(resolved.get_facecolor()[0])
    corners = drawn("band_0").get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.1 - 0.4)
    found = texts(pc.viz["figure"].item())
    assert {"a 3", "a 5", "influence (nats per unit of weight) ± 2 errors"} <= set(found)


def test_named_checkpoints_lie_side_by_side_and_one_curve_needs_no_name():
    one = over_checkpoints(["start", "middle", "end"]).isel(train=0)
    ax = plot_over_checkpoints(one, backend="matplotlib").viz["plot"].item()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["start", "middle", "end"]
    assert not ax.texts
    coefficient = one.squeeze(drop=True).rename(influence="learning_coefficient")
    pc = plot_over_checkpoints(coefficient, title="digits", backend="matplotlib")
    ax = pc.viz["plot"].item()
    assert ax.get_ylabel() == "learning coefficient ± 2 errors"
    assert ax.get_title() == "digits"


def test_checkpoints_by_their_logarithm():
    pc = plot_over_checkpoints(over_checkpoints([1, 10, 100]), spacing="log", backend="matplotlib")
    np.testing.assert_allclose(pc.get_viz("line_1", "influence").get_xdata(), [0, 1, 2])
    ax = pc.viz["plot"].item()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "10", "100"]
    with pytest.raises(ValueError, match=r"positive numbers; got \[0, 10, 100\]"):
        plot_over_checkpoints(over_checkpoints(), spacing="log")
    with pytest.raises(ValueError, match="spacing must be 'linear' or 'log'; got 'even'"):
        plot_over_checkpoints(over_checkpoints(), spacing="even")


def test_curves_that_cannot_be_told_apart_are_not_drawn():
    found = over_checkpoints()
    with pytest.raises(ValueError, match=r"over_checkpoints returns.*'influence'"):
        plot_over_checkpoints(xr.Dataset())
    with pytest.raises(ValueError, match=r"choose curves along one of them.*found\.sel"):
        plot_over_checkpoints(xr.concat([found, found], "query", data_vars="all"))
    with pytest.raises(ValueError, match=r"got 14: choose some, such as found\.isel\(train="):
        plot_over_checkpoints(xr.concat([found] * 7, "train", data_vars="all"))
    with pytest.raises(ValueError, match="labels must name 2 curves; got 1"):
        plot_over_checkpoints(found, labels=["a"])
    with pytest.raises(ValueError, match="'mcse' must have an error for each 'influence'"):
        plot_over_checkpoints(found.assign(mcse=found["mcse"].isel(train=0)))
