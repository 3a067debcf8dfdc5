"""Networks as JAX users have them: apply functions, flax linen and nnx, equinox."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import ppl_bif as bif
from ppl_bif.numpyro import SGLD, localize, outside

# Networks that were never trained are far from the mode of their posterior.
pytestmark = [
    pytest.mark.numpyro,
    pytest.mark.filterwarnings("ignore:these draws will not be scored"),
]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return np.float32(rng.normal(size=(24, 4))), rng.integers(3, size=24)


def sample(model, data, **options):
    kernel = SGLD(model, batch_size=8, steps_per_draw=2)
    return bif.sample(kernel, train=data, query=data, draws=4, **options)


def same_twice(run):
    """Train and query are the same rows, scored apart: any noise in a pass would show."""
    likelihood = run["log_likelihood"]
    np.testing.assert_array_equal(likelihood["train_obs"].values, likelihood["query_obs"].values)


def test_nnx_is_untouched_and_adds_no_variance(data):
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.drop(self.norm(self.first(x)))))

    network = Net(nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    model = localize(network, likelihood="categorical")
    assert "first.kernel" in model.mode
    same_twice(sample(model, data))
    after = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not network.drop.deterministic


def test_linen_with_batch_statistics(data):
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x))
            return nn.Dense(3)(nn.relu(x))

    network = Net()
    variables = network.init(jax.random.key(0), data[0])
    model = localize(network, variables, likelihood="categorical")
    assert not any("mean" in name for name in model.mode)
    same_twice(sample(model, data))


def test_equinox_sees_one_example(data):
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.Sequential(
        [
            eqx.nn.Linear(4, 8, key=jax.random.key(0)),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.5),
            eqx.nn.Linear(8, 3, key=jax.random.key(1)),
        ]
    )
    same_twice(sample(localize(network, likelihood="categorical"), data))


def test_vectorized_and_sequential_chains_are_the_same(data):
    params = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    model = localize(lambda p, x: x @ p["w"] + p["b"], params, likelihood="categorical")
    values = [
        bif.sample(
            SGLD(model, batch_size=8, step_size=1e-3, steps_per_draw=2),
            train=data,
            query=data,
            draws=4,
            warmup=20,
            chain_method=method,
        )["log_likelihood"]["train_obs"].values
        for method in ("vectorized", "sequential")
    ]
    np.testing.assert_allclose(*values, atol=1e-3)


def test_tokens_and_named_inputs():
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=(12, 6))
    labels[:, -1] = -100
    data = {"tokens": rng.integers(7, size=(12, 6)), "labels": labels}
    params = {"embed": jnp.float32(rng.normal(size=(7, 5)))}
    model = localize(
        lambda p, tokens: p["embed"][tokens] @ p["embed"].T, params, likelihood="tokens"
    )
    tokens = sample(model, data)["log_likelihood"]["train_obs"]
    assert tokens.dims == ("chain", "draw", "train", "train_token")
    assert (tokens[..., -1] == 0).all()
    assert (tokens[..., :-1] < 0).all()


@pytest.mark.parametrize(
    "likelihood",
    [
        lambda out: dist.Normal(out, 0.5),
        lambda out, batch: dist.Normal(out, 0.5).log_prob(batch[-1]),
    ],
)
def test_likelihoods_of_ones_own(data, likelihood):
    x, y = data[0], data[0][:, 0]
    model = localize(lambda p, x: x @ p["w"], {"w": jnp.zeros(4)}, likelihood=likelihood)
    run = sample(model, (x, y), save_weights=True)
    means = run["posterior"]["w"].values @ x.T
    expected = -(((y - means) / 0.5) ** 2) / 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(run["log_likelihood"]["train_obs"], expected, rtol=1e-3, atol=1e-4)


def convolving(p, x):
    x = jax.nn.relu(jax.lax.conv(x, p["kernel"], (1, 1), "VALID"))
    return x.mean((2, 3)) @ p["head"]


@pytest.mark.parametrize("kind", ["SGLD", "UnderdampedLangevin"])
def test_loops_in_python_draw_what_compiled_loops_draw(data, kind, monkeypatch):
    rng = np.random.default_rng(1)
    weights = {
        "kernel": jnp.float32(rng.normal(size=(4, 1, 3, 3))),
        "head": jnp.float32(rng.normal(size=(4, 3))),
    }
    x = np.float32(rng.normal(size=(24, 1, 6, 6)))
    settings = {"step_size": 1e-3, "steps_per_draw": 2, "batch_size": 8}
    runs = []
    for turns in (True, False):
        model = localize(convolving, weights, likelihood="categorical", localization=10.0)
        assert outside.convolves(model, (x, data[1]))
        if not turns:
            monkeypatch.setattr(outside, "convolves", lambda *_: False)
        kernel = model.make_kernel(kind, **settings)
        some = {"train": (x, data[1]), "query": (x[:5], data[1][:5])}
        runs.append(bif.sample(kernel, draws=10, warmup=4, evaluation_batch_size=7, **some))
    for group in ("log_likelihood", "sample_stats"):
        for name in runs[0][group].data_vars:
            values = [run[group][name].values for run in runs]
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-4, err_msg=name)
