"""The BIF under every kernel is that under NUTS on the same localized model of a small network."""

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import inference_data
from tests.backends import get_backend, in_turn, random_layers

pytestmark = [pytest.mark.numpyro, pytest.mark.slow]

SETTINGS = {"localization": 30.0, "inverse_temperature": 1.0}
SMALL_STEP = {"step_size": 8e-4, "steps_per_draw": 16}
# Kernel, its settings, options of the run.
KERNELS = {
    "sgld": ("SGLD", {**SMALL_STEP, "batch_size": 150}, {"draws": 300, "warmup": 20}),
    "sgld_partition": (
        "SGLD",
        {**SMALL_STEP, "batch_size": 30, "gradient": "partition"},
        {"draws": 300, "warmup": 20},
    ),
    "underdamped": ("UnderdampedLangevin", {}, {"draws": 300}),
    "hmc": ("HMC", {}, {"draws": 200}),
}


@pytest.fixture(scope="module")
def problem():
    """Classes that a tanh network of 145 weights has learnt, and rows to explain."""
    import jax
    import jax.numpy as jnp
    from numpyro.optim import Adam

    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(150, 8)))
    y = np.argmax(x[:, :5] + 0.5 * rng.normal(size=(150, 5)), axis=1)
    model = get_backend("numpyro").mlp(random_layers([8, 10, 5]), **SETTINGS)
    optimizer = Adam(0.01)

    def loss(weights):
        fit = -model.log_likelihood(weights, (jnp.asarray(x), jnp.asarray(y))).mean()
        return fit + 0.01 * sum(jnp.sum(w**2) for w in weights.values())

    def step(state, _):
        return optimizer.update(jax.grad(loss)(optimizer.get_params(state)), state), None

    state = jax.lax.scan(step, optimizer.init(model.mode), None, length=1000)[0]
    trained = {name: np.asarray(w) for name, w in optimizer.get_params(state).items()}
    layers = [(trained[f"W{i}"], trained[f"b{i}"]) for i in range(2)]
    return layers, (x, y)


@pytest.fixture(scope="module")
def nuts(problem):
    import jax
    import xarray as xr
    from numpyro.infer import MCMC, NUTS, log_likelihood

    layers, data = problem
    model = get_backend("numpyro").mlp(layers, **SETTINGS)
    mcmc = MCMC(
        NUTS(model), num_warmup=500, num_samples=1500, num_chains=4, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0), *data)
    flat = log_likelihood(model, mcmc.get_samples(), *data)["obs"]
    values = np.asarray(flat).reshape(4, 1500, -1)
    likelihood = xr.Dataset({"obs": (("chain", "draw", "row"), values)})
    return bif.influence(inference_data({"log_likelihood": likelihood}, {}))


def test_same_joint_density_in_both_backends(problem, backend):
    layers, data = problem
    reference = get_backend("numpyro")
    expected = reference.log_joint(reference.mlp(layers, **SETTINGS), data)
    found = backend.log_joint(backend.mlp(layers, **SETTINGS), data)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module", params=in_turn(KERNELS))
def run(request, problem):
    (layers, data), (name, backend) = problem, request.param
    kernel, settings, options = KERNELS[name]
    model = get_backend(backend).mlp(layers, **SETTINGS)
    sampled = bif.sample(
        model.make_kernel(kernel, **settings), train=data, query=data, chains=20, **options
    )
    return f"{backend}, {name}", sampled


def compare(scores, nuts):
    """Pearson correlation, slope, and the share within 1.96 combined errors."""
    found, expected = scores["influence"].values, nuts["influence"].values
    errors = np.hypot(scores["mcse"].values, nuts["mcse"].values)
    return (
        np.corrcoef(found.ravel(), expected.ravel())[0, 1],
        (found * expected).sum() / (expected**2).sum(),
        (np.abs(found - expected) <= 1.96 * errors).mean(),
    )


def test_scores_agree(run, nuts, record_property):
    name, sampled = run
    pearson, slope, within = compare(bif.influence(sampled, shrink=None), nuts)
    record_property("found", f"{name}: {describe(pearson, slope, within)}")
    assert pearson >= 0.985
    assert abs(slope - 1) < 0.04
    assert 0.90 <= within <= 0.98


def test_shrunk_scores_agree_as_well(run, nuts, record_property):
    name, sampled = run
    plain, _, _ = compare(bif.influence(sampled, shrink=None), nuts)
    pearson, slope, within = compare(bif.influence(sampled, shrink="eb"), nuts)
    record_property("found", f"{name}, shrunk: {describe(pearson, slope, within)}")
    assert pearson >= plain - 0.001
    assert 0.92 < slope < 1.04
    assert 0.90 <= within <= 0.98


def describe(pearson, slope, within):
    return f"Pearson {pearson:.4f}, slope {slope:.3f}, within 1.96 combined errors {within:.3f}"
