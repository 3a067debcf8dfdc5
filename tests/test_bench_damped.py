"""The benchmark's damped influence is that of the dense Hessian."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.pyro


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
    small = damped.Small(
        basis @ images.T, damped.projected(network, train, basis), explained @ basis.T
    )
    score = small.solve(2.0, len(basis))
    np.testing.assert_allclose(score, 2.0 * exact.numpy(), rtol=1e-3, atol=1e-4)


def test_hessian_of_some_rows_is_rescaled():
    from benchmarks.lds import damped

    network = torch.nn.Linear(2, 2)
    rows = torch.ones(8, 2), torch.zeros(8, dtype=torch.long)
    vector = torch.arange(6.0)[None]
    whole, some = (damped.hessian(network, rows, count)(vector) for count in (None, 4))
    torch.testing.assert_close(some, whole)
