"""Traced graphs: the results of what they were traced from, in fewer operations."""

import numpy as np
import pytest
import torch
from torch import nn

from ppl_bif.pyro import localize
from ppl_bif.pyro.chainwise import Chainwise, over_chains
from ppl_bif.pyro.gradients import Data, Gradients
from ppl_bif.pyro.graphs import traced

pytestmark = pytest.mark.pyro

CHAINS, ROWS = 3, 40


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights_of(model):
    return {
        name: w + 0.1 * draw(CHAINS, *w.shape, seed=i)
        for i, (name, w) in enumerate(model.mode.items())
    }


def network(classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, classes)
    )


@pytest.mark.parametrize("classes", [2, 10, 15, 16, 40])
def test_scores_and_gradients_are_those_of_each_chain_alone(classes):
    model = localize(network(classes), likelihood="categorical", localization=1.0)
    batch = (draw(ROWS, 5), torch.arange(ROWS) % classes)
    weights, gradients = weights_of(model), Gradients(model)
    scores = Chainwise(model.log_likelihood)((weights,), (batch,))
    slopes, values = gradients(weights, Data.of(batch))
    torch.testing.assert_close(values, scores)
    for c in range(CHAINS):
        own = {name: w[c : c + 1] for name, w in weights.items()}
        alone, seen = gradients(own, Data.of(batch))
        torch.testing.assert_close(scores[c : c + 1], seen)
        for name, slope in alone.items():
            torch.testing.assert_close(slopes[name][c : c + 1], slope, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("classes", [3, 30])
@pytest.mark.parametrize("likelihood", ["categorical", "tokens"])
def test_classes_are_scored_as_a_distribution_scores_them(classes, likelihood):
    logits, labels = 5 * draw(ROWS, 6, classes), torch.arange(6 * ROWS).view(ROWS, 6) % classes
    if likelihood == "categorical":
        logits, labels = logits[:, 0], labels[:, 0]
    found = localize(network(3), likelihood=likelihood).likelihood.pointwise(logits, (labels,))
    expected = torch.distributions.Categorical(logits=logits).log_prob(labels)
    torch.testing.assert_close(found, expected)


def operations(function, *leaves):
    return [str(node.target) for node in traced(function, leaves).__self__.graph.nodes]


def test_memory_is_reused_only_where_nothing_else_reads_it():
    a, b = draw(4, 4), draw(4, 1)
    for function, expected in [
        (lambda a, b: [torch.relu(a @ a + b)], ["add_", "relu_"]),
        (lambda a, b: [torch.relu(b + a @ a)], ["add_", "relu_"]),
        (lambda a, b: [torch.relu((a @ a).T + b)], ["add_", "relu_"]),
        (lambda a, b: [torch.relu(a)], []),
        (lambda a, b: [(a @ a).tanh(), a.T.relu()], ["tanh_"]),
        (lambda a, b: [product := a @ a, product + b], []),
        (lambda a, b: [product := a @ a, product.T + b], []),
        (lambda a, b: [b * b + a], []),
        (lambda a, b: [torch.add(a, a @ a, alpha=2.0)], []),
        (lambda a, b: [(product := a @ a) * product], ["mul_"]),
    ]:  # fmt: skip
        before = a.clone(), b.clone()
        found = traced(function, [a, b])(a, b)
        torch.testing.assert_close([a, b], list(before))
        torch.testing.assert_close(found, function(a, b))
        names = [name.split(".")[1] for name in operations(function, a, b) if "_." in name]
        assert names == expected


def test_what_vmap_leaves_behind_is_left_out():
    def function(a, b):
        return [torch.func.vmap(nn.functional.linear, in_dims=(None, 0))(a, b)]

    kept = operations(function, draw(30, 5), draw(CHAINS, 4, 5))
    assert sum("bmm" in name for name in kept) == 1
    # Few columns: of weights as they lie, and of rows seen from the side.
    assert sum("transpose" in name for name in kept) <= 2


class Viewing(nn.Module):
    """Calls ``view`` where few columns laid out as rows cannot be viewed."""

    def __init__(self):
        super().__init__()
        self.each, self.last = nn.Linear(5, 2), nn.Linear(2 * 30, 3)

    def forward(self, x):
        return self.last(self.each(x).view(len(x), -1))


def test_networks_that_view_products_are_traced():
    torch.manual_seed(0)
    model = localize(Viewing(), likelihood="categorical")
    batch, weights = (draw(8, 30, 5), torch.arange(8) % 3), weights_of(model)
    found = Chainwise(model.log_likelihood)((weights,), (batch,))
    expected = over_chains(model.log_likelihood, (weights,), (batch,))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_batches_of_other_names_and_shapes_have_graphs_of_their_own():
    def function(w, batch):
        return w * (batch["x"] - batch["y"])

    mapped, x, y = Chainwise(function), draw(4), draw(4, seed=1)
    w = draw(2)
    for batch in ({"x": x, "y": y}, {"y": x, "x": y}, {"x": x[:3], "y": y[:3]}):
        torch.testing.assert_close(mapped((w,), (batch,)), w[:, None] * (batch["x"] - batch["y"]))
