"""Faults that a run has to survive, with the real thing: prints a table.

``python -m benchmarks.faults --kills 50`` kills runs of both backends by ``kill -9`` at so many
random moments each; what is left must not claim what it does not hold, at most one block of draws
is made again, and in the end the run is, to the bit, the one that nobody killed.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ppl_bif as bif

BLOCK, DRAWS_PER_KILL = 4, 60
GROUPS = ("log_likelihood", "sample_stats", "constant_data", "posterior")


class Row(NamedTuple):
    """One line of the table."""

    fault: str
    tried: int
    redone: str
    result: str


# What runs in a process of its own.


def child(backend: str, path: str, draws: int) -> None:
    """Sample a small model into a store, telling on stdout what is being done."""
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _speak()
    print("go", flush=True)
    try:
        sample(backend, path, draws)
    except KeyboardInterrupt as stopped:
        print("stopped", stopped, flush=True)
        sys.exit(130)
    except bif.StoreError as error:
        print("refused", error, flush=True)
        sys.exit(1)
    print("end", flush=True)


def sample(backend: str, path: Any, draws: int) -> Any:
    """Sample 26 weights by full gradients with a preconditioner and a momentum, in small blocks."""
    import warnings

    from ppl_bif import sampling

    warnings.simplefilter("ignore")
    sampling.BLOCK_DRAWS = BLOCK
    kernel, data = _kernel(backend)
    return bif.sample(
        kernel, train=data, query=data, chains=2, draws=draws, warmup=2, seed=3, store=path,
        save_weights=True, progress=False,
    )  # fmt: skip


def _kernel(backend: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype(np.float32)
    data = (x, x.sum(1) + rng.normal(size=12).astype(np.float32))
    settings: dict[str, Any] = {"step_size": 1e-2, "steps_per_draw": 1}
    if backend == "pyro":
        import torch

        from ppl_bif.pyro import UnderdampedLangevin, localize

        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
        return UnderdampedLangevin(
            localize(net, likelihood="normal", localization=1.0), **settings
        ), data
    import jax.numpy as jnp

    from ppl_bif.numpyro import UnderdampedLangevin as Underdamped
    from ppl_bif.numpyro import localize as localized

    model = localized(
        lambda p, x: x @ p["w"] + p["b"],
        {"w": jnp.ones(3), "b": jnp.zeros(())},
        likelihood="normal",
        localization=1.0,
    )
    return Underdamped(model, **settings), data


def _speak() -> None:
    """Have the parts of a run say when they begin."""
    from ppl_bif.checkpoint import Checkpoints
    from ppl_bif.driving import _Course

    block, put = _Course.block, Checkpoints.put

    def spoken_block(self: Any, chains: Any, at: Any, stop: int) -> Any:
        print("drawing", at.draws, flush=True)
        found = block(self, chains, at, stop)
        print("writing", at.draws, flush=True)
        return found

    def spoken_put(self: Any, name: str, draws: int, *more: Any) -> None:
        print("checkpointing", draws, flush=True)
        put(self, name, draws, *more)
        print("between", draws, flush=True)

    _Course.block, Checkpoints.put = spoken_block, spoken_put  # type: ignore[method-assign]


def start(backend: str, path: Any, draws: int, **settings: Any) -> subprocess.Popen[str]:
    """Start a process that samples."""
    # A compiler's cache makes the next process start sooner.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(path).parent / "cache")}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, "-m", "benchmarks.faults", "--child", backend, str(path), str(draws)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | cache, **settings
    )


# Killing.


def killed(backend: str, times: int, folder: Path, seed: int = 0) -> Iterator[Row]:
    """Kill a run again and again at random moments, then let it end; one row for each moment."""
    rng, draws, path = random.Random(seed), DRAWS_PER_KILL * times, folder / f"{backend}.zarr"
    whole = sample(backend, None, draws)
    kinds: Counter[str] = Counter()
    redone: dict[str, int] = {}
    before: tuple[str, int] = ("", 0)
    for i in range(times):
        said = _kill_once(backend, path, draws, rng, early=i % 10 == 0)
        kind, _ = said[-1]
        kinds[kind] += 1
        if before[1] and (first := [at for what, at in said if what == "drawing"]):
            redone[before[0]] = max(redone.get(before[0], 0), before[1] - first[0])
        check_claims(path, whole)
        print(f"{i + 1} of {times}: while {kind}", file=sys.stderr)
        # A block that was being made or written counts as made.
        ends = [at + BLOCK * (what in ("drawing", "writing")) for what, at in said]
        before = (kind, max(ends))
    same = identical(sample(backend, path, draws), whole)
    result = "identical to the bit" if same else "DIFFERS"
    for kind, count in sorted(kinds.items()):
        yield Row(f"{backend}: kill -9 while {kind}", count, f"{redone.get(kind, 0)}", result)


def _kill_once(
    backend: str, path: Path, draws: int, rng: random.Random, *, early: bool
) -> list[tuple[str, int]]:
    """Start a run and kill it at a random moment; return what it said it was doing."""
    process = start(backend, path, draws)
    assert process.stdout is not None
    said = [("starting", 0)]
    if early:
        process.stdout.readline()
        time.sleep(rng.uniform(0, 2))
    else:
        # The first block, which waits for compilers, then a moment of the next ones.
        for line in process.stdout:
            said += _words(line)
            if line.startswith("writing"):
                break
        time.sleep(rng.expovariate(1 / 0.1))
    process.send_signal(signal.SIGKILL)
    for line in process.stdout.read().splitlines():
        said += _words(line)
    process.wait()
    return said


def _words(line: str) -> list[tuple[str, int]]:
    what, _, at = line.strip().partition(" ")
    return [(what, int(at))] if at.isdigit() else []


def check_claims(path: Path, whole: Any) -> None:
    """Hold what a store says that it has against the whole run."""
    try:
        found = bif.open_store(path)
    except bif.StoreError:
        return
    draws = found.attrs["draws"]
    for name, values in found["log_likelihood"].items():
        expected = whole["log_likelihood"][name].values[:, :draws]
        if not np.array_equal(values.values, expected):
            raise AssertionError(f"{name} of {path} claims {draws} draws that are not those")


def identical(one: Any, other: Any) -> bool:
    """Say whether two runs are the same to the bit."""
    from ppl_bif.schema import group

    pairs = [(group(one, name), group(other, name)) for name in GROUPS]
    return all(
        np.array_equal(a[k].values, b[k].values, equal_nan=b[k].dtype.kind == "f")
        for a, b in pairs
        for k in b.variables
    )


# The tests that do the other faults, each with the real thing.
OTHERS = {
    "disk full, a tmpfs of 1 MB": "faults.py::test_a_full_disk_keeps_what_it_holds",
    "disk full from the start": "faults.py::test_a_disk_full_from_the_start",
    "a file that may not grow": "faults.py::test_a_file_that_may_not_grow",
    "a folder that turns read-only": "faults.py::test_a_folder_that_turns_read_only",
    "a flipped byte in a chunk": "faults.py::test_a_flipped_byte_in_a_chunk",
    "checkpoints cut, flipped, empty, lost": "resume.py::test_a_damaged_checkpoint_gives_way_to_the"
    "_one_before",
    "a chain that diverges, killed": "resume.py::test_killed_where_a_chain_diverged",
    "a second writer, then dead": "faults.py::test_a_second_writer_is_refused_until_the_first_is"
    "_dead",
    "an older and a newer schema": "faults.py::test_an_older_version",
    "Ctrl-C": "faults.py::test_ctrl_c_ends_at_the_next_draw",
    "Ctrl-C twice": "faults.py::test_ctrl_c_twice_stops_at_once",
    "hostile stores": "hostile.py",
}


def others() -> Iterator[Row]:
    """Run the tests of the other faults."""
    for fault, test in OTHERS.items():
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"tests/test_{test}"]
        said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1]
        counts = {
            what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", said)
        }
        yield Row(fault, sum(counts.values()), "", ", ".join(counts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="per backend")
    parser.add_argument("--backend", action="append", choices=["pyro", "numpyro"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1], int(options.child[2]))
        return
    print(f"{'fault':42}{'tried':>6}{'draws made again':>18}  result")
    with tempfile.TemporaryDirectory() as folder:
        for backend in options.backend or ("pyro", "numpyro"):
            if options.kills:
                show(killed(backend, options.kills, Path(folder)))
    show(others())


def show(rows: Iterator[Row]) -> None:
    """Print some lines of the table."""
    for row in rows:
        print(f"{row.fault:42}{row.tried:6}{row.redone:>18}  {row.result}", flush=True)


if __name__ == "__main__":
    main()
