"""Runs on the workers of a Dask cluster: the same whatever they are, and whatever befalls them."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif import cluster, layout, sampling
from ppl_bif.kernel import ROWS_AT_ONCE
from ppl_bif.recording import Record
from ppl_bif.schema import group
from tests.backends import get_backend, marked
from tests.test_store import data, layers

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")

ROWS, DRAWS, BLOCK = 4 * ROWS_AT_ONCE + 5, 12, 4


@contextmanager
def workers(count, folder):
    """So many worker processes; what one has compiled, all have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        here = distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0"
        )
        try:
            with distributed.Client(here) as client:
                yield client
        finally:
            # Dask trips over a worker that left while it closes.
            with suppress(KeyError):
                here.close()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def local(compiled):
    with workers(2, compiled) as client:
        yield client


@pytest.fixture(params=marked(["pyro"]))
def one(request):
    """The backend that compiles nothing, for what is the same in both."""
    return get_backend(request.param)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", BLOCK)


def run(backend, **changes):
    kernel = backend.SGLD(backend.mlp(layers()), step_size=1e-5, batch_size=4, steps_per_draw=2)
    given = {"train": data(ROWS), "query": data(3, seed=1), "chains": 2, "draws": DRAWS}
    more = {"warmup": 2, "seed": 7, "save_weights": True, "chain_method": "sequential"}
    return bif.sample(kernel, **{**given, **more, **changes})


def assert_same(one, other):
    """Draws are equal to the bit; what is summed over rows, as parts are put together, to 1e-12."""
    for name in ("log_likelihood", "posterior", "sample_stats"):
        a, b = group(one, name), group(other, name)
        assert set(a) == set(b)
        for variable in a:
            how = {"rtol": 1e-12} if name == "sample_stats" else {"rtol": 0}
            np.testing.assert_allclose(a[variable], b[variable], err_msg=variable, **how)


def test_any_number_of_workers_gives_the_run_of_none(backend, compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "FILE_BYTES", 1)
    monkeypatch.setattr(layout, "VALUES_PER_CHUNK", 1)
    alone = run(backend)
    cut, counted = cluster._shards, []
    monkeypatch.setattr(
        cluster, "_shards", lambda *given: counted.append(cut(*given)) or counted[-1]
    )
    # What JAX compiles, each worker compiles.
    counts = (1, 3) if backend.name == "pyro" else (2,)
    for count in counts:
        store = tmp_path / f"{count}.zarr"
        with workers(count, compiled) as client:
            assert_same(run(backend, client=client, store=store), alone)
        assert bif.open_store(store).attrs["completed"]
    assert [len(each) for each in counted] == [3] * len(counts)


def test_a_run_goes_on_with_workers_or_without(one, local, tmp_path):
    alone, longer = run(one), run(one, draws=2 * DRAWS)
    there, here = tmp_path / "there.zarr", tmp_path / "here.zarr"
    run(one, client=local, store=there)
    run(one, store=here)
    # A finished run is returned, one to be longer goes on.
    assert_same(run(one, store=there), alone)
    assert_same(run(one, client=local, store=here, draws=2 * DRAWS), longer)
    assert_same(run(one, store=there, draws=2 * DRAWS), longer)


def test_it_ends_at_a_goal(one, local, tmp_path):
    goal = {"draws": "auto", "target": {"rank_agreement": 0.01}}
    found = run(one, client=local, store=tmp_path / "a.zarr", **goal)
    assert_same(found, run(one, **goal))


@contextmanager
def once_there_are_draws(store, act):
    """Do something once a run in a store has draws, beside what is done here."""

    def wait():
        for _ in range(2400):
            try:
                if bif.open_store(store).attrs["draws"] >= BLOCK:
                    act()
                    break
            except bif.StoreError:
                pass
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def test_a_worker_that_is_killed_is_replaced(one, compiled, tmp_path):
    killed, draws, store = [], 40 * BLOCK, tmp_path / "a.zarr"
    with workers(2, compiled) as client:

        def kill():
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

        with once_there_are_draws(store, kill):
            found = run(one, client=client, store=store, draws=draws)
    assert killed
    assert_same(found, run(one, draws=draws))


