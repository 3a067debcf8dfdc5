"""How far runs lie apart, and whether their errors say so: ``python -m benchmarks.lds.apart TASK``.

The first order of refined scores, from several seeds in Pyro: as it is, shrunk by the errors of
single pairs, and shrunk in units of the errors of rows and queries, as ``bif.refine`` does. Each
run is held against the mean of the others: the root mean square of what it is off, less what the
others are, as a share of that of the scores; this in units of the errors told (z), of all scores
and of the largest 1%; how many are resolved, and how many of those have the other sign; and LDS.
Lines go to ``results/apart.jsonl``.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

import ppl_bif as bif
from benchmarks.lds import tasks
from benchmarks.lds.ours import localized
from ppl_bif.evaluation import lds
from ppl_bif.scores import RESOLVED_FALSE_SIGN
from ppl_bif.shrinkage import Shrunk, shrink, shrink_in_scale

RESULTS = Path(__file__).parent / "results" / "apart.jsonl"
LARGEST = 0.99


def as_it_is(value: np.ndarray, error: np.ndarray) -> Shrunk:
    """Take errors as normal."""
    return Shrunk(value, error, ndtr(-np.abs(value) / error))


ESTIMATORS: dict[str, Callable[[np.ndarray, np.ndarray], Shrunk]] = {
    "first order": as_it_is,
    "shrunk by its own errors": shrink,
    "shrunk in scale": shrink_in_scale,
}


class Seen(NamedTuple):
    """What one run gave, ``(query, train)``."""

    value: np.ndarray
    error: np.ndarray


def main() -> None:
    """Sample from each seed, refine, compare, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--draws", type=int, default=62)
    parser.add_argument("--model", type=json.loads, default={}, help="of localize, JSON")
    options = parser.parse_args()
    task = tasks.load(options.task)
    runs = [seen(task, seed, options) for seed in options.seeds]
    about = {"task": task.name, "draws": options.draws, "settings": options.model}
    for name, estimator in ESTIMATORS.items():
        found = [judged(estimator, runs, i, task) for i in range(len(runs))]
        means = {key: round(float(np.mean([one[key] for one in found])), 4) for key in found[0]}
        line = {**about, "seeds": len(runs), "estimator": name, **means}
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")


def seen(task: tasks.Task, seed: int, options: argparse.Namespace) -> Seen:
    """Sample and refine."""
    model = localized(task, "pyro", options.model)
    rows = {"train": task.train, "query": task.query}
    how = {"draws": options.draws, "seed": seed, "progress": False, "save_weights": True}
    run = bif.sample(model, **rows, **how)
    found = bif.refine(run, model, **rows, first_order=True)
    return Seen(found["first_order"].values, found["first_order_mcse"].values)


def judged(
    estimator: Callable[[np.ndarray, np.ndarray], Shrunk],
    runs: list[Seen],
    which: int,
    task: tasks.Task,
) -> dict[str, Any]:
    """Hold one run against the mean of the others."""
    value, error = (np.stack(part) for part in zip(*np.delete(runs, which, axis=0), strict=True))
    mean, of_mean = value.mean(axis=0), (error**2).sum(axis=0) / len(value) ** 2
    noise = value.var(axis=0, ddof=1).mean() / len(value)
    found = estimator(*runs[which])
    off = np.square(found.mean - mean)
    z = off / (found.sd**2 + of_mean)
    largest = np.abs(mean) > np.quantile(np.abs(mean), LARGEST)
    resolved = found.false_sign < RESOLVED_FALSE_SIGN
    other = np.sign(found.mean) != np.sign(mean)
    return {
        "off": np.sqrt(max(off.mean() - noise, 0) / (np.square(mean).mean() - noise)),
        "z": np.sqrt(z.mean()),
        "z_largest": np.sqrt(z[largest].mean()),
        "resolved": resolved.mean(),
        "other_sign": other[resolved].mean(),
        "false_sign": found.false_sign[resolved].mean(),
        "lds": lds(found.mean, task.truth, resamples=0)["mean"],
    }


if __name__ == "__main__":
    main()
