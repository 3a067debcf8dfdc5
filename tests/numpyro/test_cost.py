"""What a run costs, counted: a network is traced a fixed number of times, and compiled once."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import ppl_bif as bif
from ppl_bif.numpyro import SGLD, UnderdampedLangevin, localize
from ppl_bif.numpyro.alike import Alike
from ppl_bif.numpyro.engine import _advance, _curvature, _draws, _start
from ppl_bif.numpyro.gradients import ControlVariates
from ppl_bif.numpyro.preconditioners import LowRank, RMSprop

ROWS = 40

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


def counted():
    """A kernel whose network counts how often Python runs it."""
    calls = [0]

    def network(p, x):
        calls[0] += 1
        return x @ p["w"]

    model = localize(network, {"w": jnp.zeros(3)}, likelihood="normal", localization=10.0)
    return SGLD(model, step_size=1e-3, batch_size=8, steps_per_draw=2), calls


def sample(kernel, draws, **settings):
    rng = np.random.default_rng(0)
    data = np.float32(rng.normal(size=(ROWS, 3))), np.float32(rng.normal(size=ROWS))
    bif.sample(kernel, train=data, query=data, draws=draws, warmup=2, progress=False, **settings)


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_what_chains_run_is_compiled_once(chain_method):
    kernel, _ = counted()
    for program in (_draws, _advance):
        program.clear_cache()
    sample(kernel, 70, chain_method=chain_method)
    assert (_draws._cache_size(), _advance._cache_size()) == (1, 1)


@pytest.mark.parametrize("preconditioner", [LowRank(2), RMSprop(batch_size=8, batches=3)])
def test_what_moves_before_and_after_the_preconditioner_is_fitted_is_compiled_once(preconditioner):
    kernel = UnderdampedLangevin(counted()[0].model, preconditioner=preconditioner)
    programs = (_draws, _advance, _curvature, _start)
    for program in programs:
        program.clear_cache()
    sample(kernel, 4)
    assert [program._cache_size() for program in programs] == [1, 1, 1, 1]


def test_a_network_is_not_traced_again_for_more_draws():
    kernel, calls = counted()
    sample(kernel, 4)
    first = calls[0]
    assert first <= 20
    programs = _draws._cache_size(), _advance._cache_size()
    sample(kernel, 64)
    # What is not compiled: one look at the outputs of each group, to check them.
    assert calls[0] - first <= 4
    assert (_draws._cache_size(), _advance._cache_size()) == programs


def test_models_of_one_network_share_programs_and_draw_as_if_they_did_not():
    def run(model, **settings):
        rng = np.random.default_rng(0)
        x = np.float32(rng.normal(size=(ROWS, 3)))
        rows = {"train": (x, x.sum(axis=1)), "query": (x[:3], x[:3].sum(axis=1))}
        return bif.sample(model, **rows, chains=2, draws=20, progress=False, **settings)

    def network(p, x):
        return jnp.tanh(x @ p["w"])

    model = localize(network, {"w": jnp.zeros(3)}, likelihood="normal")
    run(model, seed=0)
    programs = _draws._cache_size(), _advance._cache_size()
    run(model, seed=1)
    run(model.resolve(3.0), seed=0)
    # The same function of other weights.
    params, question = {"w": jnp.ones(3) / 2}, {"likelihood": "normal", "localization": 7.0}
    shared = run(localize(network, params, **question), seed=2)
    assert (_draws._cache_size(), _advance._cache_size()) == programs
    own = run(localize(lambda p, x: jnp.tanh(x @ p["w"]), params, **question), seed=2)
    assert _draws._cache_size() == programs[0] + 1
    for name in ("train_obs", "query_obs"):
        a, b = (one["log_likelihood"][name].values for one in (shared, own))
        np.testing.assert_array_equal(a, b)


def test_models_that_differ_in_more_than_weights_are_not_alike():
    def network(p, x):
        return x @ p["w"]

    def model(**changes):
        given = {"likelihood": "normal", "localization": 1.0} | changes
        return localize(network, {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, **given)

    assert Alike(model()) == Alike(model(localization=5.0))
    others = [
        model(likelihood="bernoulli"),
        model(likelihood=lambda outputs: dist.Normal(outputs, 1.0).to_event(1)),
        model(likelihood=lambda outputs: dist.Normal(outputs, 1.0).to_event(1)),
        model(inverse_temperature=0.5),
        model(sites="w"),
        model(compute_dtype="bfloat16"),
        model(rows_at_once=4),
    ]
    programs = [Alike(one) for one in (model(), *others)]
    assert len(set(programs)) == len(programs)


def test_kernels_are_alike_where_all_of_them_is():
    kernel, _ = counted()
    model = kernel.model
    settings = {"step_size": 1e-3, "batch_size": 8, "steps_per_draw": 2}
    assert Alike(kernel) == Alike(SGLD(model.resolve(20.0), **settings))
    others = [
        SGLD(model, **{**settings, "batch_size": 4}),
        SGLD(model, **{**settings, "step_size": 2e-3}),
        # A record whose fields are equal.
        SGLD(model, **settings, gradient=ControlVariates(8)),
        UnderdampedLangevin(model, gradient="minibatch", batch_size=8),
        counted()[0],
    ]
    programs = [Alike(one) for one in (kernel, *others)]
    assert len(set(programs)) == len(programs)


def test_what_has_no_hash_is_like_itself_alone():
    kernel, _ = counted()
    kernel.gradient = [kernel.gradient]
    assert Alike(kernel) == Alike(kernel)
    assert Alike(kernel) != Alike(kernel.on(kernel.model))
