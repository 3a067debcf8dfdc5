"""What runs cost beside what was forecast: ``python -m benchmarks.scale``.

Each forecast and each run in a fresh process of one thread, which measures its own peak of memory.
Three turns, each a forecast, the run, and a forecast again, so that a machine that gets slower or
faster meanwhile does so for both; the mean of the two forecasts counts. Adds lines to
``results/scale.jsonl``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.cases import BATCH, LOCALIZATION, STEP, jax_network, rows, torch_network
from benchmarks.speed.compare import about
from ppl_bif.memory import peak_memory

RESULTS = Path(__file__).parent / "speed" / "results" / "scale.jsonl"
# Network, rows (None: the 1,797 digits), chains, draws, steps between them.
RUNS = {
    "digits, MLP": ("mlp", None, 4, 2000, 5),
    "digits, CNN": ("cnn", None, 4, 150, 5),
    "40,000 rows, MLP": ("mlp", 40_000, 4, 400, 10),
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
QUERIES, WARMUP, TURNS = 1000, 20, 3
HEAD = "| run | backend | what | forecast | run | over |\n|---|---|---|---|---|---|"


class LargeRun(NamedTuple):
    """A run that was not made, and what its cost follows from.

    Attributes
    ----------
    name
        Network and data.
    weights
        How many are sampled.
    flop
        Of a forward pass over one scored unit (an image, a token); a gradient takes 3 times that.
    train, query
        Scored units.
    stored
        Values stored of a draw: units, or sequences.
    chains, draws
        Of the run.
    batch, steps
        Units of a gradient, and gradients of a draw.
    """

    name: str
    weights: float
    flop: float
    train: float
    query: float
    stored: float
    chains: int
    draws: int
    batch: float
    steps: int


# 2 flop a weight and token; ResNet-18 with 32 x 32 pixels multiplies 0.56e9 times an image.
PLANS = [
    LargeRun("ResNet-18, CIFAR-10", 11.2e6, 1.11e9, 5e4, 1e4, 6e4, 4, 1000, 512, 10),
    LargeRun(
        "Pythia-2.8B, 100,000 sequences of 512 tokens, stored by token",
        *(2.78e9, 5.56e9, 512e5, 512e3, 517e5, 4, 250, 16 * 512, 4),
    ),
    LargeRun(
        "Pythia-160M, 10^9 tokens in sequences of 1,024, stored by sequence",
        *(1.62e8, 3.24e8, 1e9, 1e4 * 1024, 1e9 / 1024 + 1e4, 4, 250, 16 * 1024, 10),
    ),
]
PLANS_HEAD = (
    "| run | GPU-hours | dollars | traces, float32 | weights on the GPU | search, core-hours |"
    "\n|---|---|---|---|---|---|"
)
# What ResNet-9 and the GPT of 124M reached on an H100 (results/gpu.jsonl): flop a second; and a
# rate of renting one.
RATE, DOLLARS = 1.4e14, 3.0
# A draw over its bare passes, and a search over its products on a core (results/cpu.jsonl).
OVERHEAD, SEARCH_OVERHEAD, CORE = 1.1, 1.45, 9.8e10
# Bytes of a weight: w*, w, the cast, its gradient, and that in float32.
BYTES = 16


def planned(run: LargeRun) -> str:
    """Work out a run's costs."""
    draws = run.chains * run.draws
    flop = run.flop * (run.train + run.query + 3 * run.batch * run.steps)
    hours = OVERHEAD * draws * flop / RATE / 3600
    queries = run.query * run.stored / (run.train + run.query)
    search = SEARCH_OVERHEAD * 2 * draws * (run.stored - queries) * queries / CORE / 3600
    cells = [
        run.name,
        f"{hours:,.1f}",
        f"{hours * DOLLARS:,.0f}",
        f"{4 * draws * run.stored / 1e9:,.1f} GB",
        f"{BYTES * run.weights / 1e9:,.1f} GB",
        f"{search:,.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Forecast and make all runs, or do one of them here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("RUN", "BACKEND", "forecast|run"))
    parser.add_argument("--plans", action="store_true", help="print the table of large runs alone")
    options = parser.parse_args()
    if options.plans:
        print("\n".join([PLANS_HEAD, *map(planned, PLANS)]))
        return
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    print(HEAD)
    for name in RUNS:
        for backend in ("pyro", "numpyro"):
            turns = [turn(name, backend) for _ in range(TURNS)]
            line = {"run": name, "backend": backend, "turns": turns, **about()}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            show(name, backend, turns)


def turn(name: str, backend: str) -> dict[str, dict[str, float]]:
    """Forecast, run, and forecast again."""
    before, run, after = (apart(name, backend, what) for what in ("forecast", "run", "forecast"))
    return {"forecast": {what: (before[what] + after[what]) / 2 for what in before}, "run": run}


def show(name: str, backend: str, turns: list[dict[str, dict[str, float]]]) -> None:
    """Print what was told and seen, medians over turns, and their ratio with its range."""
    for what, unit, style in (
        ("seconds", 1, "{:.1f} s"),
        ("disk", 1e6, "{:.1f} MB"),
        ("memory", 1e6, "{:.0f} MB"),
    ):
        told, seen = ([turn[which][what] for turn in turns] for which in ("forecast", "run"))
        cells = [style.format(statistics.median(values) / unit) for values in (told, seen)]
        over = [a / b for a, b in zip(told, seen, strict=True)]
        ratio = f"{statistics.median(over):.2f} ({min(over):.2f}-{max(over):.2f})"
        print(f"| {name} | {backend} | {what} | {' | '.join(cells)} | {ratio} |", flush=True)


def apart(*arguments: str) -> dict[str, float]:
    """Forecast or make a run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", *arguments]
    environment = os.environ | ONE_THREAD
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one(name: str, backend: str, what: str) -> dict[str, float]:
    """Forecast or make a run."""
    import ppl_bif as bif
    from ppl_bif.schema import arviz

    # To import it takes seconds, which belong to no run.
    arviz()
    network, count, chains, draws, steps = RUNS[name]
    train, query = rows(network) if count is None else many(count)
    settings: dict[str, Any] = {
        "train": train,
        "query": query,
        "chains": chains,
        "draws": draws,
        "warmup": WARMUP,
    }
    kernel = built(network, backend, steps)
    if what == "forecast":
        found = bif.forecast(kernel, **settings)
        return {"seconds": found.seconds, "disk": found.disk, "memory": found.memory}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        bif.sample(kernel, **settings, store=f"{folder}/run.zarr", progress=False)
        seconds = time.perf_counter() - began
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {"seconds": seconds, "disk": disk, "memory": peak_memory()}


def many(count: int) -> tuple[Any, Any]:
    """So many random rows, and 1,000 to explain."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count + QUERIES, 64)).astype(np.float32)
    y = rng.integers(10, size=len(x))
    return (x[:count], y[:count]), (x[count:], y[count:])


def built(network: str, backend: str, steps: int) -> Any:
    """Return a kernel with everything set."""
    how: dict[str, Any] = {"likelihood": "categorical", "localization": LOCALIZATION}
    if backend == "pyro":
        from ppl_bif.pyro import SGLD, localize

        model = localize(torch_network(network), **how)
    else:
        from ppl_bif.numpyro import SGLD, localize

        model = localize(*jax_network(network), **how)
    return SGLD(model, step_size=STEP, batch_size=BATCH, steps_per_draw=steps)


if __name__ == "__main__":
    main()
