"""What runs cost beside what was forecast: ``python -m benchmarks.scale``.

Each forecast and each run in a fresh process, which measures its own peak of memory. Adds lines to
``results/scale.jsonl``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.cases import BATCH, LOCALIZATION, STEP, jax_network, rows, torch_network
from benchmarks.speed.compare import about
from ppl_bif.memory import peak_memory

RESULTS = Path(__file__).parent / "speed" / "results" / "scale.jsonl"
# Network, rows (None: the 1,797 digits), chains, draws, steps between them.
RUNS = {
    "digits, MLP": ("mlp", None, 4, 4000, 5),
    "digits, CNN": ("cnn", None, 4, 150, 5),
    "40,000 rows, MLP": ("mlp", 40_000, 4, 400, 10),
}
QUERIES, WARMUP = 1000, 20
HEAD = "| run | backend | what | forecast | run | over |\n|---|---|---|---|---|---|"


def main() -> None:
    """Forecast and make all runs, or do one of them here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("RUN", "BACKEND", "forecast|run"))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    print(HEAD)
    for name in RUNS:
        for backend in ("pyro", "numpyro"):
            found = {what: apart(name, backend, what) for what in ("forecast", "run")}
            line = {"run": name, "backend": backend, **found, **about()}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            for what, unit, style in (
                ("seconds", 1, "{:.1f} s"),
                ("disk", 1e6, "{:.1f} MB"),
                ("memory", 1e6, "{:.0f} MB"),
            ):
                told, seen = (found[which][what] for which in ("forecast", "run"))
                cells = [style.format(value / unit) for value in (told, seen)]
                print(f"| {name} | {backend} | {what} | {' | '.join(cells)} | {told / seen:.2f} |")


def apart(*arguments: str) -> dict[str, float]:
    """Forecast or make a run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one(name: str, backend: str, what: str) -> dict[str, float]:
    """Forecast or make a run."""
    import ppl_bif as bif

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
