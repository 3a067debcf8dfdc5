"""What a run costs, counted: calls of the network, and copies to the host."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ppl_bif as bif
from ppl_bif.data import as_batch
from ppl_bif.pyro import SGLD, localize

ROWS, STEPS = 40, 3

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")


class Counting(torch.nn.Module):
    """A linear network that counts how often Python runs it."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        Counting.calls += 1
        return x @ self.w


@pytest.fixture
def kernel():
    Counting.calls = 0
    model = localize(Counting(), likelihood="normal", localization=10.0)
    return SGLD(model, step_size=1e-3, batch_size=8, steps_per_draw=STEPS)


def data():
    rng = np.random.default_rng(0)
    return np.float32(rng.normal(size=(ROWS, 3))), np.float32(rng.normal(size=ROWS))


def calls(kernel, draws, **settings):
    before = Counting.calls
    bif.sample(
        kernel, train=data(), query=data(), draws=draws, warmup=0, progress=False, **settings
    )
    return Counting.calls - before


def test_several_chains_are_traced_once(kernel):
    few, many = calls(kernel, 4), calls(kernel, 60)
    assert many <= few


def test_one_chain_alone_runs_the_network_once_a_step_and_once_a_group(kernel):
    few, many = (calls(kernel, draws, chains=1) for draws in (8, 72))
    # At every eighth draw the last step is made of two halves, which measures the noise.
    assert many - few == 64 * (STEPS + 2) + 64 // 8


class Transfers(TorchDispatchMode):
    """Count operations that wait for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waiting = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += function in waiting
        return function(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device_within_draws(kernel):
    batch = as_batch(data(), "train")
    engine = kernel.bind({"train": batch, "query": batch}, evaluation_batch_size=16)
    state, _ = engine.draws(engine.start([0, 1], 0), STEPS, 2, most=4, names=())
    with Transfers() as seen:
        engine.draws(state, STEPS, 4, most=4, names=())
    assert seen.count == 0
