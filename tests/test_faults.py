"""Faults with the real thing: kills, full and read-only disks, flipped bytes, second writers."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import zarr

import ppl_bif as bif
from benchmarks import faults
from ppl_bif import locking, sampling
from ppl_bif.places import place
from tests.test_store import Fake, FakeEngine, assert_same, data, fake_run

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")

ROWS = 500


class Noisy(Fake):
    """Log-likelihoods that no compression makes small."""

    def bind(self, data, *, evaluation_batch_size):
        return NoisyEngine(self, {name: len(batch[0]) for name, batch in data.items()})


class NoisyEngine(FakeEngine):
    def log_likelihood(self, state, name):
        rng = np.random.default_rng(state[1])
        return rng.normal(size=(len(state[0]), self.rows[name])).astype(np.float32)


def noisy_run(store=None, draws=100):
    rows = data(ROWS)
    return bif.sample(
        Noisy(1), train=rows, query=rows, chains=2, draws=draws, warmup=1, store=store
    )


@contextmanager
def small_disk(path, size):
    """Mount a small disk, where that is allowed; gives a function that changes its options."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path]).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", path], check=True
        )
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs root"
)


@needs_mount
def test_a_full_disk_keeps_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", 10)
    with small_disk(tmp_path / "small", "1m") as remount:
        path = tmp_path / "small" / "a.zarr"
        with pytest.raises(bif.StoreError, match=r"disk is full: free some space; repeat the call"):
            noisy_run(path, draws=200)
        so_far = bif.open_store(path)
        assert 0 < so_far.attrs["draws"] < 200
        whole = noisy_run(draws=200)
        expected = whole["log_likelihood"]["train_obs"][:, : so_far.attrs["draws"]]
        np.testing.assert_array_equal(so_far["log_likelihood"]["train_obs"], expected)
        remount("size=16m")
        assert_same(noisy_run(path, draws=200), whole)


@needs_mount
def test_a_disk_full_from_the_start(tmp_path):
    with small_disk(tmp_path / "small", "20k"), pytest.raises(bif.StoreError, match="disk is full"):
        noisy_run(tmp_path / "small" / "a.zarr")


