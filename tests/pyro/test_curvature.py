"""Products with the Hessian: the same whether chains and rows go together or in parts."""

import numpy as np
import pytest
import torch

from ppl_bif.pyro import curvature, localize
from ppl_bif.pyro.gradients import Data

ROWS = 70


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    ).double()


@pytest.fixture
def convolving(monkeypatch):
    monkeypatch.setattr(curvature, "CONVOLVED_AT_ONCE", 32)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, 1, 4, 4)), rng.integers(3, size=ROWS)
    data = Data((torch.tensor(x), torch.tensor(y)), {})
    model = localize(network(), likelihood="categorical", localization=2.0)
    weights = {n: torch.stack([w + 0.3 * c for c in range(3)]) for n, w in model.mode.items()}
    return model, data, weights


def exact(model, data, at, rows):
    alone = {n: w[None] for n, w in at.items()}

    def energy(w):
        named = {n: v[0] for n, v in curvature.unflatten(w[None], alone).items()}
        return curvature.potential(model, named, *data, rows)[0]

    return torch.autograd.functional.hessian(energy, curvature.flatten(alone)[0])


@pytest.mark.parametrize("shared", [False, True])
def test_parts_of_rows_add_up(convolving, shared):
    model, data, weights = convolving
    chosen = curvature.spread_rows(model, data)
    rows = curvature.share_out(chosen, 3) if shared else chosen.expand(3, -1)
    assert rows.shape == (3, ROWS // 3 if shared else ROWS)
    product = curvature.hessian_product(model, data, weights, rows)
    vector = torch.tensor(np.random.default_rng(1).normal(size=(3, model.num_weights)))
    found = product(vector)
    for c in range(3):
        hessian = exact(model, data, {n: w[c] for n, w in weights.items()}, rows[c])
        torch.testing.assert_close(found[c], hessian @ vector[c])


def test_rows_are_shared_out_evenly():
    rows = curvature.share_out(torch.arange(10), 3)
    assert rows.shape == (3, 3)
    assert len(rows.unique()) == 9
    # Each sees all of what is spread over the data.
    assert (rows.diff(dim=1) == 3).all()
    torch.testing.assert_close(
        curvature.share_out(torch.arange(2), 3), torch.arange(2).expand(3, 2)
    )
