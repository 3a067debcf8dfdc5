"""The search of the largest and smallest covariances, held against the whole matrix."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif import search as searching
from ppl_bif import threads as in_parallel
from ppl_bif.blocks import Blocks
from ppl_bif.covariance import block_covariance, compare, compare_pairs, layout, look
from ppl_bif.traces import STRETCH, spread
from tests.series import factors, run_of
from tests.synthetic_run import store_run


def whole(run, k, **options):
    return bif.top(bif.influence(run, shrink=None), k=k, **options)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(searching, "WIDTH", 7)
    monkeypatch.setattr(searching, "HEIGHT", 5)


@st.composite
def runs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    chains, rows, queries = (draw(st.integers(1, most)) for most in (3, 40, 12))
    train = rng.normal(size=(chains, 60, rows)) * 10.0 ** rng.uniform(-25, 3, size=rows)
    query = rng.normal(size=(chains, 60, queries)) * 10.0 ** rng.uniform(-25, 3, size=queries)
    order = draw(st.sampled_from(["as drawn", "rising", "constant rows", "twice"]))
    if order == "rising":
        train = train[..., np.argsort((train[..., :] * query[..., :1]).mean(axis=(0, 1)))]
    if order == "constant rows":
        train[..., ::3] = -1.5
    if order == "twice":
        train[..., -1] = train[..., 0]
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return run_of(train.astype(dtype), query.astype(dtype))


@settings(max_examples=25)
@given(runs(), st.integers(1, 8))
def test_the_same_rows_as_in_the_whole_matrix(run, k):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "WIDTH", 7)
        patch.setattr(searching, "HEIGHT", 5)
        k = min(k, run["log_likelihood"].sizes["train"])
        found, wanted = bif.top(run, k=k, shrink=None), whole(run, k)
    single = run["log_likelihood"]["train_obs"].dtype == np.float32
    scale = np.abs(wanted["influence"]).max(["direction", "rank"])
    near = 1e-4 if single else 1e-10
    for name in ("influence", "mcse"):
        assert float((np.abs(found[name] - wanted[name]) / scale.where(scale > 0, 1)).max()) < near
    assert found.attrs == wanted.attrs
    if not single:
        same = found["train"] == wanted["train"]
        tied = np.abs(found["influence"] - wanted["influence"]) <= near * scale
        assert bool((same | tied).all())


def test_order_resolution_and_ids(small):
    train, query, _ = factors(np.random.default_rng(0), 400, train=90, query=12)
    coords = {"train": [f"row {i}" for i in range(90)], "query": [f"q{i}" for i in range(12)]}
    run = run_of(train, query, coords=coords, attrs={"inverse_temperature": 3.0})
    found = bif.top(run, k=6)
    xr.testing.assert_allclose(found, whole(run, 6))
    assert bool(found["resolved"].any())
    assert found.attrs["shrink"] == "none"


def test_pairs_are_entries_of_all():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 3, 101, 9)).astype(np.float32)
    where = layout(3, 101, 6, 1.7)
    rows, explained = look(a, 6), look(b, 6)
    every = compare(rows, explained, where)
    some = np.array([0, 3, 3, 8]), np.array([5, 1, 2, 0])
    pairs = compare_pairs(rows.by_row(), explained.by_row(), some, where)
    for one, table in zip(pairs, every, strict=True):
        np.testing.assert_allclose(one, table[some], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(every, block_covariance(a, b, blocks=6, time=1.7))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_sample_of_rows_resolves_about_what_all_do(share, monkeypatch):
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(4, 200, 1))
    train = rng.normal(size=(4, 200, 3000))
    train[..., : int(share * 3000)] += 0.5 * shared
    run = run_of(train, shared + 0.1 * rng.normal(size=(4, 200, 40)))
    every = whole(run, 200)
    monkeypatch.setattr(searching, "SAMPLE", 400)
    some = bif.top(run, k=200, shrink=None)
    assert float(some["resolved"].mean()) <= float(every["resolved"].mean()) + 0.01
    raises = some["resolved"].sel(direction="raises")
    assert float(raises.mean()) > 0.9 if share else float(raises.mean()) < 0.01


@pytest.mark.parametrize("width", [5, 16, 100])
def test_every_row_is_read_once_and_the_matrix_is_never_there(width, small):
    train, query, _ = factors(np.random.default_rng(0), 60, train=40, query=5)
    read = []

    def rows(part):
        read.append((part.start, part.stop))
        return train[..., part]

    best = searching.search(
        rows, lambda part: query[..., part], (40, 5), 3, Blocks(4, 1.0), fdr=0.05, width=width
    )
    assert best.row.shape == (5, 2, 3)
    assert read == [(start, min(start + width, 40)) for start in range(0, 40, width)]


def test_too_many_are_asked_for():
    train, query, _ = factors(np.random.default_rng(0), 60, train=40, query=5)
    with pytest.raises(ValueError, match="at most the 40 training rows; got 41"):
        bif.top(run_of(train, query), k=41)


def test_memory_does_not_grow_with_the_rows(monkeypatch):
    monkeypatch.setattr(searching, "SAMPLE", 500)
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 20, 50)).astype(np.float32)
    most = []
    for rows in (4_000, 40_000):
        run = run_of(rng.normal(size=(2, 20, rows)).astype(np.float32), query)
        tracemalloc.start()
        bif.top(run, k=5, shrink=None)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < 1.2 * most[0]
    assert most[1] < 0.4 * 8 * 50 * 40_000


@settings(max_examples=50)
@given(st.integers(1, 10**6), st.integers(1, 3000), st.integers(1, 40))
def test_rows_that_stand_for_all_come_from_few_stretches(rows, most, stretches):
    chosen = spread(rows, most, stretches)
    assert 0 < len(chosen) <= most
    assert (np.diff(chosen) > 0).all()
    assert 0 <= chosen[0] <= chosen[-1] < rows
    if rows > max(stretches * STRETCH, most):
        assert len(np.unique(chosen // STRETCH)) <= stretches


def test_a_run_on_disk_is_searched_as_one_in_memory(tmp_path):
    train, query, _ = factors(np.random.default_rng(0), 20, train=9000, query=5)
    ids = {"train": np.arange(9000), "query": np.arange(5)}
    run = run_of(train, query, coords=ids, attrs={"fingerprint": "0", "draws": 20})
    on_disk = bif.open_store(store_run(run, tmp_path / "run.zarr"))
    xr.testing.assert_allclose(bif.top(on_disk, shrink=None), bif.top(run, shrink=None))


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_in_a_thread_ahead_are_passed_on(threads, monkeypatch):
    monkeypatch.setattr(in_parallel, "_allowed", lambda: threads)

    def items():
        yield 1
        raise ValueError("no more")

    passed = in_parallel.ahead(items())
    assert next(passed) == 1
    with pytest.raises(ValueError, match="no more"):
        next(passed)
