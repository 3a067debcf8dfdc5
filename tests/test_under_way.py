"""Runs read while they are written, wherever they lie, and how they are laid out."""

import math

import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner

import ppl_bif as bif
from ppl_bif import sampling
from ppl_bif.cli import app
from ppl_bif.following import follow, standing
from ppl_bif.layout import Trace, create
from tests.test_faults import ROWS, Noisy, NoisyEngine, noisy_run
from tests.test_store import assert_same, data, fake_run

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


@pytest.fixture
def look(monkeypatch):
    """Call a function after some bursts of a noisy run in blocks of ten draws."""
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", 10)
    draws = NoisyEngine.draws

    def at(which, function):
        made = []

        def looked(self, *more, **settings):
            made.append(1)
            if len(made) == which:
                function()
            return draws(self, *more, **settings)

        monkeypatch.setattr(NoisyEngine, "draws", looked)

    return at


@pytest.mark.parametrize("address", ["{}/a.zarr", "file://{}/a.zarr", "memory://under/way.zarr"])
def test_a_run_under_way_is_read(tmp_path, look, address):
    path, seen = address.format(tmp_path), []

    def read():
        idata = bif.open_store(path)
        assert not idata["log_likelihood"]["train_obs"].variable._in_memory
        scores = bif.influence(idata, shrink=None)
        seen.append((idata.attrs, idata["log_likelihood"].load(), scores.load()))
        seen.append(str(standing(path)))

    look(8, read)
    whole = noisy_run(path)
    (attrs, likelihood, scores), said = seen
    assert attrs["completed"] is False
    assert 10 <= attrs["draws"] == likelihood.sizes["draw"] < 100
    np.testing.assert_array_equal(
        likelihood["train_obs"], whole["log_likelihood"]["train_obs"][:, : attrs["draws"]]
    )
    assert np.isfinite(scores["influence"]).all()
    assert said.startswith(f"{attrs['draws']} of 100 draws, 2 of 2 chains, ")
    assert str(standing(path)).endswith("finished")
    assert_same(bif.open_store(path), noisy_run())


def test_chains_in_turn_are_read_once_they_have_begun(tmp_path, look):
    seen, path = [], tmp_path / "a.zarr"
    look(14, lambda: seen.append(bif.open_store(path)["log_likelihood"].load()))
    rows = data(20)
    bif.sample(
        Noisy(1), train=rows, query=rows, chains=3, draws=60, warmup=1, store=path,
        chain_method="sequential",
    )  # fmt: skip
    assert seen[0]["chain"].values.tolist() == [0, 1]
    assert 0 < seen[0].sizes["draw"] < 60


def test_a_run_without_draws(tmp_path, look):
    said = []

    def read():
        with pytest.raises(bif.StoreError, match=r"has no draws yet: wait for it"):
            bif.open_store(tmp_path / "a.zarr")
        said.append(str(standing(tmp_path / "a.zarr")))

    look(1, read)
    noisy_run(tmp_path / "a.zarr")
    assert said[0].startswith("no of 100 draws, 0 of 2 chains")


def test_it_is_followed_to_its_end(tmp_path, look):
    path = tmp_path / "a.zarr"
    found = []
    look(8, lambda: found.append(next(follow(path, 0.0))))
    noisy_run(path)
    (last,) = follow(path, 0.0)
    assert not found[0].completed
    assert last.completed
    assert last.draws == {0: 100, 1: 100}
    result = CliRunner().invoke(app, ["follow", str(path)])
    assert result.exit_code == 0
    assert result.output.startswith("100 of 100 draws, 2 of 2 chains, ")
    assert CliRunner().invoke(app, ["follow", str(tmp_path / "none")]).exit_code == 1


def test_a_run_in_memory_of_fsspec_is_gone_on_with():
    assert fake_run("memory://runs/a.zarr", draws=4).attrs["draws"] == 4
    assert_same(fake_run("memory://runs/a.zarr"), fake_run())
    with pytest.raises(bif.StoreError, match="holds another run"):
        fake_run("memory://runs/a.zarr", seed=9)


def test_an_unknown_file_system_is_refused():
    with pytest.raises(bif.StoreError, match="no file system for"):
        fake_run("nowhere://a.zarr")


@pytest.mark.parametrize("stored", [False, True])
def test_traces_of_half_precision_say_what_rounding_adds(tmp_path, stored):
    rows = data(ROWS)
    given = {"train": rows, "query": rows, "chains": 2, "draws": 60, "warmup": 1}
    path = tmp_path / "a.zarr" if stored else None
    half = bif.sample(Noisy(1), trace_dtype="float16", store=path, **given)
    whole = bif.sample(Noisy(1), **given)
    values, exact = (r["log_likelihood"]["train_obs"].values for r in (half, whole))
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, exact.astype(np.float16))
    added = (values - exact.astype(float)).var(axis=(0, 1)) / exact.var(axis=(0, 1), dtype=float)
    assert added.max() / 3 < half.attrs["trace_rounding"] < 3 * added.max()
    assert half.attrs["trace_rounding"] < 1e-6
    assert "trace_rounding" not in whole.attrs
    if stored:
        with pytest.raises(bif.StoreError, match="trace_dtype: 'float16' there, 'float32' here"):
            bif.sample(Noisy(1), store=path, **given)


def test_an_unknown_type_of_traces_is_refused():
    with pytest.raises(ValueError, match="trace_dtype must be 'float32' or 'float16'; got 'int8'"):
        fake_run(trace_dtype="int8")


@pytest.mark.parametrize(
    ("chains_at_once", "file_bytes", "most"),
    [(4, sampling.SHARD_BYTES, 3000), (1, sampling.FILE_BYTES, 20_000)],
)
def test_a_million_rows_make_thousands_of_files(chains_at_once, file_bytes, most):
    rows, chains, draws = 10**6, 4, 4000
    block = sampling.BLOCK_BYTES // (4 * chains_at_once * rows)
    how = {"chains": chains_at_once, "draws": block, "file_bytes": file_bytes}
    root = zarr.create_group({}, zarr_format=3)
    files, largest = 0, 0
    for name, width in (("train_obs", rows), ("query_obs", 1000)):
        trace = Trace(("chain", "draw", name), (chains, draws, width), "float32")
        array = create(root, name, trace, **how)
        files += math.prod(-(-n // s) for n, s in zip(array.shape, array.shards, strict=True))
        largest = max(largest, math.prod(array.shards) * 4)
        assert math.prod(array.chunks) * 4 <= 2**25
    for name in ("lp", "distance"):
        array = create(root, name, Trace(("chain", "draw"), (chains, draws), "float64"), **how)
        files += math.prod(-(-n // s) for n, s in zip(array.shape, array.chunks, strict=True))
    assert files < most
    assert largest < 2**27


def test_others_read_it_too(tmp_path):
    run = fake_run(tmp_path / "a.zarr")
    tree = xr.open_datatree(tmp_path / "a.zarr", engine="zarr", consolidated=False)
    expected = run["log_likelihood"]["train_obs"]
    np.testing.assert_array_equal(tree["log_likelihood"]["train_obs"], expected)


def test_it_is_read_by_dask(tmp_path):
    run = fake_run(tmp_path / "a.zarr")
    lazy = bif.open_store(tmp_path / "a.zarr")["log_likelihood"].chunk({"draw": 2})
    assert lazy["train_obs"].chunks[1] == (2, 2, 2)
    total = lazy["train_obs"].sum(("draw", "chain"))
    np.testing.assert_allclose(total, run["log_likelihood"]["train_obs"].sum(("draw", "chain")))
