"""The search of a run larger than memory: ``python -m benchmarks.speed.search``.

1,000,000 training rows, 1,000 queries, 4 chains of 250 draws in single precision, in a store that
is written as ``ppl_bif.sample`` would and removed afterwards: 4 GB of disk. Each turn times, one
after another and each in a process of its own, the bare BLAS products of the same blocks, and
``ppl_bif.top`` of the 20 rows that most raise and most lower each query, with errors. Adds lines to
``results/cpu.jsonl``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import ppl_bif as bif
from benchmarks.speed.compare import RESULTS, about, spread
from ppl_bif.layout import Trace
from ppl_bif.memory import peak_memory
from ppl_bif.places import place
from ppl_bif.sampling import BLOCK_BYTES, BLOCK_DRAWS
from ppl_bif.store import create_store, finish_store

CHAINS, K, FACTORS = 4, 20, 40
# Training rows that are made, or multiplied, at once.
ROWS = 2048
FIRST = ("chain", "draw")


def main() -> None:
    """Make a store, take turns, print ratios, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--draws", type=int, default=250, help="of each of 4 chains")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the store is to be; has 4 GB free")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    size = options.rows, options.queries, options.draws
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "run.zarr"
        write(path, *size)
        turns = [
            {name: in_process(name, path, size, options.threads) for name in JOBS}
            for _ in range(options.turns)
        ]
    case = f"search_{options.rows}x{options.queries}x{CHAINS * options.draws}"
    with options.results.open("a") as file:
        for line in lines(case, turns, options.threads):
            print(json.dumps(line))
            file.write(json.dumps(line) + "\n")


def write(path: Path, rows: int, queries: int, draws: int) -> None:
    """Make a run in which rows and queries share some factors, block by block of draws."""
    rng = np.random.default_rng(0)
    sizes = {"train": rows, "query": queries}
    traces = {
        f"log_likelihood/{name}_obs": Trace((*FIRST, name), (CHAINS, draws, n), "float32")
        for name, n in sizes.items()
    }
    ids = xr.Dataset(coords={"chain": np.arange(CHAINS), **{n: np.arange(sizes[n]) for n in sizes}})
    attrs = {"fingerprint": "0", "inverse_temperature": 1.0, "draws": draws}
    at_once = block(rows + queries, draws)
    where = place(path)
    arrays = create_store(
        where,
        traces,
        {"log_likelihood": ids},
        attrs,
        chains_at_once=CHAINS,
        draws_at_once=at_once,
    )
    walk = rng.standard_normal((CHAINS, draws, FACTORS), dtype=np.float32)
    for name, array in arrays.items():
        follow = 0.1 * rng.standard_normal((FACTORS, array.shape[2]), dtype=np.float32) ** 3
        for start in range(0, draws, at_once):
            some = slice(start, min(start + at_once, draws))
            array[:, some] = series(rng, walk[:, some], follow)
        print(name, array.chunks, file=sys.stderr)
    finish_store(where, attrs, draws)


def block(rows: int, draws: int) -> int:
    """Draws that ``sample`` would write at once."""
    return int(np.clip(BLOCK_BYTES // (4 * CHAINS * rows), 1, min(BLOCK_DRAWS, draws)))


def series(rng: np.random.Generator, walk: np.ndarray, follow: np.ndarray) -> np.ndarray:
    """Losses around 0.3 that follow the factors, most rows hardly and a few closely."""
    found = rng.standard_normal((*walk.shape[:2], follow.shape[1]), dtype=np.float32)
    found += walk @ follow
    found *= 0.1
    found -= 0.3
    return found


def bare(path: Path, rows: int, queries: int, draws: int) -> Callable[[], None]:
    """Multiply the same blocks, which are there already."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal((queries, CHAINS * draws), dtype=np.float32)
    blocks = [rng.standard_normal((CHAINS * draws, ROWS), dtype=np.float32) for _ in range(8)]
    product = np.empty((queries, ROWS), np.float32)

    def job() -> None:
        for i in range(-(-rows // ROWS)):
            np.matmul(query, blocks[i % len(blocks)], out=product)

    return job


def search(path: Path, rows: int, queries: int, draws: int) -> Callable[[], Any]:
    """Open the run as a user does, and find the best."""
    run = bif.open_store(path)
    return lambda: bif.top(run, k=K, shrink=None)


JOBS: dict[str, Callable[[Path, int, int, int], Callable[[], Any]]] = {
    "blas": bare,
    "search": search,
}


def in_process(name: str, path: Path, size: tuple[int, int, int], threads: int) -> dict[str, float]:
    """Time a job in a process of its own, on so many cores."""
    code = "import sys; from benchmarks.speed.search import timed; timed(*sys.argv[1:])"
    command = [sys.executable, "-c", code, name, str(path), str(threads), *map(str, size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(name: str, path: str, threads: str, *size: str) -> None:
    """Do a job and print CPU-seconds, seconds and the peak of memory in GB."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-int(threads) :])
    with threadpool_limits(int(threads)):
        job = JOBS[name](Path(path), *map(int, size))
        began, clock = time.process_time(), time.perf_counter()
        job()
        cpu, wall = time.process_time() - began, time.perf_counter() - clock
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak_memory() / 1e9}))


def lines(case: str, turns: list[dict[str, dict[str, float]]], threads: int) -> list[Any]:
    """Put down medians and ranges, and ratios to the bare products of the same turn."""
    found = []
    for name in JOBS:
        line: dict[str, Any] = {"case": case, "subject": name, "threads": threads}
        line["turns"] = len(turns)
        for label, kind in (("cpu_seconds", "cpu"), ("seconds", "wall"), ("peak_gb", "peak")):
            line[label] = spread([turn[name][kind] for turn in turns])
        for label, kind in (("cpu_seconds", "cpu"), ("seconds", "wall")):
            ratios = [turn[name][kind] / turn["blas"][kind] for turn in turns]
            line[f"{label}_over_blas"] = spread(ratios)
        found.append({**line, **about()})
    return found


if __name__ == "__main__":
    main()
