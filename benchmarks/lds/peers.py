"""The peers' scores on the same truths: ``python -m benchmarks.lds.peers TASK METHOD``.

Runs in an environment that has the peer (kronfluence, devinterp); every result becomes a line of
``results/peers.jsonl``.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lds import peer_dattri, peer_devinterp, peer_ekfac, peer_gradients, tasks
from benchmarks.lds.ours import RUNS
from benchmarks.lds.result import Result
from ppl_bif.evaluation import lds

RESULTS = Path(__file__).parent / "results" / "peers.jsonl"
SCORES = RUNS / "peers"
BEST = ", best of the grid by this very truth"
# Of settings whose scores are kept, for differences between methods.
ROLES = ("default", "heuristic", "weight decay", "best")
PACKAGES = ("torch", "numpy", "kronfluence", "dattri", "devinterp")


def at_random(task: tasks.Task, networks: int, device: str) -> Iterator[Result]:
    """Give scores that know nothing."""
    shape = len(task.train[1]), len(task.query[1])
    yield Result({}, np.random.default_rng(0).normal(size=shape), passes=0, seconds=0.0, seed=0)


METHODS: dict[str, Callable[[tasks.Task, int, str], Iterator[Result]]] = {
    "random": at_random,
    "graddot": peer_gradients.products,
    "gradcos": peer_gradients.cosines,
    "ekfac": peer_ekfac.scores,
    "ifcg": peer_dattri.influence,
    "trak": peer_dattri.trak,
    "devinterp": peer_devinterp.scores,
}


def main() -> None:
    """Score a task by a method at each of its settings, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", type=int, default=1, help="average scores over this many")
    parser.add_argument("--most", type=int, help="so many settings of the grid, the default first")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = tasks.load(options.task)
    found, made = [], []
    results = METHODS[options.method](task, options.networks, options.device)
    for result in islice(results, options.most):
        found.append(line(task, options, result))
        made.append(result.score)
        print(f"{found[-1]['lds']:.4f} {found[-1]['interval']} {result.settings}", flush=True)
    best = int(np.argmax([one["lds"] for one in found]))
    if len(found) > 1:
        found[best]["role"] += BEST
    keep(f"{options.task}-{options.method}", found, made)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in found)


def keep(name: str, found: list[dict[str, Any]], made: list[np.ndarray]) -> None:
    """Keep the scores of the defaults and of the best."""
    SCORES.mkdir(parents=True, exist_ok=True)
    for line, score in zip(found, made, strict=True):
        for role in ROLES:
            if role in line["role"]:
                np.save(SCORES / f"{name}-{role}.npy", score.T.astype(np.float32))


def line(task: tasks.Task, options: argparse.Namespace, result: Result) -> dict[str, Any]:
    """Judge one score matrix, and put down all that its numbers depend on."""
    found = lds(result.score.T, task.truth)
    return {
        "task": task.name,
        "method": options.method,
        "settings": result.settings,
        "role": result.role,
        "lds": round(float(found["mean"]), 4),
        "interval": [round(float(found[end]), 4) for end in ("low", "high")],
        "passes": result.passes,
        "seconds": round(result.seconds, 2),
        "seeds": {"networks": list(range(options.networks)), "method": result.seed},
        "versions": dict(_versions()),
        "device": device_name(options.device),
        "threads": torch.get_num_threads(),
    }


def device_name(device: str) -> str:
    """Name the processor or GPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
