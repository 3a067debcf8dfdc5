"""Runs on disk: returned when finished, gone on with when not, refused when another's."""

from contextlib import contextmanager

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import ppl_bif as bif
from ppl_bif import sampling
from ppl_bif.kernel import Draws
from ppl_bif.schema import group
from tests.backends import get_backend, random_layers

GROUPS = ("log_likelihood", "sample_stats", "constant_data", "posterior")
CHEAP = {"step_size": 1e-3, "batch_size": 4, "steps_per_draw": 1}


def data(rows=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 3)).astype(np.float32), rng.integers(2, size=rows)


def layers(shift=0.0):
    (w, b), *rest = random_layers([3, 4, 2])
    return [(w + shift, b), *rest]


def run(backend, store=None, *, model=None, kernel=None, **changes):
    made = backend.SGLD(model or backend.mlp(layers()), **{**CHEAP, **(kernel or {})})
    given = {"train": data(), "query": data(3, seed=1), "chains": 2, "draws": 6, "warmup": 1}
    return bif.sample(made, store=store, **{**given, **changes})


# Random weights are far from the mode of their posterior.
pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


class Fake:
    """A kernel and its model in one."""

    inverse_temperature, localization, num_weights = 1.0, 1.0, 10**6
    sequential_only = False
    settings = {"kernel": "Fake", "step_size": 1.0}  # noqa: RUF012
    step_size, steps_per_draw, preconditioner = 1.0, 1, None
    stats = ("minibatch_loss", "gradient_noise", "step_size")

    def __init__(self, tokens):
        self.model, self.tokens = self, tokens
        self.mode = {"w": np.zeros(3, np.float32)}

    def fingerprint(self):
        return "fake"

    def check(self, batch, name):
        pass

    def free_memory(self):
        return None

    def memory_per_row(self, batch):
        return 4

    def rows_per_step(self, rows):
        return rows

    def bind(self, data, *, evaluation_batch_size):
        return FakeEngine(self, {name: len(batch[0]) for name, batch in data.items()})


class FakeEngine:
    """Its engine: log-likelihoods that tell where they are from."""

    device, dtype, library = "none", "float32", "fake"

    def __init__(self, kernel, rows):
        self.kernel, self.rows = kernel, rows

    def at_mode(self, name):
        return self.log_likelihood(self.start([0], 0), name)[0]

    def start(self, chains, seed, like=None):
        return np.asarray(chains), 0

    def advance(self, state, steps, *, keep=False):
        return state[0], state[1] + steps

    def draws(self, state, steps, count, *, most, names):
        assert count <= most
        seen = []
        for _ in range(count):
            state = self.advance(state, steps)
            likelihood = {name: self.log_likelihood(state, name) for name in self.rows}
            weights = {n: np.full((len(state[0]), 3), state[1], np.float32) for n in names}
            seen.append(Draws(likelihood, self.stats(state), weights))
        parts = [
            {name: np.stack([part[name] for part in each], axis=1) for name in each[0]}
            for each in zip(*seen, strict=True)
        ]
        return state, Draws(*parts)

    def with_step_size(self, state, step_size):
        return state

    def step_size(self, state):
        return self.stats(state)["step_size"]

    def without_weights(self, state):
        return state

    def pack(self, state, *, shared):
        return {"chains": state[0], "at": np.asarray(state[1])}

    def unpack(self, arrays, like):
        return arrays["chains"], int(arrays["at"])

    def stats(self, state):
        return dict.fromkeys((*self.kernel.stats, "distance"), 1.0 * state[0])

    def log_likelihood(self, state, name):
        tokens = self.kernel.tokens
        shape = (self.rows[name], *[tokens] * (tokens > 1))
        place = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        return -(place + 1000 * state[1] + 100 * state[0].reshape(-1, *(1,) * place.ndim))


def fake_run(store=None, **changes):
    given = {"train": data(), "query": data(3, seed=1), "chains": 2, "draws": 6, "warmup": 1}
    return bif.sample(Fake(1), store=store, **{**given, **changes})


