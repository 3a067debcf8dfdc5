"""Compare subjects on a case: ``python -m benchmarks.speed.compare CASE --peers PYTHON``.

Subjects take turns, each in a fresh process, so that what else the machine does falls on all.
Adds a line for each to ``results/cpu.jsonl``: medians and ranges over the turns, ratios to
devinterp and to the bare loops among them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.speed.cases import CASES, JAX_NETWORKS
from benchmarks.speed.subjects import SUBJECTS

RESULTS = Path(__file__).parent / "results" / "cpu.jsonl"
PACKAGES = ("torch", "jax", "numpyro", "pyro-ppl", "numpy")
PEER, AGAINST = "devinterp", ("devinterp", "bare_torch", "bare_jax")


def main() -> None:
    """Take turns, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--peers", help="an interpreter that has devinterp; left out without")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    in_jax = CASES[options.case].network in JAX_NETWORKS
    names = [
        name
        for name in options.subjects
        if (name != PEER or options.peers) and (in_jax or name not in ("numpyro", "bare_jax"))
    ]
    turns = [
        {name: measured(name, options.case, options.threads, options.peers) for name in names}
        for _ in range(options.turns)
    ]
    lines = [summary(name, options.case, options.threads, turns) for name in names]
    for line in lines:
        print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def measured(name: str, case: str, threads: int, peers: str | None) -> dict[str, float]:
    """Time a subject in a process of its own."""
    python = peers if name == PEER and peers else sys.executable
    one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "XLA_FLAGS": one if threads == 1 else "",
    }
    command = [python, "-m", "benchmarks.speed.measure", case, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(
    name: str, case: str, threads: int, turns: list[dict[str, dict[str, float]]]
) -> dict[str, Any]:
    """Put down rates of a subject, and their ratios to the peer's of the same turn."""
    line: dict[str, Any] = {"case": case, "subject": name, "threads": threads, "turns": len(turns)}
    for kind in ("rate", "call", "setup"):
        line[kind] = spread([turn[name][kind] for turn in turns])
        for other in () if kind == "setup" else AGAINST:
            if other in turns[0] and other != name:
                ratios = [turn[name][kind] / turn[other][kind] for turn in turns]
                line[f"{kind}_over_{other}"] = spread(ratios)
    return {**line, **about()}


def about() -> dict[str, Any]:
    """Name the machine and the versions."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    processor = names[0].split(": ")[1] if names else platform.machine()
    versions = {package: version(package) for package in PACKAGES}
    return {"processor": processor, "cores": os.cpu_count(), "versions": versions}


def spread(values: list[float]) -> list[float]:
    """Median, smallest and largest."""
    return [float(f"{v:.4g}") for v in (statistics.median(values), min(values), max(values))]


if __name__ == "__main__":
    main()
