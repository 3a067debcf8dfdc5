"""What every kernel does in every backend, beside sampling the right law."""

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.recording import Record
from tests.backends import random_layers
from tests.truth import make_linear


@pytest.fixture
def linear():
    return make_linear(30, 3)


def run(backend, linear, *, seed=0, settings=None, **options):
    model = backend.linear(linear.mode, localization=linear.gamma)
    kernel = backend.SGLD(model, **{"batch_size": 10, "step_size": 1e-3, **(settings or {})})
    options = {"chains": 3, "draws": 12, "warmup": 2, "seed": seed, **options}
    options = {"train": linear.data, "query": linear.data, "save_weights": True, **options}
    return bif.sample(kernel, **options)


def weights(idata):
    return idata["posterior"]["w"].values


@pytest.mark.filterwarnings("ignore:these draws will not be scored.*every step was rejected")
def test_zero_gradient_at_zero_temperature_does_not_move(backend, linear):
    x = linear.data[0]
    perfect = (x, np.asarray(x @ np.float32(linear.mode)))
    still = run(
        backend,
        linear,
        train=perfect,
        query=perfect,
        settings={"temperature": 0.0, "batch_size": 30},
    )
    assert np.abs(weights(still) - np.float32(linear.mode)).max() < 1e-6


def test_zero_temperature_descends_to_the_posterior_mean(backend, linear):
    settings = {"temperature": 0.0, "batch_size": 30, "step_size": None}
    descended = run(backend, linear, settings=settings, warmup=100)
    assert np.abs(weights(descended)[:, -1] - linear.mean()).max() < 1e-4


