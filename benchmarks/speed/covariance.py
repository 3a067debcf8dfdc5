"""Covariances against one BLAS product: ``python -m benchmarks.speed.covariance``.

50,000 training rows, 1,000 queries, 4 chains of 500 draws in single precision. Each turn times the
bare product of the traces, covariances without errors and with them, and the top 20 of all queries
by a search and by way of the matrix, one after another; then the memory that each takes beside the
traces is measured once. With ``--tokens`` rows of so many tokens make up the same sizes, and
influence by token is timed. Adds lines to ``results/cpu.jsonl``.
"""

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import ppl_bif as bif
from benchmarks.speed.compare import RESULTS, about, spread
from ppl_bif.blocks import MAX_BLOCKS
from ppl_bif.covariance import block_covariance, covariance

CHAINS, DRAWS, TOP = 4, 500, 20


def main() -> None:
    """Take turns, print ratios, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--tokens", type=int, help="in a row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    work = jobs(options.rows, options.queries, options.tokens)
    with threadpool_limits(options.threads):
        turns = [{name: seconds(job) for name, job in work.items()} for _ in range(options.turns)]
    with RESULTS.open("a") as file:
        for name, job in work.items():
            line = {
                "case": f"covariance_{options.rows}x{options.queries}x{CHAINS * DRAWS}"
                + (f"_tokens{options.tokens}" if options.tokens else ""),
                "subject": name,
                "threads": options.threads,
                "turns": options.turns,
                "seconds": spread([turn[name] for turn in turns]),
                "seconds_over_blas": spread([turn[name] / turn["blas"] for turn in turns]),
                "megabytes": round(peak(job) / 2**20),
                **about(),
            }
            print(json.dumps(line), flush=True)
            file.write(json.dumps(line) + "\n")


def jobs(rows: int, queries: int, tokens: int | None) -> dict[str, Callable[[], Any]]:
    """Return what is timed, on random traces."""
    rng = np.random.default_rng(0)
    train, query = (
        rng.standard_normal((CHAINS, DRAWS, size), dtype=np.float32) for size in (rows, queries)
    )
    run = a_run({"train": train, "query": query}, tokens)
    blocks, whole = MAX_BLOCKS // CHAINS, {"shrink": None, "block_pairs": rows * queries}
    flat = [side.reshape(CHAINS * DRAWS, -1) for side in (train, query)]
    bare = {
        "blas": lambda: flat[1].T @ flat[0],
        "covariance": lambda: covariance(train, query),
        "covariance_with_errors": lambda: block_covariance(train, query, blocks=blocks, time=1.0),
    }
    if tokens:
        return bare | {"influence_by_token": lambda: bif.influence(run, by="token", **whole)}
    return bare | {
        "top": lambda: bif.top(run, TOP, shrink=None),
        "top_of_matrix": lambda: bif.top(bif.influence(run, **whole), TOP),
    }


def a_run(sides: dict[str, np.ndarray], tokens: int | None) -> xr.DataTree:
    """Make a run of traces, whose rows hold so many tokens."""
    traces = {}
    for name, values in sides.items():
        dims = ("chain", "draw", name, f"{name}_token")[: 4 if tokens else 3]
        shape = (CHAINS, DRAWS, -1, tokens)[: len(dims)]
        traces[f"{name}_obs"] = (dims, values.reshape(shape))
    coords = {name: np.arange(v.shape[2] // (tokens or 1)) for name, v in sides.items()}
    return xr.DataTree.from_dict({"log_likelihood": xr.Dataset(traces, coords)})


def seconds(job: Callable[[], Any]) -> float:
    """Seconds that a job takes."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def peak(job: Callable[[], Any]) -> int:
    """Bytes that a job takes at most, what it returns among them."""
    tracemalloc.start()
    job()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


if __name__ == "__main__":
    main()
