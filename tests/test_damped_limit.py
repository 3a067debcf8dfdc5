"""Where the posterior is narrow, the BIF is the damped influence function, exact Hessian."""

import numpy as np
import pytest

import ppl_bif as bif
from tests.backends import get_backend, in_turn, random_layers

pytestmark = pytest.mark.numpyro

BETA, DAMPING = 1e4, 5.0
# Kernel, settings, chains, least Pearson correlation, limits of the slope. SGLD samples the
# stiffest directions up to 14% too wide at its default step; the others have no such bias.
KERNELS = {
    "sgld": ("SGLD", {"batch_size": 60, "steps_per_draw": 8}, 60, 0.995, (1.0, 1.14)),
    "underdamped": ("UnderdampedLangevin", {}, 160, 0.999, (0.98, 1.02)),
    "hmc": ("HMC", {"preconditioner": "low_rank"}, 80, 0.999, (0.98, 1.02)),
}


@pytest.fixture(scope="module")
def problem():
    """A tanh regression of 57 weights, its data, and the damped influence at the mode."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    rng = np.random.default_rng(0)
    layers = random_layers([5, 8, 1], seed=1)
    x = np.float32(rng.normal(size=(60, 5)))
    y = np.float32(np.tanh(x[:, :1]) + 0.3 * rng.normal(size=(60, 1)))
    model = get_backend("numpyro").mlp(layers, likelihood="normal")
    flat, unravel = ravel_pytree(model.mode)

    def loss(w):
        return -model.log_likelihood(unravel(w), (jnp.asarray(x), jnp.asarray(y)))

    @jax.jit
    def descend(w):
        return w - 2e-3 * jax.grad(lambda w: loss(w).sum() + 0.5 * jnp.sum(w**2))(w)

    @jax.jit
    def expand(w):
        return jax.jacobian(loss)(w), jax.hessian(lambda w: loss(w).sum())(w)

    for _ in range(2000):
        flat = descend(flat)
    # The posterior narrows around its mode, which is near w*: a few steps of Newton from there.
    mode = np.asarray(flat, float)
    for _ in range(5):
        gradients, hessian = (np.asarray(part, float) for part in expand(jnp.float32(mode)))
        damped = hessian + DAMPING * np.eye(len(mode))
        mode = mode - np.linalg.solve(damped, gradients.sum(0) + DAMPING * (mode - flat))
    trained = {name: np.asarray(w) for name, w in unravel(flat).items()}
    layers = [(trained[f"W{i}"], trained[f"b{i}"]) for i in range(2)]
    return layers, (x, y), gradients @ np.linalg.solve(damped, gradients.T)


@pytest.mark.parametrize("case", in_turn(KERNELS))
def test_narrow_posterior_gives_the_damped_influence(problem, case, record_property):
    (layers, data, expected), (name, backend) = problem, case
    kernel, settings, chains, least, (low, high) = KERNELS[name]
    model = get_backend(backend).mlp(
        layers, likelihood="normal", inverse_temperature=BETA, localization=BETA * DAMPING
    )
    run = bif.sample(
        model.make_kernel(kernel, **settings), train=data, query=data, chains=chains, draws=150
    )
    found = bif.influence(run)["influence"].values
    pearson = np.corrcoef(expected.ravel(), found.ravel())[0, 1]
    slope = (expected.ravel() @ found.ravel()) / (expected.ravel() @ expected.ravel())
    record_property(
        "found",
        f"{backend}, {name}: Pearson with the damped influence {pearson:.4f}, slope {slope:.4f}",
    )
    assert pearson >= least
    assert low < slope < high