def test_reproducible_from_its_seed(backend, linear):
    first, again, other = (run(backend, linear, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(weights(first), weights(again))
    np.testing.assert_array_equal(
        first["log_likelihood"]["query_obs"], again["log_likelihood"]["query_obs"]
    )
    assert np.abs(weights(first) - weights(other)).min() > 0


def test_chains_differ(backend, linear):
    draws = weights(run(backend, linear))
    assert np.abs(draws[0] - draws[1]).min() > 0


@pytest.mark.filterwarnings("ignore:these draws will not be scored")
@pytest.mark.parametrize("gradient", ["minibatch", "partition"])
def test_a_gradient_may_be_accumulated(backend, linear, gradient):
    draws = []
    for rows_at_once in (None, 3):
        settings = {"localization": linear.gamma, "rows_at_once": rows_at_once}
        model = backend.linear(linear.mode, **settings)
        kernel = backend.SGLD(
            model, step_size=1e-3, steps_per_draw=2, gradient=gradient, batch_size=8
        )
        options = {"chains": 2, "draws": 4, "warmup": 1, "save_weights": True}
        draws.append(weights(bif.sample(kernel, train=linear.data, query=linear.data, **options)))
    np.testing.assert_allclose(*draws, rtol=1e-4, atol=1e-5)


def test_rows_at_once_is_a_whole_number(backend, linear):
    with pytest.raises(ValueError, match="rows_at_once must be a whole number of at least 1"):
        backend.linear(linear.mode, rows_at_once=0)


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_log_likelihoods_are_those_of_the_saved_weights(backend, linear, chain_method):
    idata = run(backend, linear, chain_method=chain_method, evaluation_batch_size=7)
    x, y = linear.data
    residuals = y - weights(idata) @ x.T
    expected = -(residuals**2) / 2 - np.log(2 * np.pi) / 2
    np.testing.assert_allclose(
        idata["log_likelihood"]["train_obs"].values, expected, rtol=1e-4, atol=1e-4
    )


def test_statistics_are_those_of_the_saved_weights(backend, linear):
    idata = run(backend, linear)
    stats, draws = idata["sample_stats"], weights(idata).astype(float)
    distance = np.linalg.norm(draws - linear.mode, axis=-1)
    np.testing.assert_allclose(stats["distance"], distance, rtol=1e-4)
    log_likelihood = idata["log_likelihood"]["train_obs"].values.astype(float)
    np.testing.assert_allclose(stats["train_loss"], -log_likelihood.mean(-1), rtol=1e-5)
    expected = log_likelihood.sum(-1) - linear.gamma / 2 * distance**2
    np.testing.assert_allclose(stats["lp"], expected, rtol=1e-4)
    assert not stats["diverging"].any()


def test_default_step_size_follows_from_the_curvature(backend, linear):
    idata = run(backend, linear, settings={"step_size": None})
    top = np.linalg.eigvalsh(linear.precision()).max()
    assert float(idata["sample_stats"]["step_size"][0, 0]) == pytest.approx(0.5 / top, rel=0.01)


def test_a_model_alone_is_sampled_with_the_default_kernel(backend):
    linear = make_linear(80, 3)
    model = backend.linear(linear.mode, localization=linear.gamma)
    idata = bif.sample(model, train=linear.data, query=linear.data, draws=5, warmup=1)
    assert idata.attrs["kernel"] == "UnderdampedLangevin"


def test_only_chosen_sites_move(backend, linear):
    layers = random_layers([3, 4, 2])
    x = linear.data[0]
    labels = (x[:, 0] > 0).astype(int)
    model = backend.mlp(layers, sites="W1")
    kernel = backend.SGLD(model, batch_size=10)
    idata = bif.sample(kernel, train=(x, labels), query=(x, labels), draws=3, save_weights=True)
    assert set(idata["posterior"].data_vars) == {"W1"}
    assert model.num_weights == 8


def test_one_diverged_chain_is_named_and_left_out(backend, linear, monkeypatch):
    observe = Record.observe

    def poisoned(record, draws, diverged):
        likelihood = {name: values.copy() for name, values in draws.likelihood.items()}
        for values in likelihood.values():
            values[1 % len(values)] = np.nan
        return observe(record, draws._replace(likelihood=likelihood), diverged)

    monkeypatch.setattr(Record, "observe", poisoned)
    with pytest.warns(
        RuntimeWarning,
        match=r"chain 1 diverged at draw 0; begun again with half the step, it diverged again",
    ):
        idata = run(backend, linear)
    scores = bif.influence(idata)
    assert scores.attrs["chains_excluded"] == [1]
    assert scores.attrs["chains_used"] == [0, 2]
    assert np.isfinite(scores["influence"]).all()
    assert bif.diagnose(idata, verbose=False)["chains_lost"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_all_diverged_is_an_error_that_suggests_a_step(backend, linear, chain_method):
    with pytest.raises(bif.DivergenceError, match=r"left the neighbourhood.*smaller step_size"):
        run(backend, linear, settings={"step_size": 10.0}, draws=60, chain_method=chain_method)


def test_ids_survive_shuffling_and_ragged_batches_to_the_last_table(backend):
    linear = make_linear(30, 3)
    x, y = linear.data
    order = np.random.default_rng(0).permutation(30)
    ids = np.array([f"row {i}" for i in range(30)])
    tables = []
    for rows, size in ((np.arange(30), 30), (order, 7)):
        idata = run(
            backend,
            linear,
            train=(x[rows], y[rows]),
            train_ids=ids[rows],
            query_ids=ids,
            settings={"batch_size": 30, "steps_per_draw": 4},
            evaluation_batch_size=size,
            draws=200,
        )
        tables.append(bif.top(bif.influence(idata), k=3))
    assert (tables[0]["train"].values == tables[1]["train"].values).mean() > 0.97
    np.testing.assert_allclose(tables[0]["influence"], tables[1]["influence"], rtol=0.01, atol=2e-4)


def test_joint_density_is_that_of_the_design(backend, linear):
    model = backend.linear(linear.mode, localization=linear.gamma, inverse_temperature=0.5)
    w = np.float32(linear.mode + 0.1)
    residuals = linear.y - linear.x @ w
    log_likelihood = -(residuals**2) / 2 - np.log(2 * np.pi) / 2
    prior = -linear.gamma / 2 * ((w - linear.mode) ** 2).sum() + 1.5 * np.log(
        linear.gamma / (2 * np.pi)
    )
    expected = 0.5 * log_likelihood.sum() + prior
    assert backend.log_joint(model, linear.data, {"w": w}) == pytest.approx(expected, rel=1e-4)


def test_the_curvature_at_the_trained_weights_is_computed_once(backend, linear):
    """It is told for the localization, and is then the first step's."""
    kernel = backend.SGLD(backend.linear(linear.mode, localization="auto"), batch_size=10)
    engine = kernel.bind({"train": linear.data}, evaluation_batch_size=None)
    top = engine.likelihood_curvature
    resolved = engine.resolved(top / 70)
    assert vars(resolved)["likelihood_curvature"] == top
    assert resolved.model.precision == pytest.approx(top / 70)
    assert resolved.train is engine.train
    anew = kernel.on(resolved.model).bind({"train": linear.data}, evaluation_batch_size=None)
    assert anew.likelihood_curvature == top


@pytest.mark.filterwarnings("ignore:these draws will not be scored")
def test_a_run_is_found_again_though_its_localization_is_summed_in_another_order(
    backend, linear, tmp_path, monkeypatch
):
    """As on a GPU, where the top curvature differs in its last digits each time."""
    model = backend.linear(linear.mode, localization="auto")
    told = {"train": linear.data, "query": linear.data, "draws": 4, "warmup": 1}
    kernel = backend.SGLD(model, batch_size=10, step_size=1e-4, steps_per_draw=1)
    first = bif.sample(kernel, **told, store=tmp_path / "run")
    engine = type(kernel.bind({"train": linear.data}, evaluation_batch_size=None))
    exact = engine.likelihood_curvature.func

    def times(factor):
        return property(lambda self: exact(self) * factor)

    monkeypatch.setattr(engine, "likelihood_curvature", times(1 + 6e-6))
    again = bif.sample(kernel, **told, store=tmp_path / "run")
    np.testing.assert_array_equal(
        first["log_likelihood"]["query_obs"], again["log_likelihood"]["query_obs"]
    )
    monkeypatch.setattr(engine, "likelihood_curvature", times(1.1))
    with pytest.raises(bif.StoreError, match="localization"):
        bif.sample(kernel, **told, store=tmp_path / "run")
