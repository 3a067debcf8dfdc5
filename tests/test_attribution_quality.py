"""Mislabels, retrieval, planted copies and brittleness, against closed forms."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from ppl_bif.evaluation import (
    brittleness,
    detection,
    flip_labels,
    lds,
    leave_out,
    planted,
    retrain,
    retrieval,
)

ROWS = 40
RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(ROWS, 3)), np.array([1.0, -2.0, 0.5])
Y, XQ = X @ W + RNG.normal(size=ROWS), RNG.normal(size=(6, 3))
YQ = XQ @ W + RNG.normal(size=6)


def fit(rows):
    x = X[rows]
    return np.linalg.solve(x.T @ x + np.eye(3), x.T @ Y[rows])


def train(rows, seed):
    loss = (YQ - XQ @ fit(rows)) ** 2 / 2
    return {"loss": loss, "margin": -loss}


def influence():
    """-d loss of a query / d weight of a row, in closed form."""
    w = fit(np.arange(ROWS))
    gradients, explained = (X @ w - Y)[:, None] * X, (XQ @ w - YQ)[:, None] * XQ
    return explained @ np.linalg.solve(X.T @ X + np.eye(3), gradients.T)


@given(st.integers(2, 5), st.integers(20, 60), st.floats(0.05, 0.6), st.integers(0, 9))
def test_flipped_labels_are_wrong_where_it_is_said_and_nowhere_else(classes, rows, share, seed):
    labels = np.arange(rows) % classes
    flipped, wrong = flip_labels(labels, share, seed=seed)
    np.testing.assert_array_equal(flipped != labels, wrong)
    assert wrong.sum() == max(1, round(share * rows))
    assert flipped.max() < classes


def test_flips_follow_the_confusion():
    labels = np.repeat([0, 1, 2], 2000)
    odds = np.array([[9.0, 1, 3], [0, 5, 1], [1, 0, 5]])
    flipped, wrong = flip_labels(labels, 0.5, confusion=odds, seed=1)
    assert (flipped[wrong & (labels == 1)] == 2).all()
    assert (flipped[wrong & (labels == 2)] == 0).all()
    assert np.mean(flipped[wrong & (labels == 0)] == 2) == pytest.approx(0.75, abs=0.04)


@given(st.integers(2, 20), st.integers(2, 30), st.integers(0, 3), st.integers(0, 99))
def test_auroc_is_the_u_statistic(bad, good, shift, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, size=bad + good) + shift * (np.arange(bad + good) < bad)
    wrong = np.arange(bad + good) < bad
    found = detection(values, wrong, resamples=0)
    u = mannwhitneyu(values[wrong], values[~wrong]).statistic
    assert float(found["auroc"]) == pytest.approx(u / (bad * good))
    assert found["found"].values[-1] == 1


def test_average_precision_and_what_is_found_by_hand():
    found = detection([4.0, 3.0, 2.0, 1.0], [True, False, True, False], resamples=20)
    assert float(found["average_precision"]) == pytest.approx((1 + 2 / 3) / 2)
    assert found["found"].values.tolist() == [0.5, 0.5, 1, 1]
    assert float(found["auroc_low"]) <= float(found["auroc"]) <= float(found["auroc_high"])


def test_retrieval_counts_the_class_of_the_top():
    scores = np.array([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    found = retrieval(scores, [0, 0, 1, 1, 1], [0, 0], k=2, resamples=50)
    assert found["precision"].values.tolist() == [1, 0]
    assert (float(found["mean"]), float(found["chance"])) == (0.5, 0.4)
    assert float(found["low"]) == 0
    with pytest.raises(ValueError, match="k must not be more than the 5"):
        retrieval(scores, [0] * 5, [0, 0], k=6)


def test_copies_that_were_planted_have_a_rank():
    found = planted([[0.1, 0.5, 0.2], [0.9, 0.5, 0.7]], [1, 1])
    assert found["rank"].values.tolist() == [1, 3]
    assert float(found["mean"]) == pytest.approx(2 / 3)
    assert float(found["chance"]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_scores_that_know_nothing_do_as_chance_does():
    found = planted(np.zeros((2, 100)), [5, 7])
    assert found["rank"].values.tolist() == [50.5, 50.5]
    assert float(found["mean"]) == pytest.approx(float(found["chance"]))
    labels = np.arange(100) % 4 == 0
    found = retrieval(np.zeros((2, 100)), labels, [True, False], k=3)
    assert found["precision"].values.tolist() == pytest.approx([0.25, 0.75])
    assert float(found["mean"]) == pytest.approx(float(found["chance"]))


@given(st.integers(1, 6), st.integers(0, 99))
def test_ties_count_by_what_random_order_gives(k, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 3, size=(1, 6)), rng.integers(0, 2, size=6)
    broken = [scores[0] + 0.5 * rng.random(6) for _ in range(4000)]
    orders = np.argsort(-np.array(broken), axis=1)
    expected = (labels[orders[:, :k]] == 1).mean()
    found = retrieval(scores, labels, [1], k=k, resamples=0)
    assert float(found["mean"]) == pytest.approx(expected, abs=0.04)
    ranks = 1 + np.argmax(orders == 2, axis=1)
    found = planted(scores, [2], resamples=0)
    assert float(found["rank"][0]) == pytest.approx(ranks.mean(), abs=0.15)
    assert float(found["reciprocal"][0]) == pytest.approx((1 / ranks).mean(), abs=0.04)


def test_brittleness_is_retraining_without_the_top():
    scores = influence()
    found = brittleness(train, scores, queries=[4, 1], ks=[2, 9], seeds=[0])
    order = np.argsort(-scores[1])
    rest = np.delete(np.arange(ROWS), order[:9])
    told = found["margin"].sel(removed="top", query=1, k=9, seed=0)
    assert float(told) == pytest.approx(train(rest, 0)["margin"][1], rel=1e-5)
    before = found["loss_before"].sel(query=4, seed=0)
    assert float(before) == pytest.approx(train(np.arange(ROWS), 0)["loss"][4], rel=1e-5)
    worse = found["loss"] - found["loss_before"]
    assert (worse.sel(removed="top") > worse.sel(removed="random")).all()
    assert (worse.sel(removed="top", k=9) > worse.sel(removed="top", k=2)).all()


def test_brittleness_says_what_chance_does_and_how_far_it_strays():
    found = brittleness(train, influence(), queries=[1], ks=[9], seeds=[0], chance=3, seed=5)
    rng = np.random.default_rng(5)
    drawn = [train(rng.permutation(ROWS)[9:], 0)["loss"][1] for _ in range(3)]
    assert found["loss"].sel(removed="random").item() == pytest.approx(np.mean(drawn), rel=1e-4)
    assert found["loss_spread"].item() == pytest.approx(np.std(drawn, ddof=1), rel=1e-3)
    made = []
    brittleness(
        lambda rows, seed: made.append(len(rows)) or train(rows, seed),
        influence(),
        queries=[1, 3],
        ks=[9, 2],
    )
    assert len(made) == ((2 + 5) * 2 + 1) * 2


def test_brittleness_finds_rows_by_their_ids():
    ids = {"train": [f"row {i}" for i in range(ROWS)], "query": list("abcdef")}
    scores = xr.DataArray(influence(), ids, ("query", "train"))
    names = {f"{name}_ids": values for name, values in ids.items()}
    settings = {"queries": [1], "ks": [9], "seeds": [0]}
    found = brittleness(train, scores[::-1, ::-1], **settings, **names)
    assert found["query"].values.tolist() == ["b"]
    expected = brittleness(train, influence(), **settings)
    np.testing.assert_array_equal(found["loss"], expected["loss"])
    with pytest.raises(ValueError, match="scores lack query rows"):
        brittleness(train, scores, **settings)


def test_leave_out_correlation_is_that_of_the_closed_form():
    truth = retrain(train, leave_out(ROWS, range(ROWS)), seeds=(0,))
    assert float(lds(influence(), truth, resamples=0)["mean"]) > 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flip_labels([0, 1], 1.5), "fraction must lie"),
        (lambda: flip_labels([0, 1, 0], 0.5, confusion=np.eye(2)), "confused with none"),
        (lambda: detection([1.0, 2.0], [True, True]), "some must be wrong"),
        (lambda: detection([1.0, np.nan], [True, False]), "not finite"),
        (lambda: detection([1.0, 2.0], [1, 0]), "a number and a bool"),
        (lambda: retrieval([[np.inf, 1.0]], [0, 1], [0], k=1), "not all finite"),
        (lambda: planted([[0.0, 1.0]], [0, 1]), "one for each of 1 query"),
        (lambda: planted([[0.0, 1.0]], [-1]), r"rows must be numbers of rows, 0 to 1; got \[-1\]"),
        (lambda: planted([[0.0, 1.0]], [2]), r"rows must be numbers of rows, 0 to 1; got \[2\]"),
        (lambda: planted([[0.0, 1.0]], [0.0]), "rows must be numbers of rows; got float64"),
        (lambda: brittleness(train, influence(), queries=[0], ks=[ROWS]), "below the 40 rows"),
        (lambda: brittleness(train, influence(), queries=[7], ks=[1]), r"queries .* 0 to 5; got"),
        (lambda: brittleness(train, influence(), queries=[-1], ks=[1]), r"queries .* 0 to 5; got"),
        (
            lambda: brittleness(train, influence()[:2], queries=[0], ks=[1]),
            "returned 6 numbers, the scores are of 2 queries",
        ),
        (lambda: brittleness(train, influence(), queries=[0], ks=[1], chance=1), "at least 2"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
