"""Weights of a draw, in a file that networks load."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import ppl_bif as bif
from tests.backends import random_layers
from tests.test_store import data, run

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


def test_a_draw_scores_its_rows_as_the_run_says(backend, tmp_path):
    idata = run(backend, tmp_path / "a.zarr", save_weights=True)
    path = bif.save_draw(idata, tmp_path / "draw.safetensors", chain=1, draw=4)
    model = backend.mlp(random_layers([3, 4, 2]))
    found = backend.log_likelihood(model, data(), load_file(path))
    expected = idata["log_likelihood"]["train_obs"][1, 4]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_it_loads_into_the_network(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load

    from ppl_bif.pyro import SGLD, localize

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    kernel = SGLD(
        localize(network, likelihood="categorical"), step_size=1e-3, batch_size=4, steps_per_draw=1
    )
    idata = bif.sample(kernel, train=data(), query=data(3, seed=1), draws=3, save_weights="0.*")
    path = bif.save_draw(idata, tmp_path / "draw.safetensors", chain=0, draw=2)
    missing, unexpected = network.load_state_dict(load(path), strict=False)
    assert (missing, unexpected) == (["2.weight", "2.bias"], [])
    np.testing.assert_array_equal(network[0].weight.detach(), idata["posterior"]["0.weight"][0, 2])


def test_what_is_not_there(backend, tmp_path):
    with pytest.raises(ValueError, match="holds no weights: sample with save_weights"):
        bif.save_draw(run(backend), tmp_path / "a", chain=0, draw=0)
    with pytest.raises(ValueError, match="draw must be below 6; got 6"):
        bif.save_draw(run(backend, save_weights=True), tmp_path / "a", chain=0, draw=6)
