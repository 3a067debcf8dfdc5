"""Any module, left as it was: copies in evaluation mode, buffers, ties, names, other inputs."""

import copy

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_bif as bif
from ppl_bif.pyro import HMC, SGLD, UnderdampedLangevin, localize

# Networks that were never trained are far from the mode of their posterior.
pytestmark = [
    pytest.mark.pyro,
    pytest.mark.filterwarnings("ignore:these draws will not be scored"),
]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return np.float32(rng.normal(size=(24, 4))), rng.integers(3, size=24)


def noisy_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)
    )
    network(torch.randn(50, 4))
    return network


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_network_is_untouched_and_adds_no_variance(data, chain_method):
    network = noisy_network()
    before, training = copy.deepcopy(network.state_dict()), network.training
    model = localize(network, likelihood="categorical")
    kernel = SGLD(model, batch_size=8, steps_per_draw=2)
    run = bif.sample(kernel, train=data, query=data, draws=4, warmup=20, chain_method=chain_method)
    assert network.training == training
    assert all(w.requires_grad for w in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    # Train and query are the same rows, scored apart: any noise in a pass would show.
    likelihood = run["log_likelihood"]
    np.testing.assert_array_equal(likelihood["train_obs"].values, likelihood["query_obs"].values)


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_normalizing_layers_run_in_bfloat16(data, chain_method):
    network = noisy_network()
    exact, cast = (
        localize(network, likelihood="categorical", localization=50.0, compute_dtype=dtype)
        for dtype in (None, "bfloat16")
    )
    first, second = (
        bif.sample(
            SGLD(model, batch_size=8, step_size=1e-8, steps_per_draw=1),
            train=data,
            query=data,
            draws=2,
            warmup=0,
            chains=2,
            chain_method=chain_method,
        )["log_likelihood"]["train_obs"].values
        for model in (exact, cast)
    )
    assert 0 < np.abs(first - second).max() < 0.1
    assert network[1].running_mean.dtype == torch.float32


def test_vectorized_and_sequential_score_alike(data):
    model = localize(noisy_network(), likelihood="categorical")
    settings = {"step_size": 1e-3, "steps_per_draw": 2, "temperature": 0.0}
    kernel = SGLD(model, batch_size=24, **settings)
    runs = [
        bif.sample(kernel, train=data, query=data, draws=4, warmup=20, chain_method=method)
        for method in ("vectorized", "sequential")
    ]
    values = [run["log_likelihood"]["train_obs"].values for run in runs]
    np.testing.assert_allclose(*values, atol=1e-5)


class Tied(nn.Module):
    """Two named inputs, tied weights, per-token outputs."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.out = nn.Linear(5, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens, shift):
        return self.out(self.embed(tokens) + shift[..., None])


def test_tied_weights_named_inputs_and_tokens():
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=(12, 6))
    labels[:, -1] = -100
    data = {
        "tokens": rng.integers(7, size=(12, 6)),
        "shift": np.float32(rng.normal(size=(12, 6))),
        "labels": labels,
    }
    model = localize(Tied(), likelihood="tokens")
    assert list(model.mode) == ["embed.weight"]
    run = bif.sample(SGLD(model, batch_size=6), train=data, query=data, draws=20)
    tokens = run["log_likelihood"]["train_obs"]
    assert tokens.dims == ("chain", "draw", "train", "train_token")
    assert (tokens[..., -1] == 0).all()
    assert (tokens[..., :-1] < 0).all()
    assert bif.influence(run)["influence"].shape == (12, 12)


def test_network_that_cannot_be_mapped_runs_in_sequence(data):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            out = self.layer(x)
            return out if out.sum() > 0 else 2 * out

    kernel = SGLD(localize(Branching(), likelihood="categorical"), batch_size=8, steps_per_draw=2)
    with pytest.raises(RuntimeError) as failed:
        bif.sample(kernel, train=data, query=data, draws=2, chain_method="vectorized")
    assert any('chain_method="sequential"' in note for note in failed.value.__notes__)
    run = bif.sample(kernel, train=data, query=data, draws=2, chain_method="sequential")
    assert run["log_likelihood"].sizes["draw"] == 2


@pytest.mark.parametrize(
    "likelihood",
    [
        lambda out: dist.Normal(out, 0.5),
        lambda out, batch: dist.Normal(out, 0.5).log_prob(batch[-1]),
    ],
)
def test_likelihoods_of_ones_own(data, likelihood):
    network = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    x, y = data[0], data[0][:, 0]
    run = bif.sample(
        SGLD(localize(network, likelihood=likelihood), batch_size=8, steps_per_draw=2),
        train=(x, y), query=(x, y), draws=3, warmup=0, save_weights=True,
    )  # fmt: skip
    weights = run["posterior"]["0.weight"].values[..., 0, :]
    means = weights @ x.T + run["posterior"]["0.bias"].values
    expected = -(((y - means) / 0.5) ** 2) / 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(run["log_likelihood"]["train_obs"], expected, rtol=1e-3, atol=1e-4)


def convolving():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    )


def test_convolutions_go_chain_by_chain_and_give_what_vmap_gives(data):
    _, y = data
    x = np.random.default_rng(1).normal(size=(24, 1, 6, 6)).astype(np.float32)
    settings = {"step_size": 1e-3, "steps_per_draw": 2, "temperature": 0.0, "batch_size": 24}
    values = []
    for turns in (True, False):
        model = localize(convolving(), likelihood="categorical")
        assert model.convolves_on_cpu
        model.network = model.network._replace(convolves=turns)
        kernel = SGLD(model, **settings)
        run = bif.sample(kernel, train=(x, y), query=(x, y), draws=4, warmup=20)
        values.append(run["log_likelihood"]["train_obs"].values)
    np.testing.assert_allclose(*values, atol=1e-5)


def test_networks_that_view_what_convolutions_give(data):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(64, 3)

        def forward(self, x):
            return self.last(self.first(x).view(len(x), -1))

    x = np.random.default_rng(1).normal(size=(24, 1, 6, 6)).astype(np.float32)
    settings = {"batch_size": 8, "step_size": 1e-3, "steps_per_draw": 2}
    kernel = SGLD(localize(Viewing(), likelihood="categorical"), **settings)
    for chains in (1, 2):
        bif.sample(kernel, train=(x, data[1]), query=(x, data[1]), draws=4, warmup=0, chains=chains)


def test_branches_on_weights_are_followed_where_a_trace_would_get_them_wrong(data):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = convolving()
            with torch.no_grad():
                self.inner[0].weight -= self.inner[0].weight.mean()

        def forward(self, x):
            return self.inner(x) if self.inner[0].weight.sum() > 0 else -self.inner(x)

    x = np.random.default_rng(0).normal(size=(24, 1, 6, 6)).astype(np.float32)
    network = Branching()
    settings = {"batch_size": 8, "step_size": 1e-3, "steps_per_draw": 8}
    kernel = SGLD(localize(network, likelihood="categorical"), **settings)
    settings = {"train": (x, data[1]), "query": (x, data[1]), "draws": 4, "save_weights": True}
    run = bif.sample(kernel, **settings, warmup=0)
    weights = {n: torch.from_numpy(run["posterior"][n].values) for n in run["posterior"].data_vars}
    ways, labels = set(), torch.as_tensor(data[1])
    for chain, draw in np.ndindex(*weights["inner.0.weight"].shape[:2]):
        network.load_state_dict({name: w[chain, draw] for name, w in weights.items()})
        ways.add(bool(network.inner[0].weight.sum() > 0))
        with torch.no_grad():
            logits = network(torch.from_numpy(x))
        expected = -torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        found = run["log_likelihood"]["train_obs"].values[chain, draw]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert ways == {True, False}


@pytest.mark.parametrize(
    ("kernel", "preconditioner"),
    [
        (SGLD, None),
        (UnderdampedLangevin, "low_rank"),
        (UnderdampedLangevin, "rmsprop"),
        (HMC, None),
    ],
)
def test_a_weight_that_is_a_single_number(kernel, preconditioner):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.scale = nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.scale * (x @ self.w)

    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows = x, 2 * x.sum(1)
    given = {"batch_size": 8} if kernel is SGLD else {}
    if preconditioner:
        given["preconditioner"] = preconditioner
    model = localize(Scaled(), likelihood="normal", localization=10.0)
    idata = bif.sample(
        kernel(model, **given), train=rows, query=rows, chains=2, draws=20, save_weights=True
    )
    moved = idata["posterior"]["scale"]
    assert moved.dims == ("chain", "draw")
    assert 0.001 < float(moved.std()) < 0.3