def test_a_file_that_may_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(bif.StoreError, match=r"may not grow as large: raise the limit"):
            noisy_run(tmp_path / "a.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same(noisy_run(tmp_path / "a.zarr"), noisy_run())


@contextmanager
def read_only(path):
    """Turn a folder read-only, for root as well."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@needs_mount
def test_a_folder_that_turns_read_only(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", 10)
    draws, made, path = NoisyEngine.draws, [], tmp_path / "a.zarr"
    with ExitStack() as stack:

        def turn(self, *more, **settings):
            made.append(1)
            if len(made) == 6:
                stack.enter_context(read_only(path))
            return draws(self, *more, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(NoisyEngine, "draws", turn)
            with pytest.raises(bif.StoreError, match="mounted read-only: choose a path you may"):
                noisy_run(path)
        assert bif.open_store(path).attrs["draws"] > 0
        with pytest.raises(bif.StoreError, match="mounted read-only"):
            noisy_run(path)
    whole = noisy_run(path)
    with read_only(path):
        # A finished run is read where nothing may be written.
        assert_same(noisy_run(path), whole)
    assert_same(whole, noisy_run())


def test_a_flipped_byte_in_a_chunk(tmp_path):
    path = tmp_path / "a.zarr"
    noisy_run(path)
    chunk = max((path / "log_likelihood" / "train_obs" / "c").rglob("*"), key=lambda p: p.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 1
    chunk.write_bytes(content)
    run = bif.open_store(path)
    message = r"log_likelihood/train_obs in .*a.zarr is damaged .*checksum.*: copy it again"
    with pytest.raises(bif.StoreError, match=message):
        run["log_likelihood"]["train_obs"].load()
    run.attrs.pop("refused")
    with pytest.raises(bif.StoreError, match=message):
        bif.influence(run).compute()


def test_an_older_version(tmp_path):
    path = tmp_path / "a.zarr"
    run = fake_run(path)
    root = zarr.open_group(path, mode="r+")
    del root.attrs["schema_version"]
    root.attrs["fingerprint"] = "as it was made then"
    root.attrs["inference_library_version"] = "0.0.9"
    np.testing.assert_array_equal(
        bif.open_store(path)["log_likelihood"]["train_obs"], run["log_likelihood"]["train_obs"]
    )
    with pytest.raises(
        bif.StoreError, match=r"written by ppl_bif 0\.0\.9.*read it with open_store"
    ):
        fake_run(path)
    root.attrs["schema_version"] = 99
    with pytest.raises(bif.StoreError, match=r"newer version of ppl_bif.*update"):
        bif.open_store(path)


# Other processes.


@pytest.mark.slow
@pytest.mark.pyro
def test_killed_at_random_moments(tmp_path):
    rows = list(faults.killed("pyro", 2, tmp_path))
    assert sum(row.tried for row in rows) == 2
    for row in rows:
        assert row.result == "identical to the bit"
        assert int(row.redone) <= faults.BLOCK


def drawing(process):
    """Wait until a process makes draws."""
    for line in process.stdout:
        if line.startswith("drawing"):
            return
    pytest.fail("it made no draws")


def until_there_are_draws(path):
    """Wait for the first checkpoint after a block."""
    for _ in range(600):
        try:
            return bif.open_store(path)
        except bif.StoreError:
            time.sleep(0.1)
    return pytest.fail("it wrote no draws")


@pytest.mark.pyro
def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path):
    path, draws = tmp_path / "a.zarr", 100_000
    process = faults.start("pyro", path, draws)
    drawing(process)
    with pytest.raises(bif.StoreError, match=f"being written to by process {process.pid} on"):
        faults.sample("pyro", path, draws)
    until_there_are_draws(path)
    process.kill()
    process.communicate()
    done = bif.open_store(path).attrs["draws"] + 40
    # A lock that a dead process does not hold.
    assert faults.identical(faults.sample("pyro", path, done), faults.sample("pyro", None, done))


@pytest.mark.pyro
def test_ctrl_c_ends_at_the_next_draw(tmp_path):
    path = tmp_path / "a.zarr"
    process = faults.start("pyro", path, 100_000, stderr=subprocess.PIPE)
    drawing(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "press Ctrl-C again to stop at once" in err
    assert f"draws of each chain in {path}; repeat the call to sample() to go on" in out
    done = bif.open_store(path).attrs["draws"]
    assert done > 0
    assert faults.identical(
        faults.sample("pyro", path, done + 10), faults.sample("pyro", None, done + 10)
    )


@pytest.fixture
def usual_ctrl_c():
    """Let Ctrl-C have its usual meaning, which it has not in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_twice_stops_at_once(tmp_path, monkeypatch, capsys, usual_ctrl_c):
    draws, made = FakeEngine.draws, []

    def pressed(self, state, steps, count, **settings):
        for _ in range(2):
            press_ctrl_c()
            made.append(count)
        return draws(self, state, steps, count, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "draws", pressed)
        with pytest.raises(KeyboardInterrupt, match=r"up to 0 draws.*repeat the call"):
            fake_run(tmp_path / "a.zarr")
    assert made == [1]
    assert "stopping at the next draw" in capsys.readouterr().err
    assert_same(fake_run(tmp_path / "a.zarr"), fake_run())


def test_ctrl_c_without_a_store_is_as_always(monkeypatch, usual_ctrl_c):
    def pressed(self, *_, **__):
        press_ctrl_c()
        pytest.fail("went on")

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "draws", pressed)
        with pytest.raises(KeyboardInterrupt):
            fake_run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_a_thread_there_is_no_ctrl_c(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(fake_run(tmp_path / "a.zarr")))
    thread.start()
    thread.join()
    assert_same(found[0], fake_run())


# A lease, where no lock can be had.


def test_a_lease_that_is_held_and_one_that_ran_out(monkeypatch):
    where = place("memory://leases/a.zarr")
    with locking.only_writer(where):
        with (
            pytest.raises(bif.StoreError, match=f"written to by process {os.getpid()} on"),
            locking.only_writer(where),
        ):
            pass
        left = where.read(locking.LEASE)
    with locking.only_writer(where):
        pass
    where.write(locking.LEASE, left)
    monkeypatch.setattr(locking.time, "time", lambda: float("inf"))
    with locking.only_writer(where):
        pass


def test_a_lease_is_renewed(monkeypatch):
    monkeypatch.setattr(locking, "LEASE_SECONDS", 0.03)
    where, renewed = place("memory://leases/b.zarr"), threading.Event()
    renew, times = locking._renew, []

    def noted(*more):
        times.append(1)
        if len(times) > 3:
            renewed.set()
        renew(*more)

    monkeypatch.setattr(locking, "_renew", noted)
    with locking.only_writer(where):
        assert renewed.wait(30)
    assert locking.LEASE.split("/")[1] not in where.names("checkpoint")
