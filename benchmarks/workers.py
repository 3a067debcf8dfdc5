"""How runs scale with the workers of a Dask cluster: ``python -m benchmarks.workers``.

Chains of the digits CNN on 1, 2 and 4 worker processes of one thread each, and in this process
alone; seconds a draw from the difference of a long and a short run, so that starting and warm-up do
not count. Traces of all are compared. Adds lines to ``results/workers.jsonl``.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import ONE_THREAD, built
from benchmarks.speed.cases import rows
from benchmarks.speed.compare import about, spread

RESULTS = Path(__file__).parent / "speed" / "results" / "workers.jsonl"
WORKERS, CHAINS, DRAWS, TURNS = (1, 2, 4), 4, (16, 80), 3
HEAD = (
    "| workers | seconds a draw of all chains | as fast as 1 worker | traces |\n|---|---|---|---|"
)


def main() -> None:
    """Print and keep the table of one backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=["pyro", "numpyro"])
    backend = parser.parse_args().backend
    os.environ.update(ONE_THREAD)
    kernel = built("cnn", backend, 5)
    found: dict[Any, list[float]] = {}
    digests = {}
    for _ in range(TURNS):
        for count in (None, *WORKERS):
            seconds, digests[count] = measured(kernel, count)
            found.setdefault(count, []).append(seconds)
    print(HEAD)
    for count, seconds in found.items():
        times = [one / own for one, own in zip(found[1], seconds, strict=True)]
        same = "identical" if digests[count] == digests[None] else "DIFFER"
        line = {"backend": backend, "workers": count, "seconds_a_draw": spread(seconds)}
        with RESULTS.open("a") as file:
            file.write(json.dumps({**line, "over_1_worker": spread(times), **about()}) + "\n")
        cells = [count or "none, this process", said(spread(seconds)), said(spread(times)), same]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def measured(kernel: Any, workers: int | None) -> tuple[float, bytes]:
    """Return seconds a draw, and the traces."""
    from distributed import Client, LocalCluster

    if workers is None:
        return difference(kernel, None)
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return difference(kernel, client)


def difference(kernel: Any, client: Any) -> tuple[float, bytes]:
    """Make a short and a long run, after one in which workers import what they need."""
    import ppl_bif as bif

    train, query = rows("cnn")
    seconds = []
    for draws in (DRAWS[0], *DRAWS):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            run = bif.sample(
                kernel,
                train=train,
                query=query,
                chains=CHAINS,
                draws=draws,
                warmup=2,
                chain_method="sequential",
                store=f"{folder}/run.zarr",
                client=client,
                progress=False,
            )
            seconds.append(time.perf_counter() - began)
            traces = np.asarray(run["log_likelihood"]["train_obs"])
    return (seconds[2] - seconds[1]) / (DRAWS[1] - DRAWS[0]), traces.tobytes()


def said(values: list[float]) -> str:
    """Write a median with its range."""
    return f"{values[0]:.3g} ({values[1]:.3g}-{values[2]:.3g})"


if __name__ == "__main__":
    main()