def assert_same(one, other):
    """Compare all groups of two runs but the time they took."""
    for name in GROUPS:
        a, b = group(one, name), group(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            xr.testing.assert_identical(a.load().drop_attrs(), b.load().drop_attrs())
    a, b = dict(one.attrs), dict(other.attrs)
    for attrs in (a, b):
        attrs.pop("sampling_time")
        attrs.pop("completed", None)
    assert a == b


@contextmanager
def no_sampling(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "drive", lambda *_, **__: pytest.fail("sampled again"))
        yield


@contextmanager
def interrupted(monkeypatch, backend, after):
    """Stop after some draws."""
    with drawing(monkeypatch, backend, most=after):
        yield


@contextmanager
def drawing(monkeypatch, backend, most=10**9):
    """Note how many draws are made, and stop after some."""
    engine = type(backend.SGLD(backend.mlp(layers())).bind(
        {"train": data(), "query": data()}, evaluation_batch_size=8
    ))  # fmt: skip
    draws, made = engine.draws, []

    def stop(self, state, steps, count, **settings):
        if sum(made) + count > most:
            raise KeyboardInterrupt
        made.append(count)
        return draws(self, state, steps, count, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "draws", stop)
        # Blocks of two draws, so that some are written before.
        patch.setattr(sampling, "BLOCK_BYTES", 2 * 4 * 2 * (10 + 3))
        yield made


def test_a_finished_run_is_returned_again(backend, tmp_path, monkeypatch):
    ids = {"train_ids": [f"row {i}" for i in range(10)], "query_ids": ["q", "qq", "ä/b"]}
    first = run(backend, tmp_path / "a.zarr", save_weights=True, **ids)
    with no_sampling(monkeypatch):
        again = run(backend, tmp_path / "a.zarr", save_weights=True, **ids)
    assert_same(first, again)
    assert_same(first, bif.open_store(tmp_path / "a.zarr"))
    assert_same(first, run(backend, save_weights=True, **ids))
    likelihood = group(again, "log_likelihood")
    assert likelihood["train"].values.tolist() == ids["train_ids"]
    assert likelihood["query"].values.tolist() == ids["query_ids"]


def test_an_interrupted_run_is_gone_on_with(backend, tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    with interrupted(monkeypatch, backend, after=4), pytest.raises(KeyboardInterrupt, match="stop"):
        run(backend, path)
    written = zarr.open_array(str(path / "log_likelihood" / "train_obs"), mode="r")[:]
    assert np.isfinite(written[:, :4]).all()
    assert np.isnan(written[:, 4:]).all()
    so_far = bif.open_store(path)
    assert not so_far.attrs["completed"]
    np.testing.assert_array_equal(so_far["log_likelihood"]["train_obs"], written[:, :4])
    with pytest.raises(bif.StoreError, match="holds another run"):
        run(backend, path, seed=7)
    whole = run(backend)
    with drawing(monkeypatch, backend) as made:
        assert_same(run(backend, path), whole)
    assert sum(made) == 2


OTHERS = [
    ({"draws": 5}, r"with 6 draws already, more than the 5 asked for: pass draws=6 or more"),
    ({"warmup": 2}, r"warmup: 1 there, 2 here"),
    ({"seed": 5}, r"seed: 0 there, 5 here"),
    ({"kernel": {"batch_size": 5}}, r"batch_size: 4 there, 5 here"),
    ({"kernel": {"step_size": 2e-3}}, r"step_size: 0.001\d* there, 0.002 here"),
    ({"model": {"localization": 7.0}}, r"localization: 0.52\d* there, 7.0 here"),
    ({"model": {"inverse_temperature": 0.5}}, r"inverse_temperature: 1.0 there, 0.5 here"),
    ({"layers": layers(0.1)}, r"its network or trained weights differ"),
    ({"model": {"sites": "W*"}}, r"num_weights: 26 there, 20 here"),
    ({"train": data(seed=9)}, r"its data or ids differ"),
    ({"query": data(3, seed=9)}, r"its data or ids differ"),
    ({"train_ids": list("abcdefghij")}, r"its data or ids differ"),
    ({"save_weights": True}, r"its saved weights or constant data differ"),
    ({"constant_data": {"note": 1}}, r"its saved weights or constant data differ"),
    ({"chain_method": "sequential"}, r"chain_method: 'vectorized' there, 'sequential' here"),
]


def test_another_run_is_refused(backend, tmp_path):
    path = tmp_path / "a.zarr"
    first = run(backend, path)
    # What differs is told apart above the backends: each run compiles again in JAX.
    for changes, difference in OTHERS if backend.name == "pyro" else OTHERS[:3]:
        settings = dict(changes)
        model = backend.mlp(settings.pop("layers", layers()), **settings.pop("model", {}))
        with pytest.raises(bif.StoreError, match=difference):
            run(backend, path, model=model, **settings)
    assert_same(first, bif.open_store(path))


@pytest.mark.pyro
@pytest.mark.numpyro
def test_the_other_backend_is_refused(tmp_path):
    run(get_backend("pyro"), tmp_path / "a.zarr")
    with pytest.raises(bif.StoreError, match="backend: 'pyro' there, 'numpyro' here"):
        run(get_backend("numpyro"), tmp_path / "a.zarr")


def test_an_empty_folder_is_free(tmp_path):
    assert_same(fake_run(tmp_path), fake_run())


def test_what_a_user_adds_is_kept(tmp_path):
    image = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2)
    more = {"train_image": (("train", "y", "x"), image), "class_name": ("class", ["no", "yes"])}
    for store in (None, tmp_path / "a.zarr"):
        constant = group(fake_run(store, constant_data=more), "constant_data")
        np.testing.assert_array_equal(constant["train_image"], image)
        assert constant["train_image"].dtype == np.uint8
        assert constant["class_name"].values.tolist() == ["no", "yes"]
        np.testing.assert_array_equal(constant["train_target"], data()[1])


def test_a_store_is_read_when_it_is_used(tmp_path):
    fake_run(tmp_path / "a.zarr")
    array = group(bif.open_store(tmp_path / "a.zarr"), "log_likelihood")["train_obs"]
    assert not array.variable._in_memory


@settings(max_examples=15)
@given(
    rows=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    tokens=st.integers(1, 3),
    chains=st.integers(1, 3),
    draws=st.integers(2, 9),
    block=st.integers(1, 10),
    method=st.sampled_from(["vectorized", "sequential"]),
    texts=st.booleans(),
    save=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_what_is_written_is_what_is_read(
    tmp_path_factory, rows, tokens, chains, draws, block, method, texts, save, random
):
    ids = {}
    for name, n in zip(("train", "query"), rows, strict=True):
        numbers = random.sample(range(-50, 50), n)
        ids[name] = [f"é {i}" for i in numbers] if texts else numbers
    arguments = {
        "train": (np.ones((rows[0], 1)), np.ones(rows[0])),
        "query": (np.ones((rows[1], 1)), np.ones(rows[1])),
        **{f"{name}_ids": value for name, value in ids.items()},
        "chains": chains,
        "draws": draws,
        "warmup": 1,
        "chain_method": method,
        "save_weights": save,
    }
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "BLOCK_BYTES", block * 4 * chains * sum(rows) * tokens)
        stored = bif.sample(Fake(tokens), store=path, **arguments)
    assert_same(stored, bif.sample(Fake(tokens), **arguments))
    likelihood = group(stored, "log_likelihood")
    for name, n in zip(("train", "query"), rows, strict=True):
        assert likelihood[name].values.tolist() == ids[name]
        place = np.arange(n * tokens).reshape((n, tokens) if tokens > 1 else (n,))
        at = np.ix_(100 * np.arange(chains), 1000 * np.arange(2, draws + 2), *[[0]] * place.ndim)
        np.testing.assert_array_equal(likelihood[f"{name}_obs"], -(place + sum(at)))
