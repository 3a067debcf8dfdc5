"""The loss kernel: correlations, neighbours and pictures of points whose truth is known."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

import ppl_bif as bif
from tests.series import factors, run_of


def kernel_of(train, query=None, **settings):
    run = run_of(train, train if query is None else query)
    return bif.loss_kernel(run, **{"neighbours": 3, **settings})


def groups(draws=500, kinds=3, each=6, chains=4, own=0.5, seed=0):
    """Draw losses of points of some kinds, which share a series each."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(kinds), each)
    shared = rng.normal(size=(chains, draws, kinds))[..., kind]
    return shared + own * rng.normal(size=shared.shape), kind


def test_correlations_and_errors_are_the_truth():
    train, query, covariance = factors(np.random.default_rng(0), 4000, scale=0.5)
    fixed = np.random.default_rng(7)
    a, b = 0.5 * fixed.normal(size=(3, 40)), 0.5 * fixed.normal(size=(3, 12))
    truth = covariance / np.sqrt(np.outer(1 + (b**2).sum(0), 1 + (a**2).sum(0)))
    found = bif.loss_kernel(run_of(train, query), points="query_obs", others="train_obs")
    assert found["correlation"].dims == ("point", "other")
    off = (found["correlation"] - truth) / found["mcse"]
    assert 0.92 < float((np.abs(off) < 1.96).mean()) < 0.98
    assert "embedding" not in found


def test_it_is_the_correlation_of_influence():
    run = run_of(*[groups()[0]] * 2)
    found = bif.loss_kernel(run)
    scores = bif.influence(run, train="train_obs", query="train_obs", kind="correlation")
    for name, other in (("correlation", "influence"), ("mcse", "mcse"), ("resolved", "resolved")):
        np.testing.assert_array_equal(found[name], scores[other])
    np.testing.assert_allclose(np.diag(found["correlation"]), 1, atol=1e-6)


@given(st.integers(0, 1000), st.integers(1, 3), st.sampled_from([np.float32, np.float64]))
def test_it_is_positive_semidefinite(seed, chains, dtype):
    rng = np.random.default_rng(seed)
    rows = rng.integers(4, 30)
    losses = rng.normal(size=(chains, 40, 3)) @ rng.normal(size=(3, rows))
    losses += np.exp(rng.normal(size=(chains, 40, rows))) + 100 * rng.normal(size=(chains, 1, 1))
    kernel = kernel_of(losses.astype(dtype))["correlation"].values
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-5)
    assert np.linalg.eigvalsh(kernel).min() > -1e-5 * rows


def test_with_all_axes_distances_are_those_of_the_kernel():
    found = kernel_of(groups()[0], dims=17)
    distance = squareform(pdist(found["embedding"]))
    np.testing.assert_allclose(distance**2, 2 - 2 * found["correlation"], atol=1e-5)
    assert float(found["variance"].sum()) == pytest.approx(1)


def test_kinds_lie_apart_and_their_points_together():
    losses, kind = groups()
    found = kernel_of(losses)
    assert (kind[found["neighbour"]] == kind[:, None]).all()
    assert not (found["neighbour"] == found["point"]).any()
    assert bool(found["neighbour_resolved"].all())
    assert (np.diff(found["neighbour_correlation"], axis=1) <= 0).all()
    place = found["embedding"].values
    centre = np.stack([place[kind == k].mean(axis=0) for k in range(3)])
    spread = np.linalg.norm(place - centre[kind], axis=1).max()
    assert pdist(centre).min() > 3 * spread


def test_axes_of_noise_are_told_from_those_of_structure():
    losses, _ = groups()
    real = kernel_of(losses)
    np.testing.assert_allclose(real["variance_checked"], real["variance"], rtol=0.1)
    for chains in (4, 1):
        noise = kernel_of(np.random.default_rng(0).normal(size=(chains, 50, 200)))
        assert (noise["variance_checked"] < 0.5 * noise["variance"]).all()


def test_a_loss_that_does_not_vary_has_no_place():
    losses = groups()[0]
    losses[..., 0] = 1.5
    found = kernel_of(losses)
    assert bool(np.isnan(found["embedding"][0]).all())
    assert np.isfinite(found["embedding"][1:]).all()
    assert bool(found["undefined"][0].all())
    assert not (found["neighbour"][1:6] == 0).any()


def test_tokens_are_points_if_asked_for():
    losses = groups(draws=50)[0].reshape(4, 50, 6, 3)
    dims = ("chain", "draw", "train", "train_token")
    likelihood = xr.Dataset({"train_obs": (dims, losses)}, {"train": list("abcdef")})
    run = xr.DataTree.from_dict({"log_likelihood": likelihood})
    found = bif.loss_kernel(run, by="token", neighbours=2)
    assert found.sizes["point"] == 18
    assert found["point_row"].values[:4].tolist() == ["a", "a", "a", "b"]
    assert found["other_position"].values[:4].tolist() == [0, 1, 2, 0]
    assert found["neighbour_row"].dims == ("point", "rank")


def test_umap_lays_out_the_same_distances(monkeypatch):
    seen = {}

    class UMAP:
        def __init__(self, **settings):
            seen.update(settings)

        def fit_transform(self, distance):
            seen["distance"] = distance
            return distance[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    found = kernel_of(groups()[0], method="umap", seed=5)
    np.testing.assert_allclose(seen["distance"] ** 2, 2 - 2 * found["correlation"], atol=1e-5)
    assert (seen["metric"], seen["random_state"], seen["n_components"]) == ("precomputed", 5, 2)
    assert found["embedding"].shape == (18, 2)
    assert "variance" not in found


def test_umap_that_is_missing_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match=r'ppl_bif\[umap\].*take method="mds"'):
        kernel_of(groups()[0], method="umap")


def test_what_cannot_be_is_refused():
    losses = groups()[0]
    with pytest.raises(ValueError, match="method must be one of"):
        kernel_of(losses, method="tsne")
    with pytest.raises(ValueError, match="whose losses vary, 18; got 18"):
        kernel_of(losses, dims=18)
    many = np.zeros((1, 4, 4097))
    with pytest.raises(ValueError, match=r"4,097 points with 4,097 .* idata\.isel"):
        kernel_of(many)
    run = run_of(losses, losses)
    run["log_likelihood"]["train_sums"] = run["log_likelihood"]["train_obs"]
    with pytest.raises(ValueError, match="stream=False"):
        bif.loss_kernel(run)
