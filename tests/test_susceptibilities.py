"""Susceptibilities of blocks of weights, against their closed form for a linear model."""

import numpy as np
import pytest
import xarray as xr

import ppl_bif as bif
from tests.series import run_of
from tests.truth import make_linear

BLOCKS = {"slopes": [0, 1, 2], "offset": [3]}


def four():
    """A regression on three inputs and a constant, its weights off their best."""
    linear = make_linear(80, 4, beta=0.5, gamma=20.0)
    x = np.concatenate([linear.x[:, :3], np.ones((80, 1))], axis=1)
    return linear._replace(x=x)


def block(linear, at):
    """The regression on some weights, the others held at w*."""
    held = np.delete(np.arange(4), at)
    rest = linear.y - linear.x[:, held] @ linear.mode[held]
    return linear._replace(x=linear.x[:, at], y=rest, mode=linear.mode[at])


class Law:
    """Means and covariances of losses under a Gaussian over weights, queries the first rows."""

    def __init__(self, linear, covariance, queries=10):
        r = linear.y - linear.x @ linear.mean()
        s = linear.x @ covariance @ linear.x.T
        cov = np.outer(r, r) * s + s**2 / 2
        mean, at_mode = (r**2 + np.diag(s)) / 2, (linear.y - linear.x @ linear.mode) ** 2 / 2
        self.phi = mean.mean() - at_mode.mean()
        self.apart = mean[:queries] - mean.mean()
        self.restricted = cov.mean() - cov[:queries].mean(axis=1)

    def against(self, full):
        return self.restricted + self.phi * (full.apart - self.apart)


def drawn(linear, draws=4000, seed=0, queries=10, **attrs):
    rng = np.random.default_rng(seed)
    w = rng.multivariate_normal(linear.mean(), linear.covariance(), size=(4, draws))
    loglik = -((linear.y - w @ linear.x.T) ** 2) / 2
    at_mode = (linear.y - linear.x @ linear.mode) ** 2 / 2
    return run_of(
        loglik,
        loglik[..., :queries],
        constant={"train_loss_at_mode": ("train", at_mode)},
        attrs={"inverse_temperature": linear.beta, "localization": linear.gamma, **attrs},
    )


@pytest.fixture(scope="module")
def known():
    linear = four()
    parts = {name: block(linear, at) for name, at in BLOCKS.items()}
    laws = {name: Law(part, part.covariance()) for name, part in parts.items()}
    runs = {name: drawn(part, seed=i) for i, (name, part) in enumerate(parts.items())}
    return linear, laws, runs


def test_of_a_block_it_is_the_covariance_under_that_block(known):
    _, laws, runs = known
    found = bif.susceptibility(runs)
    assert found["susceptibility"].dims == ("component", "query")
    assert found["component"].values.tolist() == list(BLOCKS)
    assert found.attrs["n_beta"] == 40
    for name, law in laws.items():
        one = found.sel(component=name)
        off = (one["susceptibility"] - law.restricted) / one["mcse"]
        assert np.abs(off).max() < 3.5
        error = np.linalg.norm(one["susceptibility"] - law.restricted)
        assert error < 0.05 * np.linalg.norm(law.restricted), "tight enough to see a bias"


def test_it_is_the_answer_of_the_components_loss_to_more_weight(known):
    linear, _, runs = known
    part, h = block(linear, BLOCKS["slopes"]), 1e-3
    found = bif.susceptibility(runs).sel(component="slopes")

    def loss(weights):
        precision = part.beta * part.x.T @ (weights[:, None] * part.x) + part.gamma * np.eye(3)
        right = part.beta * part.x.T @ (weights * part.y) + part.gamma * part.mode
        covariance = np.linalg.inv(precision)
        residual = part.y - part.x @ covariance @ right
        return (residual**2 + np.einsum("na,ab,nb->n", part.x, covariance, part.x)).mean() / 2

    for query in range(3):
        to = np.full(80, 1 - h)
        to[query] += 80 * h
        away = 2 - to
        slope = (loss(to) - loss(away)) / (2 * h)
        one = found.isel(query=query)
        error = found.attrs["n_beta"] * float(one["mcse"])
        assert abs(slope - found.attrs["n_beta"] * float(one["susceptibility"])) < 3.5 * error


