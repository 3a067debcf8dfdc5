"""A run whose settings are absurd is said to be so, and its scores are not given as good."""

import numpy as np
import pytest

import ppl_bif as bif
from tests.backends import get_backend, random_layers

# Warnings are a part of what is said.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

ROWS = 80
# Settings of each kernel, and 100 times the step that warm-up finds for it here.
KERNELS = {
    "SGLD": ({"batch_size": 20}, 0.5),
    "UnderdampedLangevin": ({}, 18.0),
    "HMC": ({"leapfrog_steps": 2}, 11.0),
}


@pytest.fixture(scope="module")
def problem():
    """A tanh network of 51 weights, trained by gradient descent, and its data."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4))
    y = np.argmax(x[:, :3] + rng.normal(size=(ROWS, 3)), axis=1)
    (W, b), (V, c) = random_layers([4, 6, 3])
    for _ in range(2000):
        hidden = np.tanh(x @ W + b)
        odds = np.exp(hidden @ V + c)
        top = (odds / odds.sum(1, keepdims=True) - np.eye(3)[y]) / ROWS
        low = (top @ V.T) * (1 - hidden**2)
        V, c = V - 0.5 * (hidden.T @ top + 0.01 * V), c - 0.5 * top.sum(0)
        W, b = W - 0.5 * (x.T @ low + 0.01 * W), b - 0.5 * low.sum(0)
    return [(W, b), (V, c)], (np.float32(x), y)


def sample(backend, problem, name, *, settings=None, **model):
    layers, data = problem
    localized = backend.mlp(layers, **{"localization": 5.0, **model})
    kernel = localized.make_kernel(name, **KERNELS[name][0], **(settings or {}))
    return bif.sample(kernel, train=data, query=(data[0][:10], data[1][:10]), draws=50)


def said(make):
    """Return what a run is told to have gone wrong, or None if it would be scored."""
    try:
        run = make()
        bif.influence(run)
    except bif.BIFError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", KERNELS)
def test_a_hundredfold_step_is_not_scored(backend, problem, name, record_property):
    step = KERNELS[name][1]
    message = said(lambda: sample(backend, problem, name, settings={"step_size": step}))
    record_property("found", f"{backend.name}, {name}: {message}")
    assert message is not None
    assert "step" in message


def said_of_posterior(problem, name, **model):
    # In one backend, as what is said is said above them; without the preconditioner, met above.
    settings = {"preconditioner": None, "steps_per_draw": 2}
    return said(lambda: sample(get_backend("pyro"), problem, name, settings=settings, **model))


@pytest.mark.pyro
@pytest.mark.parametrize("name", KERNELS)
def test_a_millionfold_posterior_far_away_is_not_scored(problem, name, record_property):
    message = said_of_posterior(problem, name, inverse_temperature=1e6)
    record_property("found", f"{name}, cold: {message}")
    assert message is not None
    assert "localization" in message


@pytest.mark.pyro
@pytest.mark.parametrize("name", KERNELS)
def test_a_posterior_without_localization_is_not_scored(problem, name, record_property):
    message = said_of_posterior(problem, name, localization=1e-8)
    record_property("found", f"{name}, free: {message}")
    assert message is not None
    assert "localization" in message


@pytest.mark.pyro
def test_a_posterior_far_from_the_trained_weights_fails_its_diagnosis(problem, record_property):
    """Localized at its scale, a millionfold posterior is sampled: around a better optimum."""
    cold = {"inverse_temperature": 1e6, "localization": "auto"}
    run = sample(get_backend("pyro"), problem, "UnderdampedLangevin", **cold)
    check = bif.diagnose(run, verbose=False)
    record_property("found", f"{check.attrs}")
    assert check.attrs["verdict"] == "fail"
    assert any("energy" in reason for reason in check.attrs["reasons"])


def test_localization_of_zero_is_refused(backend, problem):
    with pytest.raises(ValueError, match="localization must be"):
        backend.mlp(problem[0], localization=0)
