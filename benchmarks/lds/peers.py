"""The peers' scores on the same truths: ``python -m benchmarks.lds.peers TASK METHOD``.

Runs in an environment that has the peer (kronfluence, devinterp); every result becomes a line of
``results/peers.jsonl``.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.lds import peer_devinterp, peer_ekfac, peer_graddot, tasks
from benchmarks.lds.result import Result
from ppl_bif.evaluation import lds

RESULTS = Path(__file__).parent / "results" / "peers.jsonl"
PACKAGES = ("torch", "numpy", "kronfluence", "devinterp")
METHODS: dict[str, Callable[[tasks.Task, int], Iterator[Result]]] = {
    "graddot": peer_graddot.scores,
    "ekfac": peer_ekfac.scores,
    "devinterp": peer_devinterp.scores,
}


def main() -> None:
    """Score a task by a method at each of its settings, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--networks", type=int, default=1, help="average scores over this many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = tasks.load(options.task)
    found = []
    for result in METHODS[options.method](task, options.networks):
        found.append(line(task, options.method, options.networks, result))
        print(f"{found[-1]['lds']:.4f} {found[-1]['interval']} {result.settings}", flush=True)
    if len(found) > 1:
        max(found, key=lambda one: one["lds"])["role"] += ", best of the grid by this very truth"
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in found)


def line(task: tasks.Task, method: str, networks: int, result: Result) -> dict[str, Any]:
    """Judge one score matrix, and put down all that its numbers depend on."""
    found = lds(result.score.T, task.truth)
    return {
        "task": task.name,
        "method": method,
        "settings": result.settings,
        "role": result.role,
        "lds": round(float(found["mean"]), 4),
        "interval": [round(float(found[end]), 4) for end in ("low", "high")],
        "passes": result.passes,
        "seconds": round(result.seconds, 2),
        "seeds": {"networks": list(range(networks)), "method": result.seed},
        "versions": dict(_versions()),
        "threads": torch.get_num_threads(),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
