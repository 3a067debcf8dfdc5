"""Noise of minibatch gradients from some of their coordinates."""

from importlib import import_module

import numpy as np
import pytest

from ppl_bif.kernel import COORDINATES


@pytest.fixture
def noise(backend):
    """Functions of a backend, on NumPy arrays of one chain."""
    module = import_module(f"ppl_bif.{backend.name}.noise")
    if backend.name == "numpyro":
        return module, lambda arrays: {n: np.asarray(a) for n, a in arrays.items()}
    import torch

    return module, lambda arrays: {n: torch.as_tensor(a)[None] for n, a in arrays.items()}


def test_small_sites_are_kept_whole(noise):
    module, place = noise
    rng = np.random.default_rng(0)
    a, b = ({"w": rng.normal(size=(30, 4)), "b": rng.normal(size=5)} for _ in range(2))
    apart = module.squared_distance(*(module.sketch(place(g)) for g in (a, b)))
    exact = sum(((a[n] - b[n]) ** 2).sum() for n in a)
    np.testing.assert_allclose(np.ravel(apart), exact, rtol=1e-5)


@pytest.mark.parametrize("scale", [np.linspace(0, 1, 512)[:, None], np.linspace(0, 1, 256)])
def test_large_sites_are_told_from_some(noise, scale):
    module, place = noise
    rng = np.random.default_rng(0)
    a, b = ({"w": scale * rng.normal(size=(512, 256))} for _ in range(2))
    sketches = [module.sketch(place(g)) for g in (a, b)]
    assert sketches[0]["w"].shape[-1] <= COORDINATES
    exact = ((a["w"] - b["w"]) ** 2).sum()
    np.testing.assert_allclose(np.ravel(module.squared_distance(*sketches)), exact, rtol=0.08)
