import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.costs import _at, _parts, _Trial
from ppl_bif.data import num_rows

ROWS, QUERIES = 60, 7


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5]).astype(np.float32)
    return {"train": (x, y), "query": (x[:QUERIES], y[:QUERIES])}


def kernel(backend, **settings):
    model = backend.linear(np.array([1.0, -2.0, 0.5]), localization=10.0)
    known = {"step_size": 5e-3, "batch_size": 8, "steps_per_draw": 2}
    return backend.SGLD(model, **known | settings)


def test_disk_is_that_of_the_store(backend, data, tmp_path):
    settings = {**data, "chains": 2, "draws": 300}
    found = bif.forecast(kernel(backend), **settings)
    bif.sample(kernel(backend), **settings, warmup=20, progress=False, store=tmp_path / "run.zarr")
    taken = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    # The rest is metadata, ids and targets.
    assert 0 < taken - found.disk < 50_000
    assert found.disk > 400_000


def test_time_is_that_of_all_draws_and_of_warm_up(backend, data):
    settings = {"chains": 3, "draws": 500, "warmup": 9, "chain_method": "sequential"}
    found = bif.forecast(kernel(backend), **data, **settings)
    assert found.seconds == pytest.approx(found.first_call + 500 * found.draw + found.warmup)
    assert 0 < found.warmup < 500 * found.draw
    assert found.device == 0
    assert "a draw of all chains" in str(found)


def test_what_warm_up_would_find_is_asked_for(backend, data):
    free = kernel(backend, step_size=None, steps_per_draw=None)
    with pytest.raises(ValueError, match="step_size, steps_per_draw"):
        bif.forecast(free, **data)
    with pytest.raises(TypeError, match="a kernel such as SGLD"):
        bif.forecast(free.model, **data)


def test_data_that_do_not_fit_are_refused(backend, data):
    x, y = data["train"]
    with pytest.raises(ValueError, match="train"):
        bif.forecast(kernel(backend), train=(x[:, :2], y), query=data["query"])


@pytest.mark.parametrize(("batch_size", "rows"), [(8, [1024, 3072]), (3000, [6000, 18_000])])
def test_trials_hold_batches(backend, data, batch_size, rows):
    """A trial on fewer rows than a batch has would be refused."""
    many = {name: tuple(np.resize(a, (40_000, *a.shape[1:])) for a in data[name]) for name in data}
    parts = _parts(kernel(backend, batch_size=batch_size), many)
    assert [num_rows(part["train"]) for part in parts] == rows


def test_two_trials_give_a_line():
    trials = [_Trial(100, 0.0, 2.0, 1.0, {}), _Trial(300, 0.0, 4.0, 1.0, {})]
    assert _at(1300, trials, "draw") == pytest.approx(14.0)
    assert _at(1300, trials, "walk") == pytest.approx(1.0)