@contextmanager
def scheduler_of_its_own(folder):
    """A scheduler and a worker, each a process; gives a client and the scheduler's process."""
    address = str(folder / "scheduler.json")
    command = [sys.executable, "-m", "distributed.cli.dask_"]
    start = [[*command[:2], f"{command[2]}scheduler", "--scheduler-file", address, "--port", "0"]]
    start[0] += ["--no-dashboard", "--dashboard-address", ":0"]
    start += [[*command[:2], f"{command[2]}worker", "--scheduler-file", address, "--nthreads", "1"]]
    start[1] += ["--no-dashboard", "--no-nanny", "--local-directory", str(folder)]
    # A worker that loses its scheduler ends soon.
    soon = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": soon}
    processes = [subprocess.Popen(each, **quiet) for each in start]
    client = distributed.Client(scheduler_file=address, timeout="60s")
    try:
        client.wait_for_workers(1, timeout=60)
        yield client, processes[0]
    finally:
        client.close(timeout=1)
        for process in processes:
            process.kill()
            process.wait()


def test_the_loss_of_the_scheduler_leaves_a_run_to_go_on_with(one, tmp_path):
    store, draws = tmp_path / "a.zarr", 40 * BLOCK
    with (
        scheduler_of_its_own(tmp_path) as (client, scheduler),
        once_there_are_draws(store, scheduler.kill),
        pytest.raises(bif.StoreError, match=r"cluster was lost.*repeat the call to sample"),
    ):
        run(one, client=client, store=store, draws=draws)
    there = bif.open_store(store)
    assert not there.attrs["completed"]
    assert BLOCK <= there.attrs["draws"] < draws
    assert_same(run(one, store=store, draws=draws), run(one, draws=draws))


def test_a_chain_that_diverges_on_a_worker(one, local, tmp_path, monkeypatch):
    judge = Record.judge

    def poisoned(record, total, stats, rows, diverged):
        # Chains are told by their steps, which are alike, and their distances, which are not.
        worst = stats["distance"][:, -1:] == farthest
        total = {
            n: np.where(worst & (np.arange(t.shape[1]) > 1), np.nan, t) for n, t in total.items()
        }
        return judge(record, total, stats, rows, diverged)

    alone = run(one)
    farthest = float(alone["sample_stats"]["distance"][1, BLOCK - 1])
    monkeypatch.setattr(Record, "judge", poisoned)
    with pytest.warns(RuntimeWarning, match=r"chain 1 diverged at draw 2; begun again"):
        found = run(one, client=local, store=tmp_path / "a.zarr")
    assert "chain 1 diverged at draw 2" in found.attrs["notes"][0]
    np.testing.assert_array_equal(
        found["log_likelihood"]["train_obs"][0], alone["log_likelihood"]["train_obs"][0]
    )


def test_a_worker_that_cannot_write_says_so(one, local, tmp_path, monkeypatch):
    send = cluster.Workers.send

    def without_the_store(self, *given):
        send(self, *given)
        shutil.rmtree(tmp_path / "a.zarr" / "log_likelihood")

    monkeypatch.setattr(cluster.Workers, "send", without_the_store)
    with pytest.raises(bif.StoreError, match=r"repeat the call to sample|is damaged"):
        run(one, client=local, store=tmp_path / "a.zarr")


def test_what_cannot_be_sent_is_refused(one, local, tmp_path):
    class Held:
        def __reduce__(self):
            raise TypeError("cannot pickle an open file")

    model = one.mlp(layers())
    model.likelihood = model.likelihood._replace(name=Held())
    kernel = one.SGLD(model, step_size=1e-5, batch_size=4, steps_per_draw=2)
    with pytest.raises(TypeError, match=r"cannot be sent to workers: .*open file.*cloudpickle"):
        bif.sample(
            kernel, train=data(), query=data(), client=local, store=tmp_path / "a.zarr", draws=3
        )
    assert not (tmp_path / "a.zarr").exists()


def test_a_client_needs_a_store(one, local):
    with pytest.raises(ValueError, match="draws are written by its workers: pass store="):
        run(one, client=local)


def test_a_client_is_one_of_dask(one, tmp_path):
    with pytest.raises(TypeError, match="must be a dask"):
        run(one, client="tcp://somewhere", store=tmp_path / "a.zarr")
