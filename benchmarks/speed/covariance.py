"""Covariances against one BLAS product: ``python -m benchmarks.speed.covariance``.

50,000 training rows, 1,000 queries, 4 chains of 500 draws in single precision. Each turn times the
bare product of the traces, covariances without errors, and covariances with errors, one after
another. Adds lines to ``results/cpu.jsonl``.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.speed.compare import RESULTS, about, spread
from ppl_bif.blocks import MAX_BLOCKS
from ppl_bif.covariance import block_covariance, covariance


def main() -> None:
    """Take turns, print ratios, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    chains, draws = 4, 500
    rng = np.random.default_rng(0)
    train, query = (
        rng.normal(size=(chains, draws, rows)).astype(np.float32)
        for rows in (options.rows, options.queries)
    )
    work: dict[str, Callable[[], Any]] = {
        "blas": lambda: query.reshape(chains * draws, -1).T @ train.reshape(chains * draws, -1),
        "covariance": lambda: covariance(train, query),
        "covariance_with_errors": lambda: block_covariance(
            train, query, blocks=MAX_BLOCKS // chains, time=1.0
        ),
    }
    with threadpool_limits(options.threads):
        turns = [{name: seconds(job) for name, job in work.items()} for _ in range(options.turns)]
    with RESULTS.open("a") as file:
        for name in work:
            line = {
                "case": f"covariance_{options.rows}x{options.queries}x{chains * draws}",
                "subject": name,
                "threads": options.threads,
                "turns": options.turns,
                "seconds": spread([turn[name] for turn in turns]),
                "seconds_over_blas": spread([turn[name] / turn["blas"] for turn in turns]),
                **about(),
            }
            print(json.dumps(line))
            file.write(json.dumps(line) + "\n")


def seconds(job: Callable[[], Any]) -> float:
    """Seconds that a job takes."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
