"""The default localization keeps draws of the prior near the trained network."""

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import group
from ppl_bif.tuning import choose_localization
from tests.backends import random_layers
from tests.truth import make_linear


def engine_of(backend, model, data):
    kernel = model.make_kernel("UnderdampedLangevin")
    return kernel.bind({"train": data, "query": data}, evaluation_batch_size=None)


def test_rise_of_a_linear_model(backend):
    """In closed form: the trace of X'X over 2 n gamma."""
    linear = make_linear(500, 400)
    model = backend.linear(linear.mode, localization="auto")
    engine = engine_of(backend, model, linear.data)
    for gamma in (3.0, 300.0):
        expected = (linear.x**2).sum() / (2 * len(linear.x) * gamma)
        assert engine.rise_at_prior(gamma) == pytest.approx(expected, rel=0.05)


def test_rise_is_that_of_tokens_that_count(backend):
    """Tokens that are ignored neither rise nor are counted."""
    rng = np.random.default_rng(0)
    layers = random_layers([8, 10, 5])
    x, y = np.float32(rng.normal(size=(40, 3, 8))), rng.integers(5, size=(40, 3))
    whole = backend.mlp(layers, likelihood="tokens", localization="auto")
    apart = backend.mlp(layers, localization="auto")
    some = y.copy()
    some[:, 1:] = -100
    rises = [
        engine_of(backend, model, data).rise_at_prior(10.0)
        for model, data in ((whole, (x, some)), (apart, (x[:, 0], y[:, 0])))
    ]
    assert rises[0] == pytest.approx(rises[1], rel=1e-4)


def test_a_prior_that_forgets_the_network_is_made_stronger():
    def rise(gamma):
        return 40 / gamma

    kept = choose_localization(7000.0, rise)
    assert kept.value == 100.0
    assert "times" not in kept.reason
    raised = choose_localization(700.0, rise)
    assert 40 <= raised.value < 50
    assert "raise the loss by 4 nats, of which 1 is allowed" in raised.reason
    assert choose_localization(7000.0, lambda gamma: np.nan if gamma < 150 else 0.0).value > 150
    with pytest.raises(ValueError, match=r"they raise it by nan at .* still: .*pass localization"):
        choose_localization(7000.0, lambda gamma: np.nan)


@pytest.mark.filterwarnings("ignore:these draws will not be scored")
def test_a_run_says_that_it_was(backend):
    """Sixteen rows say little of 453 weights."""
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(16, 8))), rng.integers(5, size=16)
    model = backend.mlp(random_layers([8, 32, 5]), localization="auto")
    kernel = model.make_kernel("SGLD", batch_size=8, step_size=1e-4, steps_per_draw=1)
    run = bif.sample(kernel, train=(x, y), query=(x, y), draws=4, warmup=1, progress=False)
    (told,) = [line for line in run.attrs["tuning"] if line.startswith("localization")]
    assert "as draws of that prior would raise the loss by" in told
    assert np.isfinite(group(run, "log_likelihood")["train_obs"]).all()


@pytest.mark.filterwarnings("ignore:these draws will not be scored")
def test_a_weak_one_is_seven_twentieths_of_auto(backend):
    """And is recorded as what it came to."""
    linear, found = make_linear(30, 3), {}
    for rule in ("auto", "weak"):
        model = backend.linear(linear.mode, localization=rule)
        kernel = model.make_kernel("SGLD", batch_size=10, step_size=1e-4, steps_per_draw=1)
        rows = {"train": linear.data, "query": linear.data}
        run = bif.sample(kernel, **rows, draws=4, warmup=1, progress=False)
        found[rule] = run.attrs["localization"]
    assert found["weak"] == pytest.approx(found["auto"] * 70 / 200, rel=1e-5)
    with pytest.raises(ValueError, match="got 'weaker': pass one, or let 'auto' or 'weak' choose"):
        backend.linear(linear.mode, localization="weaker")
