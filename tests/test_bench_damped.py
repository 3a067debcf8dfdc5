"""The benchmark's damped influence is that of the dense Hessian."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.pyro,
    # PyTorch's own, where it first differentiates forwards.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]


def summed_loss(network, x, y, flat):
    named = dict(network.named_parameters())
    parts = flat.split([w.numel() for w in named.values()])
    weights = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
    logits = torch.func.functional_call(network, weights, x)
    return torch.nn.functional.cross_entropy(logits, y, reduction="sum")


def test_small_space_solves_the_whole_problem():
    from benchmarks.lds import damped

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    train = torch.randn(60, 3), torch.randint(2, (60,))
    query = torch.randn(5, 3), torch.randint(2, (5,))

    weights = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    hessian = torch.autograd.functional.hessian(partial(summed_loss, network, *train), weights)
    explained, rows = damped.gradients(network, query), damped.gradients(network, train)
    exact = explained @ torch.linalg.solve(hessian + 2.0 * torch.eye(len(weights)), rows.T)

    basis, images = damped.krylov(damped.hessian(network, train), explained, products=4)
    within = damped.within(network, train, basis)
    small = damped.Small(basis @ images.T, *within, explained @ basis.T)
    score = small.solve(2.0, len(basis))
    np.testing.assert_allclose(score, 2.0 * exact.numpy(), rtol=1e-3, atol=1e-4)


def test_noise_is_that_of_sample_covariances():
    from benchmarks.lds import damped

    rng = np.random.default_rng(0)
    hessian = np.diag([9.0, 3.0, 1.0])
    train, query = rng.normal(size=(30, 4)), rng.normal(size=(2, 4))
    # Nothing is known of the last direction but that queries have none of it, and no curvature.
    query[:, 3] = 0
    arrays = hessian, train[:, :3], train[:, 3] ** 2, query[:, :3]
    small = damped.Small(*map(torch.from_numpy, arrays))
    damping, draws = 2.0, 50
    spread = np.sqrt(damping / (np.append(np.diag(hessian), 0) + damping))
    weights = spread * rng.normal(size=(4_000, draws, 4))
    of_train, of_query = weights @ train.T, weights @ query.T
    found = np.einsum("rsq,rsi->rqi", of_query, of_train) / draws
    exact = small.solve(damping, 3)
    # A sample covariance has the square of the covariance in its variance as well.
    error = ((found - exact) ** 2).mean(axis=(0, 2)) * draws - (exact**2).mean(axis=1)
    np.testing.assert_allclose(error, small.noise(damping), rtol=0.02)


def test_gauss_newton_is_the_hessian_of_a_linear_network():
    from benchmarks.lds import damped

    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 4)
    rows, vectors = (torch.randn(20, 3), torch.randint(4, (20,))), torch.randn(5, 16)
    for count in (None, 10):
        products = [
            of(linear, rows, count)(vectors) for of in (damped.gauss_newton, damped.hessian)
        ]
        torch.testing.assert_close(*products)


def test_gauss_newton_of_a_network_has_no_negative_curvature():
    from benchmarks.lds import damped

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    rows = torch.randn(9, 1, 4, 4), torch.randint(3, (9,))
    size = sum(w.numel() for w in network.parameters())
    matrix = damped.gauss_newton(network, rows)(torch.eye(size))
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-4, atol=1e-5)
    assert torch.linalg.eigvalsh(matrix)[0] > -1e-4
    narrow = damped.gauss_newton(network, rows, dtype=torch.bfloat16)(torch.eye(size))
    assert torch.linalg.norm(narrow - matrix) < 0.02 * torch.linalg.norm(matrix)


def test_hessian_of_some_rows_is_rescaled():
    from benchmarks.lds import damped

    network = torch.nn.Linear(2, 2)
    rows = torch.ones(8, 2), torch.zeros(8, dtype=torch.long)
    vector = torch.arange(6.0)[None]
    whole, some = (damped.hessian(network, rows, count)(vector) for count in (None, 4))
    torch.testing.assert_close(some, whole)