def test_against_the_whole_network_its_mean_is_taken_off(known):
    linear, laws, runs = known
    found = bif.susceptibility(runs, full=drawn(linear, seed=9))
    whole = Law(linear, linear.covariance())
    for name, law in laws.items():
        one = found.sel(component=name)
        off = (one["susceptibility"] - law.against(whole)) / one["mcse"]
        assert np.abs(off).max() < 3.5
    apart = found["susceptibility"] - bif.susceptibility(runs)["susceptibility"]
    assert (np.abs(apart) > 5 * found["mcse"]).any()


def test_sites_are_components(backend):
    linear = four()
    slopes, offset = linear.mode[:3, None], linear.mode[3:]
    data = np.float32(linear.x[:, :3]), np.float32(linear.y[:, None])
    asked = {"train": data, "query": tuple(a[:10] for a in data), "draws": 500, "warmup": 20}
    runs, laws = {}, {}
    for (name, at), sites in zip(BLOCKS.items(), ("W0", "b0"), strict=True):
        part = block(linear, at)
        step = 0.5 / np.linalg.eigvalsh(part.precision()).max()
        model = backend.mlp(
            [(slopes, offset)],
            likelihood=lambda outputs, batch: -((outputs - batch[-1]) ** 2).sum(-1) / 2,
            sites=sites,
            localization=part.gamma,
            inverse_temperature=part.beta,
        )
        kernel = backend.SGLD(model, step_size=step, batch_size=80, steps_per_draw=8)
        runs[name] = bif.sample(kernel, **asked)
        laws[name] = Law(part, part.sgld_covariance(step, 80))
    found = bif.susceptibility(runs)
    for name, law in laws.items():
        one = found.sel(component=name)
        off = (one["susceptibility"] - law.restricted) / one["mcse"]
        assert np.abs(off).max() < 4
        error = np.linalg.norm(one["susceptibility"] - law.restricted)
        assert error < 0.3 * np.linalg.norm(law.restricted)


def test_tokens_are_points_if_asked_for():
    loglik = np.random.default_rng(0).normal(size=(4, 1000, 6, 3))
    dims = ("chain", "draw", "train", "train_token")
    query = ("chain", "draw", "query", "query_token")
    likelihood = xr.Dataset({"train_obs": (dims, loglik), "query_obs": (query, loglik[:, :, :2])})
    likelihood = likelihood.assign_coords(train=np.arange(6), query=np.arange(2))
    found = bif.susceptibility({"c": {"log_likelihood": likelihood}}, by="token")
    assert found.sizes == {"component": 1, "query": 6}
    assert found.attrs["n_beta"] == 18
    assert found["query_position"].values.tolist() == [0, 1, 2, 0, 1, 2]
    flat = loglik.reshape(4, 1000, 18)
    apart = (flat - flat.mean(axis=2, keepdims=True))[..., :6]
    mean = flat.mean(axis=2, keepdims=True)
    centred = mean - mean.mean(axis=1, keepdims=True)
    plain = -(centred * (apart - apart.mean(axis=1, keepdims=True))).mean(axis=(0, 1))
    np.testing.assert_allclose(found["susceptibility"][0], plain, atol=0.02 * np.abs(plain).max())


def test_runs_that_differ_in_more_than_their_sites_are_refused(known):
    linear, _, runs = known
    for what, other in (
        ("localization", drawn(linear, localization=3.0)),
        ("inverse temperature", drawn(linear, inverse_temperature=3.0)),
        ("query ids", drawn(linear, queries=9)),
    ):
        with pytest.raises(ValueError, match=f"the {what} of 'slopes' and 'other' differ"):
            bif.susceptibility({**runs, "other": other})
    with pytest.raises(ValueError, match="at least one component"):
        bif.susceptibility({})
    bare = {"c": {"log_likelihood": runs["slopes"]["log_likelihood"]}}
    with pytest.raises(ValueError, match="losses at the trained weights are needed"):
        bif.susceptibility(bare, full=bare["c"])
