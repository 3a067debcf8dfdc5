"""Whether chains fit in memory together."""

import pytest

from ppl_bif import memory


def test_a_chain_is_copies_of_its_weights_and_what_its_rows_keep():
    assert memory.memory_per_chain(1000, 10, 5) == memory.COPIES * 1000 + 50


def test_a_gpu_is_not_filled_to_the_brim():
    assert not memory.chains_fit(1, 100, memory.memory_to_use(100))
    assert memory.chains_fit(1, 100, memory.memory_to_use(200))


def test_a_host_that_does_not_say_is_taken_to_have_room(monkeypatch):
    def unknown(name):
        raise ValueError(name)

    assert memory.memory_to_use(None) > 2**20
    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert memory.chains_fit(10**6, 2**40, memory.memory_to_use(None))


@pytest.mark.parametrize(("chains", "fit"), [(3, True), (4, False)])
def test_all_chains_must_fit(chains, fit):
    assert memory.chains_fit(chains, 10, 35.0) is fit
