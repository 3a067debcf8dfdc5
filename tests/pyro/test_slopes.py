"""Networks that vmap or second derivatives do not take as they are."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ppl_bif.pyro import localize


class Attending(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.head = torch.nn.Linear(4, 12), torch.nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.mix(x).chunk(3, dim=-1)
        return self.head(scaled_dot_product_attention(q, k, v, is_causal=True))


class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head(-x if bool((x > 1e9).all()) else x)


class Doubled(torch.autograd.Function):
    """Without a forward derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


class Doubling(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        return Doubled.apply(self.head(x))


def slopes_of(network, likelihood, shape):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(6, *shape, 4))), rng.integers(3, size=(6, *shape))
    model = localize(network(), likelihood=likelihood, localization=1.0)
    mode = np.concatenate([model.mode[n].numpy().ravel() for n in sorted(model.mode)])
    return model.make_slopes({"train": (x, y)}), mode[None]


@pytest.mark.parametrize(
    ("network", "likelihood", "shape"),
    [
        (Attending, "tokens", (5,)),
        (Branching, "categorical", ()),
        (Doubling, "categorical", ()),
    ],
)
def test_one_point_at_a_time(network, likelihood, shape):
    slopes, at = slopes_of(network, likelihood, shape)
    eye = np.eye(at.shape[1], dtype=np.float32)
    total = -slopes.uphill(at, eye)[0]
    np.testing.assert_allclose(slopes.gradients("train", at).sum(axis=0), total, atol=1e-4)
    vector = np.float32(np.random.default_rng(1).normal(size=at.shape[1]))
    ahead, behind = (slopes.uphill(at + step * vector, eye)[0] for step in (0.01, -0.01))
    expected = (ahead - behind) / 0.02 - vector  # less the prior's
    product = slopes.hessian(at, np.arange(6)[None])
    np.testing.assert_allclose(product(vector), expected, atol=0.02)
