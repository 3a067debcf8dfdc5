"""The rows listed for each query: their order, their ids and what is called resolved."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import false_discovery_control
from scipy.stats import t as student

import ppl_bif as bif
from tests.conjugate import regression
from tests.series import factors, run_of


def table(value, mcse=None, *, train=None, blocks=80):
    value = np.asarray(value, float)
    mcse = np.ones_like(value) if mcse is None else np.asarray(mcse, float)
    names = np.arange(value.shape[1]) if train is None else train
    dims = ("query", "train")
    return xr.Dataset(
        {"influence": (dims, value), "mcse": (dims, mcse)},
        coords={"query": [f"q{i}" for i in range(len(value))], "train": names},
        attrs={"blocks": blocks, "kind": "covariance"},
    )


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    value = rng.normal(size=shape) * draw(st.sampled_from([0.1, 3.0, 10.0]))
    if draw(st.booleans()):
        value = value.round()
    names = rng.permutation(1000)[: shape[1]]
    names = [f"row {i}" for i in names] if draw(st.booleans()) else names
    return table(value, rng.uniform(0.5, 2, size=shape), train=names)


@given(tables(), st.integers(1, 12))
def test_order_ids_and_errors(scores, k):
    k = min(k, scores.sizes["train"])
    best = bif.top(scores, k=k)
    assert best["train"].dims == ("query", "direction", "rank")
    assert best["direction"].values.tolist() == ["raises", "lowers"]
    assert best["query"].values.tolist() == scores["query"].values.tolist()
    for query, direction in np.ndindex(scores.sizes["query"], 2):
        sign = (1, -1)[direction]
        value = sign * scores["influence"].values[query]
        listed = best.isel(query=query, direction=direction)
        np.testing.assert_array_equal(sign * listed["influence"], np.sort(value)[::-1][:k])
        ids = listed["train"].values.tolist()
        assert len(set(ids)) == k
        for name in ("influence", "mcse"):
            wanted = scores[name].isel(query=query).sel(train=ids)
            np.testing.assert_array_equal(listed[name], wanted)


@given(tables(), st.sampled_from([0.01, 0.05, 0.2]))
def test_resolved_is_what_benjamini_and_hochberg_find(scores, fdr):
    rows = scores.sizes["train"]
    best = bif.top(scores, k=rows, fdr=fdr)
    z = scores["influence"].values / scores["mcse"].values
    p = 2 * student.sf(np.abs(z), scores.attrs["blocks"] - 1)
    found = xr.DataArray(false_discovery_control(p, axis=1) <= fdr, scores["influence"].coords)
    for query, direction in np.ndindex(scores.sizes["query"], 2):
        listed = best.isel(query=query, direction=direction)
        right = (1, -1)[direction] * listed["influence"].values > 0
        wanted = found.isel(query=query).sel(train=listed["train"].values).values & right
        np.testing.assert_array_equal(listed["resolved"], wanted)


def test_chance_alone_resolves_little():
    rng = np.random.default_rng(0)
    best = bif.top(table(rng.normal(size=(400, 100))), k=10)
    listed = best["resolved"].any(["direction", "rank"])
    assert float(listed.mean()) < 0.1


def test_few_blocks_make_it_harder():
    scores = table([[4.0, 0.1, 0.2, -0.1]])
    few = scores.assign_attrs(blocks=3)
    assert bif.top(scores, k=1)["resolved"].values[0, 0, 0]
    assert not bif.top(few, k=1)["resolved"].values[0, 0, 0]


def test_rows_of_the_other_sign_are_not_resolved():
    best = bif.top(table([[30.0, 20.0, 10.0]]), k=3)
    assert best["resolved"].values.tolist() == [[[True] * 3, [False] * 3]]


def test_ties_and_nothing():
    best = bif.top(table([[1.0, 1.0, 1.0, 0.0]], np.zeros((1, 4))), k=3)
    raises, lowers = best["train"].values[0].tolist()
    assert sorted(raises) == [0, 1, 2]
    assert lowers[0] == 3
    assert not best["resolved"].any()


def test_a_run_is_asked_for_its_scores():
    train, query, _ = factors(np.random.default_rng(0), 200)
    run = run_of(train, query, attrs={"inverse_temperature": 2.0})
    best = bif.top(run, k=4, fdr=0.1)
    xr.testing.assert_allclose(best, bif.top(bif.influence(run), k=4, fdr=0.1))
    assert best.attrs["k"] == 4
    assert best.attrs["fdr"] == 0.1
    assert best.attrs["inverse_temperature"] == 2.0


@pytest.mark.parametrize("shrink", [None, "eb"])
def test_a_run_is_asked_for_groups_and_observables(shrink):
    run = regression().draws(draws=200)
    asked = {"groups": np.arange(40) % 8, "shrink": shrink}
    for observable in ("slope", ["slope"], lambda posterior: posterior["slope"].sum("at")):
        best = bif.top(run, k=3, observable=observable, **asked)
        scores = bif.influence(run, observable=observable, **asked)
        xr.testing.assert_allclose(best, bif.top(scores, k=3))
        assert set(best["train"].values.ravel()) <= set(range(8))
    with pytest.raises(ValueError, match="at most the 8 training rows"):
        bif.top(run, k=9, observable="slope", **asked)


def test_scores_are_not_asked_for_what_only_a_run_has():
    for asked in ({"groups": [0, 1]}, {"observable": "slope"}):
        with pytest.raises(ValueError, match="are taken of a run, and these are scores"):
            bif.top(table([[1.0, 2.0]]), k=1, **asked)


def test_many_queries_are_done_in_parts(monkeypatch):
    scores = table(np.random.default_rng(0).normal(size=(9, 5)))
    whole = bif.top(scores, k=2)
    monkeypatch.setattr("ppl_bif.ranking.BLOCK_PAIRS", 10)
    xr.testing.assert_identical(bif.top(scores, k=2), whole)


@pytest.mark.parametrize("order", [0, 1])
def test_ids_follow_shuffled_rows(order, monkeypatch):
    # Measured on random pairs of rows, and so on others where they are shuffled.
    for module in ("blocks", "scores"):
        monkeypatch.setattr(f"ppl_bif.{module}.product_time", lambda *_, **__: 2.0)
    train, query, _ = factors(np.random.default_rng(0), 200)
    names = np.array([f"row {i}" for i in range(train.shape[2])])
    mixed = np.random.default_rng(order).permutation(len(names))
    best = bif.top(run_of(train, query, coords={"train": names}), k=5)
    other = bif.top(run_of(train[..., mixed], query, coords={"train": names[mixed]}), k=5)
    np.testing.assert_array_equal(best["train"], other["train"])


def test_shrunk_scores_are_resolved_by_their_false_sign_rates():
    """As often wrong as `fdr` allows, on scores whose rates are exact."""
    rng = np.random.default_rng(5)
    true = rng.normal(size=(40, 500))
    seen = true + rng.normal(size=true.shape)
    mean, sd = seen / 2, np.full(true.shape, np.sqrt(0.5))
    scores = table(mean, sd).assign(false_sign=(("query", "train"), ndtr(-np.abs(mean) / sd)))
    best = bif.top(scores, k=250, fdr=0.05)
    ids = best["train"].values
    sign = np.sign(np.take_along_axis(true[:, None, :], ids, axis=2))
    wrong = sign != np.array([1, -1])[None, :, None]
    listed = best["resolved"].values
    assert 0.1 < listed.mean() < 0.9
    assert abs(wrong[listed].mean() - 0.05) < 0.01
