"""What warm-up chooses, and what it may cost."""

import ppl_bif as bif
from ppl_bif.tuning import DEAR_BATCHES, FULL_BATCH_SIZE, PILOT_STEPS, choose_kernel
from tests.truth import make_linear


def test_gradients_are_full_where_they_are_cheap():
    name, settings, _ = choose_kernel(FULL_BATCH_SIZE // 5000, 5000)
    assert (name, settings) == ("UnderdampedLangevin", {"preconditioner": "low_rank"})


def test_gradients_of_many_weights_are_of_a_partition():
    name, settings, choices = choose_kernel(1_646_122, 5003)
    assert name == "UnderdampedLangevin"
    assert settings["gradient"] == "partition"
    # The last batch is the only one that may be smaller.
    assert (DEAR_BATCHES - 1) * settings["batch_size"] < 5003 <= DEAR_BATCHES * 501
    assert "partition" in choices[0].reason
    # Where not even ten gradients can be stored, they are full again.
    assert "gradient" not in choose_kernel(50_000_000, 5000)[1]


def test_a_short_warmup_has_a_short_pilot(backend):
    """A chain that hardly moves would be followed for a thousand steps to tell its time."""
    linear = make_linear(4, 200)
    model = backend.linear(linear.mode, localization=linear.gamma)
    kernel = model.make_kernel("UnderdampedLangevin", step_size=1e-4, preconditioner=None)
    run = bif.sample(kernel, train=linear.data, query=linear.data, draws=2, warmup=1)
    assert run.attrs["warmup_steps"] == PILOT_STEPS + run.attrs["steps_per_draw"]
