"""The BIF under SGLD is that under NUTS on the same localized model of a small network."""

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import inference_data
from tests.backends import get_backend, random_layers

pytestmark = [pytest.mark.numpyro, pytest.mark.slow]

SETTINGS = {"localization": 30.0, "inverse_temperature": 1.0}


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


def test_scores_agree(problem, nuts, backend, record_property):
    layers, data = problem
    kernel = backend.SGLD(
        backend.mlp(layers, **SETTINGS), step_size=2e-4, batch_size=150, steps_per_draw=40
    )
    run = bif.sample(kernel, train=data, query=data, chains=20, draws=300, warmup=20)
    sgld = bif.influence(run)
    pearson = np.corrcoef(sgld["influence"].values.ravel(), nuts["influence"].values.ravel())[0, 1]
    errors = np.hypot(sgld["mcse"].values, nuts["mcse"].values)
    within = np.abs(sgld["influence"].values - nuts["influence"].values) <= 1.96 * errors
    record_property(
        "found",
        f"{backend.name}: Pearson {pearson:.4f}, within 1.96 combined errors {within.mean():.3f}",
    )
    assert pearson >= 0.98
    assert 0.90 <= within.mean() <= 0.98
