"""What a run costs, counted: a network is traced a fixed number of times, and compiled once."""

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.numpyro import SGLD, localize
from ppl_bif.numpyro.engine import _advance, _draws

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
