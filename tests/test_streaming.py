"""Sums over blocks of draws in place of traces: the same covariances, errors and diagnosis."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif import sampling
from ppl_bif.blocks import Blocks
from ppl_bif.covariance import block_covariance
from ppl_bif.schema import group
from ppl_bif.streaming import Stream, _estimate, _merged
from tests.test_store import data, fake_run, interrupted, layers

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


def run(backend, store=None, **changes):
    kernel = backend.SGLD(backend.mlp(layers()), step_size=1e-4, batch_size=4, steps_per_draw=2)
    given = {"train": data(30), "query": data(4, seed=1), "chains": 4, "draws": 64, "warmup": 50}
    idata = bif.sample(kernel, store=store, **{**given, "seed": 7, **changes})
    idata.attrs.pop("refused", None)
    return idata


def by_traces(stored, attrs):
    """Covariances with errors from as many blocks as the attributes of scores say."""
    likelihood = group(stored, "log_likelihood")
    blocks, time = attrs["blocks"] // len(attrs["chains_used"]), attrs["product_time"]
    found = block_covariance(
        *(likelihood[name].values for name in ("train_obs", "query_obs")), blocks=blocks, time=time
    )
    return xr.Dataset(
        {
            name: (("query", "train"), v)
            for name, v in zip(("influence", "mcse"), found, strict=True)
        },
        coords={"train": likelihood["train"], "query": likelihood["query"]},
        attrs={"blocks": attrs["blocks"]},
    )


def assert_close(one, other):
    """Values to a thousandth of their error, errors to a thousandth."""
    error = other["mcse"].values
    assert (error > 0).all()
    np.testing.assert_array_less(abs(one["influence"] - other["influence"]), 1e-3 * error)
    np.testing.assert_allclose(one["mcse"], error, rtol=1e-3)


def assert_equal(one, other):
    for name in ("log_likelihood", "sample_stats"):
        for variable, values in group(one, name).variables.items():
            np.testing.assert_array_equal(values, group(other, name)[variable], err_msg=variable)


def test_scores_and_diagnosis_are_those_of_traces(backend):
    streamed, stored = run(backend, stream=True), run(backend)
    sums = streamed["constant_data"]["train_sums"]
    assert sums.dims == ("chain", "block", "factor", "train")
    assert sums.shape == (4, 8, 2 + 4, 30)
    ours = bif.influence(streamed)
    theirs = by_traces(stored, ours.attrs)
    assert_close(ours, theirs)
    np.testing.assert_array_equal(ours["resolved"], abs(ours["influence"]) > 2 * ours["mcse"])
    for name, value in bif.diagnose(stored, verbose=False).items():
        np.testing.assert_array_equal(bif.diagnose(streamed, verbose=False)[name], value)
    assert bif.influence(stored, shrink=None).attrs["product_time"] == ours.attrs["product_time"]
    best = bif.top(streamed, k=3)
    np.testing.assert_array_equal(best["train"], bif.top(theirs, k=3)["train"])
    assert bif.influence(streamed, block_pairs=40)["influence"].chunks is not None
    assert_close(bif.influence(streamed, block_pairs=40).compute(), theirs)


def test_of_many_rows_traces_are_kept_of_some(monkeypatch):
    monkeypatch.setattr(sampling, "DIAGNOSED_ROWS", 5)
    ids = [f"row {i}" for i in range(10)]
    streamed, stored = (
        fake_run(chains=4, draws=16, stream=stream, train_ids=ids) for stream in (True, False)
    )
    likelihood = group(streamed, "log_likelihood")
    kept = likelihood["train_kept"].values.tolist()
    assert kept == ["row 0", "row 2", "row 4", "row 6", "row 9"]
    expected = stored["log_likelihood"]["train_obs"].sel(train=kept)
    np.testing.assert_array_equal(likelihood["train_obs"], expected)
    assert likelihood["train"].values.tolist() == ids


def test_tokens_are_summed(backend):
    at_mode = {"train": np.zeros(3), "query": np.zeros(2)}
    rng = np.random.default_rng(0)
    found = {
        "log_likelihood/train_obs": rng.normal(size=(1, 5, 3, 4)),
        "log_likelihood/query_obs": rng.normal(size=(1, 5, 2, 4)),
    }
    sums = Stream(at_mode, np.arange(3)).fold(found)["log_likelihood/train_sums"]
    train, query = (values.sum(axis=3) for values in found.values())
    np.testing.assert_allclose(sums[0, 0, 2:], query[0].T @ train[0])


@given(
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(2, 9),
    st.floats(-3, 3),
    st.integers(0, 9),
)
def test_sums_hold_what_centring_takes(chains, blocks, merged, size, shift, seed):
    rng = np.random.default_rng(seed)
    draws = blocks * merged * size
    train = rng.normal(size=(chains, draws, 5)).cumsum(axis=1) + shift
    query = rng.normal(size=(chains, draws, 2)) + train[:, :, :2] + shift
    at_mode = {"train": np.ones(5), "query": np.full(2, -1.0)}
    stream, found = Stream(at_mode, np.arange(2)), []
    for part in np.split(np.arange(draws), blocks * merged):
        room = {}
        for i in np.array_split(part, 2):
            seen = stream.fold(
                {"log_likelihood/train_obs": train[:, i], "log_likelihood/query_obs": query[:, i]}
            )
            stream.lay(room, seen, i[0] - part[0], len(part))
        np.testing.assert_array_equal(room["log_likelihood/query_obs"], query[:, part])
        found.append(room["log_likelihood/train_sums"])
    sums = np.concatenate(found, axis=1)
    assert sums.shape == (chains, blocks * merged, 4, 5)
    how = Blocks(blocks, 1.5)
    parts = (_merged(sums[:, :, part], blocks) for part in (slice(2), slice(2, None)))
    ours = _estimate(*parts, query + 1, how)
    theirs = block_covariance(train, query, **how._asdict())
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.mcse, theirs.mcse, rtol=1e-6, atol=1e-9)


def test_a_run_on_disk_that_is_stopped_goes_on(backend, tmp_path, monkeypatch):
    path, whole = tmp_path / "a.zarr", run(backend, stream=True)
    with interrupted(monkeypatch, backend, after=20), pytest.raises(KeyboardInterrupt):
        run(backend, path, stream=True)
    so_far = bif.open_store(path)
    assert so_far.attrs["draws"] == 16
    assert so_far["constant_data"]["train_sums"].sizes["block"] == 2
    assert np.isfinite(so_far["constant_data"]["train_sums"]).all()
    assert_equal(run(backend, path, stream=True), whole)
    assert_equal(bif.open_store(path), whole)
    assert_close(bif.influence(run(backend, path, stream=True)), bif.influence(whole))


def test_a_chain_that_diverges_is_left_out(backend, monkeypatch):
    from ppl_bif.recording import Record

    judge = Record.judge

    def poisoned(record, total, stats, rows, diverged):
        total = {name: value.copy() for name, value in total.items()}
        total["train"][1 % len(total["train"])] = np.nan
        return judge(record, total, stats, rows, diverged)

    monkeypatch.setattr(Record, "judge", poisoned)
    with pytest.warns(RuntimeWarning, match="chain 1 diverged"):
        streamed = run(backend, stream=True)
    scores = bif.influence(streamed)
    assert scores.attrs["chains_excluded"] == [1]
    assert np.isfinite(scores["mcse"]).all()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"draws": 65}, r"summed over 8 blocks of draws each: pass draws=64 or 72; got 65"),
        ({"draws": 3}, r"pass draws=8 or 16"),
        ({"draws": "auto"}, r"pass draws=\.\.\., a number, and no client"),
    ],
)
def test_draws_are_whole_blocks(settings, why):
    with pytest.raises(ValueError, match=why):
        fake_run(**{"chains": 4, "stream": True, **settings})


@pytest.mark.parametrize("asked", [{"shrink": "eb"}, {"kind": "correlation"}])
def test_what_takes_traces_is_refused(asked):
    streamed = fake_run(chains=4, draws=16, stream=True)
    streamed.attrs.pop("refused", None)
    with pytest.raises(ValueError, match="with stream=True only covariances with its queries"):
        bif.influence(streamed, **asked)
