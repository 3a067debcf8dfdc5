"""Runs that were killed go on to what they would have been, to the bit."""

import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import pytest
from zarr.storage import LocalStore

import ppl_bif as bif
from ppl_bif import sampling
from ppl_bif.checkpoint import Checkpoints, latest_course
from ppl_bif.places import Place, place
from tests.test_store import Fake, FakeEngine, assert_same, fake_run, no_sampling

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")

BLOCK = 2


class KilledError(BaseException):
    """What no code catches, as no code can catch a kill."""


@dataclass
class Writes:
    """Counts what is written; kills at one of them, before it or with half of it written."""

    fatal: int = -1
    half: bool = False
    made: int = 0

    def __call__(self, path, content):
        self.made += 1
        if self.made - 1 == self.fatal:
            if self.half:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(content)[: len(content) // 2])
            raise KilledError


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", BLOCK)


@contextmanager
def writing(writes):
    """Pass all that is written to a store by a counter that may kill."""
    zarr_set, place_write = LocalStore.set, Place.write

    async def set_(self, key, value, *more):
        writes(self.root / f"{key}.0123.partial", value.to_bytes())
        await zarr_set(self, key, value, *more)

    def write(self, name, content):
        writes(self.folder / f"{name}.part", content)
        place_write(self, name, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "set", set_)
        patch.setattr(Place, "write", write)
        yield writes


METHODS = {
    "vectorized": {},
    "sequential": {"chain_method": "sequential"},
    "auto": {"draws": "auto", "target": {"rank_agreement": 0.999}},
}


# Of so many writes one is fatal; with 1 all are, which takes minutes.
STRIDE = int(os.environ.get("FAULT_STRIDE", "47"))


@pytest.mark.parametrize("method", METHODS)
def test_killed_while_writing(tmp_path, small_blocks, monkeypatch, method):
    if method == "auto":
        monkeypatch.setattr("ppl_bif.stopping.FIRST_DRAWS", 4)
        monkeypatch.setattr("ppl_bif.stopping.MOST_DRAWS", 7)
    with writing(Writes()) as whole:
        expected = fake_run(tmp_path / "whole", **METHODS[method])
    assert_same(expected, fake_run(**METHODS[method]))
    for fatal, half in islice(product(range(whole.made), (False, True)), 0, None, STRIDE):
        path = tmp_path / f"{fatal}-{half}"
        with writing(Writes(fatal, half)), pytest.raises(KilledError):
            fake_run(path, **METHODS[method])
        assert not claims_too_much(path, expected)
        assert_same(fake_run(path, **METHODS[method]), expected)
        left = [p for p in path.rglob("*") if p.suffix in (".partial", ".part")]
        assert not left


def claims_too_much(path, expected):
    """Say whether a store that was left holds draws that are not those of the whole run."""
    try:
        found = bif.open_store(path)
    except bif.StoreError:
        return False
    draws, chains = found.attrs["draws"], found["log_likelihood"]["chain"].values
    return any(
        not np.array_equal(values[:, :draws], found["log_likelihood"][name].values)
        for name, values in expected["log_likelihood"].isel(chain=chains).items()
    )


def test_killed_twice_in_a_row(tmp_path, small_blocks):
    expected = fake_run()
    for first in (20, 41, 60):
        path = tmp_path / str(first)
        with writing(Writes(first)), pytest.raises(KilledError):
            fake_run(path)
        with writing(Writes(5, half=True)), pytest.raises(KilledError):
            fake_run(path)
        assert_same(fake_run(path), expected)


class Diverging(Fake):
    """Chain 1 diverges at a draw, and again, or not, when it is begun again."""

    def __init__(self, at, again=None):
        super().__init__(1)
        self.at, self.then = at, again

    def bind(self, data, *, evaluation_batch_size):
        return DivergingEngine(self, {name: len(batch[0]) for name, batch in data.items()})


class DivergingEngine(FakeEngine):
    def log_likelihood(self, state, name):
        values = super().log_likelihood(state, name).copy()
        at = self.kernel.at if len(state[0]) > 1 else self.kernel.then
        if at is not None and state[1] > at:
            values[state[0] == 1] = np.nan
        return values


def diverging_run(store=None, *, at=3, again=None, draws=6):
    data = (np.ones((4, 3), np.float32), np.ones(4))
    expected = pytest.warns(RuntimeWarning, match=f"chain 1 diverged at draw {at - 1}")
    with expected if draws > at - 1 else nullcontext():
        return bif.sample(
            Diverging(at, again), train=data, query=data, chains=2, draws=draws, warmup=1,
            store=store,
        )  # fmt: skip


@pytest.mark.parametrize("again", [None, 4])
def test_killed_where_a_chain_diverged(tmp_path, small_blocks, again):
    with writing(Writes()) as whole:
        expected = diverging_run(tmp_path / "whole", again=again)
    assert_same(expected, diverging_run(again=again))
    for fatal in range(20, whole.made, STRIDE):
        path = tmp_path / str(fatal)
        with writing(Writes(fatal)), pytest.raises(KilledError):
            diverging_run(path, again=again)
        assert_same(diverging_run(path, again=again), expected)


@pytest.mark.parametrize("again", [None, 4])
@pytest.mark.parametrize("at", [3, 7])
def test_a_longer_run_is_that_of_one_go(tmp_path, small_blocks, again, at):
    shorter = diverging_run(tmp_path / "a", at=at, again=again, draws=5)
    assert shorter.attrs["draws"] == 5
    longer = diverging_run(tmp_path / "a", at=at, again=again, draws=9)
    assert_same(longer, diverging_run(at=at, again=again, draws=9))


# Damage.


def left(path, after=110):
    """Leave a run somewhere in its draws."""
    with writing(Writes(after)), pytest.raises(KilledError):
        fake_run(path, draws=12)
    return place(path)


@pytest.mark.parametrize("what", ["course-*.json", "states/chains-0-*.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "lost"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, small_blocks, what, damage):
    where = left(tmp_path / "a")
    before = latest_course(where).legs["chains-0"][0].draws
    files = (tmp_path / "a" / "checkpoint").glob(what)
    newest = max(files, key=lambda p: int(p.stem.rsplit("-", 1)[1]))
    content = newest.read_bytes()
    middle = len(content) // 2
    damaged = {
        "truncated": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
    }
    newest.unlink() if damage == "lost" else newest.write_bytes(damaged[damage])
    most = 10**6
    leg = Checkpoints(where).get("chains-0", most)[0]
    assert leg.draws in (before, before - BLOCK)
    assert_same(fake_run(tmp_path / "a", draws=12), fake_run(draws=12))


def test_when_all_checkpoints_are_damaged_it_says_what_to_do(tmp_path, small_blocks):
    left(tmp_path / "a")
    for file in (tmp_path / "a" / "checkpoint" / "states").glob("chains-0-*"):
        file.write_bytes(b"")
    with pytest.raises(bif.StoreError, match=r"every checkpoint of chains-0.*remove the store"):
        fake_run(tmp_path / "a", draws=12)


def test_a_run_goes_on_to_a_goal_and_is_returned_there(tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr("ppl_bif.stopping.MOST_DRAWS", 9)
    goal = {"draws": "auto", "target": {"rank_agreement": 0.9999}}
    fake_run(tmp_path / "a", draws=4)
    further = fake_run(tmp_path / "a", **goal)
    assert further.attrs["target"] == "rank_agreement 0.9999"
    draws = further.attrs["draws"]
    assert draws > 4
    expected = fake_run(draws=draws)["log_likelihood"]
    np.testing.assert_array_equal(further["log_likelihood"]["train_obs"], expected["train_obs"])
    with no_sampling(monkeypatch):
        assert_same(fake_run(tmp_path / "a", **goal), further)
        assert fake_run(tmp_path / "a", draws=draws).attrs["draws"] == draws
    with pytest.raises(bif.StoreError, match="more than the 4 asked for"):
        fake_run(tmp_path / "a", draws=4)
    with pytest.raises(bif.StoreError, match="seed: 0 there, 1 here"):
        fake_run(tmp_path / "a", seed=1, **goal)


def test_checkpoints_of_large_states_are_written_less_often(tmp_path, small_blocks, monkeypatch):
    with writing(Writes()) as often:
        expected = fake_run(tmp_path / "often", draws=12)
    monkeypatch.setattr("ppl_bif.logbook.LARGE_STATE", 0)
    monkeypatch.setattr("ppl_bif.logbook.CHECKPOINT_SHARE", 10**9)
    with writing(Writes()) as seldom:
        assert_same(fake_run(tmp_path / "seldom", draws=12), expected)
    # Two files less for each of the blocks between the first and the last.
    assert often.made - seldom.made == 2 * 5
    with writing(Writes(seldom.made - 6)), pytest.raises(KilledError):
        fake_run(tmp_path / "killed", draws=12)
    assert latest_course(place(tmp_path / "killed")).legs["chains-0"][0].draws == 0
    assert_same(fake_run(tmp_path / "killed", draws=12), expected)
