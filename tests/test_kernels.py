"""Every kernel has the stationary law that theory gives it on a Gaussian, in both backends."""

from typing import NamedTuple

import numpy as np
import pytest

import ppl_bif as bif
from tests.truth import make_linear

ROWS, D = 60, 3
# Eigenvalues of the posterior's precision are set far apart, so that a wrong metric shows.
STRETCH = np.array([1.0, 1.7, 3.0])


class Case(NamedTuple):
    """A kernel, its settings, and its step times L (SGLD) or times the root of L (others)."""

    kernel: str
    step: float
    settings: dict
    draws: int = 250


CASES = {
    "sgld": Case("SGLD", 0.8, {"batch_size": ROWS, "steps_per_draw": 8}),
    "sgld_low_rank": Case(
        "SGLD", 0.8, {"batch_size": ROWS, "preconditioner": "low_rank", "steps_per_draw": 4}
    ),
    "sgld_control_variates": Case(
        "SGLD", 0.8, {"batch_size": 12, "gradient": "control_variates", "steps_per_draw": 8}
    ),
    "sgld_partition": Case(
        "SGLD", 0.8, {"batch_size": 12, "gradient": "partition", "steps_per_draw": 8}
    ),
    "sgld_tempered": Case(
        "SGLD", 0.8, {"batch_size": ROWS, "temperature": 0.25, "steps_per_draw": 8}
    ),
    "underdamped": Case("UnderdampedLangevin", 1.2, {"preconditioner": None, "steps_per_draw": 4}),
    "underdamped_low_rank": Case("UnderdampedLangevin", 1.2, {"steps_per_draw": 4}),
    "underdamped_large_step": Case(
        "UnderdampedLangevin", 1.8, {"preconditioner": None, "steps_per_draw": 6}
    ),
    "underdamped_batched": Case(
        "UnderdampedLangevin", 1.2, {"preconditioner": None, "batch_size": 25, "steps_per_draw": 4}
    ),
    "underdamped_rmsprop": Case(
        "UnderdampedLangevin", 1.2, {"preconditioner": "rmsprop", "steps_per_draw": 4}
    ),
    "mala": Case("HMC", 0.8, {"leapfrog_steps": 1, "steps_per_draw": 6}),
    "hmc": Case("HMC", 0.8, {"leapfrog_steps": 3, "steps_per_draw": 2}),
}


@pytest.fixture(scope="module")
def linear():
    """A regression whose w* is off its posterior mean."""
    made = make_linear(ROWS, D, gamma=10.0)
    x = (made.x * STRETCH).astype(np.float32).astype(float)
    return made._replace(x=x, y=(x @ made.mode + made.y - made.x @ made.mode).astype(np.float32))


def partition_covariance(linear, eps, batches):
    """Stationary covariance of SGLD over the minibatches of a fixed partition, solved exactly.

    With d = w - mu and the batch b of K drawn, d' = (I - eps/2 (A + D_b)) d - eps/2 D_b (mu - w*)
    + N(0, eps I), where D_b = K X_b' X_b - X' X.
    """
    x, identity = linear.x, np.eye(D)
    off = linear.mean() - linear.mode
    change = [len(batches) * x[b].T @ x[b] - x.T @ x for b in batches]
    drifts = [identity - eps / 2 * (linear.precision() + c) for c in change]
    pushes = [eps / 2 * c @ off for c in change]
    step = np.mean([np.kron(m, m) for m in drifts], axis=0)
    source = eps * identity + np.mean([np.outer(p, p) for p in pushes], axis=0)
    return np.linalg.solve(np.eye(D * D) - step, source.ravel()).reshape(D, D)


def expected(linear, case, kernel):
    """Covariance of the law of a case, by its formula."""
    exact = linear.covariance() * case.settings.get("temperature", 1.0)
    if case.kernel != "SGLD":
        return exact
    values, vectors = np.linalg.eigh(linear.precision())
    eps = case.step / values.max()
    if case.settings.get("preconditioner") == "low_rank":
        # All directions have the curvature of the flattest.
        eps = case.step / values.min()
        values = np.full(D, values.min())
        return exact / (1 - eps * values[0] / 4)
    if case.settings.get("gradient") == "control_variates":
        return linear.sgld_covariance(eps, case.settings["batch_size"], centred=True)
    if case.settings.get("gradient") == "partition":
        engine = kernel.bind(
            {"train": linear.data, "query": linear.data}, evaluation_batch_size=ROWS
        )
        batches = np.asarray(engine.start([0], 0).shared.stored.rows)
        return partition_covariance(linear, eps, batches)
    return exact @ (vectors / (1 - eps * values / 4)) @ vectors.T


def make_kernel(backend, linear, case):
    model = backend.linear(linear.mode, localization=linear.gamma)
    values = np.linalg.eigvalsh(linear.precision())
    preconditioned = case.settings.get("preconditioner", "low_rank") == "low_rank"
    if case.kernel == "HMC" or not case.settings.get("preconditioner", case.kernel != "SGLD"):
        preconditioned = False
    top = values.min() if preconditioned else values.max()
    step = case.step / (top if case.kernel == "SGLD" else top**0.5)
    if case.settings.get("preconditioner") == "rmsprop":
        step = None
    return model.make_kernel(case.kernel, step_size=step, **case.settings)


def sample(linear, case, kernel, *, chains=400):
    return bif.sample(
        kernel,
        train=linear.data,
        query=linear.data,
        chains=chains,
        draws=case.draws,
        warmup=20,
        save_weights=True,
    )


@pytest.mark.parametrize("name", CASES)
def test_stationary_law(backend, linear, name):
    case = CASES[name]
    kernel = make_kernel(backend, linear, case)
    run = sample(linear, case, kernel)
    law, draws = expected(linear, case, kernel), run["posterior"]["w"].values.astype(float)
    draws = draws.reshape(-1, D)
    found = np.cov(draws.T)
    values, vectors = np.linalg.eigh(law)
    whitened = (vectors / values**0.5).T @ found @ (vectors / values**0.5)
    np.testing.assert_allclose(whitened, np.eye(D), atol=0.02)
    off = (draws.mean(0) - linear.mean()) / np.sqrt(np.diag(law))
    assert np.abs(off).max() < 0.02
    influence = bif.influence(run, shrink=None)["influence"].values
    truth = linear.influence(*linear.data, law)
    assert abs((truth * influence).sum() / (truth**2).sum() - 1) < 0.02
    assert np.corrcoef(truth.ravel(), influence.ravel())[0, 1] > 0.999
