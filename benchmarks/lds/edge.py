"""Where the edge lies: ``python -m benchmarks.lds.edge {removed,width,queries}``.

``removed``: LDS where retraining leaves out 1 to 50 in 100 rows of the digits MLP. ``width``: of
the digits MLP with other widths. ``queries``: CPU-seconds and peak memory for 1 to 1,000 queries of
the Fashion-MNIST CNN, each in a process of its own. Runs in an environment that has kronfluence;
lines go to ``results/edge.jsonl``.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import ppl_bif as bif
from benchmarks.lds import networks, peer_ekfac, peer_gradients, tasks
from benchmarks.lds.ours import localized
from ppl_bif.evaluation import ceiling, compare, lds, random_subsets, retrain
from ppl_bif.memory import peak_memory
from ppl_bif.schema import root_attrs

RESULTS = Path(__file__).parent / "results" / "edge.jsonl"
SUBSETS, SEEDS, DRAWS = 64, 2, 1000
# What makes BIF as good as EK-FAC on the Fashion-MNIST CNN.
FEW = 100
REMOVED = (0.01, 0.05, 0.1, 0.5)
WIDTHS = (16, 64, 256, 1024)
QUERIES = (1, 10, 100, 1000)


def main() -> None:
    """Measure one of the three, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=MEASURED)
    parser.add_argument("--workers", type=int, default=1, help="processes that retrain")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--draws", type=int, default=DRAWS, help="a chain; queries takes few")
    parser.add_argument("--model", type=json.loads, default={}, help="of localize, JSON")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for line in MEASURED[options.what](options):
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"what": options.what, **line, **options.model}) + "\n")


def removed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give LDS by the share of rows that retraining leaves out."""
    task = tasks.load("digits_mlp")
    scores, _ = scored(task, options)
    for share in REMOVED:
        truth = retrained(task, 1 - share, options.workers)
        for line in judged(scores, truth):
            yield {"removed": share, **line}


def width(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give LDS by the width of the first hidden layer; the second has half of it."""
    for count in options.widths:
        name = f"digits_mlp_{count}"
        networks.NETWORKS[name] = partial(networks.mlp, count)
        task = tasks.Task(name, tasks.digits(), (), np.empty(0), np.empty(0))
        truth = retrained(task, 0.5, options.workers)
        scores, localization = scored(task, options)
        for line in judged(scores, truth):
            yield {
                "width": count,
                **line,
                "draws": options.draws,
                "localization": round(localization, 1),
            }


def queries(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give costs, those of what has to be fitted or sampled first among them, by queries."""
    draws = min(options.draws, FEW)
    methods = {
        f"BIF, 4 x {draws}": partial(of_bif, draws=draws, settings=options.model),
        "EK-FAC": _of_ekfac,
    }
    for count, (name, method) in product(QUERIES, methods.items()):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            yield {"queries": count, "method": name, **alone.submit(_cost, method, count).result()}


def _cost(method: Callable[[tasks.Task], Any], count: int) -> dict[str, float]:
    """Explain so many queries, which repeat where there are no more."""
    torch.set_num_threads(1)
    task = tasks.load("fashion_cnn")
    asked = np.arange(count) % len(task.rows.query_y)
    x, y = task.rows.query_x[asked], task.rows.query_y[asked]
    started = time.process_time()
    method(task._replace(rows=task.rows._replace(query_x=x, query_y=y)))
    spent = round(time.process_time() - started, 1)
    return {"cpu_seconds": spent, "peak_gb": round(peak_memory() / 1e9, 2)}


def _of_ekfac(task: tasks.Task) -> None:
    next(peer_ekfac.scores(task, 1, "cpu"))


MEASURED = {"removed": removed, "width": width, "queries": queries}


def scored(task: tasks.Task, options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Score a task by each method, ``(query, train)``; EK-FAC by its whole grid of dampings.

    And say at which localization BIF's were made.
    """
    of_ours, localization = of_bif(task, options.draws, options.model)
    found = {"BIF": of_ours}
    for result in peer_ekfac.scores(task, 1, "cpu"):
        found[f"EK-FAC {result.settings['damping']}"] = result.score.T
    found["GradDot"] = next(peer_gradients.products(task, 1, "cpu")).score.T
    return found, localization


def of_bif(task: tasks.Task, draws: int, settings: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Score by the library's defaults, but for settings of the model, in Pyro."""
    run = bif.sample(
        localized(task, "pyro", settings),
        train=task.train,
        query=task.query,
        chains=4,
        draws=draws,
        seed=0,
        progress=False,
    )
    scores = bif.influence(run)["influence"].transpose("query", "train").values
    return scores, float(root_attrs(run)["localization"])


def retrained(task: tasks.Task, fraction: float, workers: int) -> xr.Dataset:
    """Retrain a task's network on random subsets."""
    masks = random_subsets(len(task.rows.train_y), SUBSETS, fraction=fraction)
    train = networks.Retraining(task.name, "cpu")
    return retrain(train, masks, seeds=range(SEEDS), workers=workers, progress=False)


DIFFERENCE = ("difference", "difference_low", "difference_high")


def judged(scores: dict[str, np.ndarray], truth: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Give LDS of ours, of EK-FAC at its heuristic and its best damping, and of gradients."""
    grid = [name for name in scores if name.startswith("EK-FAC")]
    best = max(grid, key=lambda name: float(lds(scores[name], truth, resamples=1)["mean"]))
    heuristic = next(name for name in grid if "mean eigenvalue" in name)
    methods = {
        "BIF": scores["BIF"],
        "EK-FAC, heuristic": scores[heuristic],
        "EK-FAC, best": scores[best],
        "GradDot": scores["GradDot"],
    }
    found = compare(methods, truth)
    top = round(float(ceiling(truth)), 3)
    for name in methods:
        own, less = found.sel(attributor=name), found.sel(attributor="BIF", other=name)
        yield {
            "method": name,
            "lds": rounded(own, "lds", "low", "high"),
            "bif_less_this": rounded(less, *DIFFERENCE),
            "ceiling": top,
        }


def rounded(found: xr.Dataset, *names: str) -> list[float]:
    """Return these numbers with three digits."""
    return [round(float(found[name]), 3) for name in names]


if __name__ == "__main__":
    main()
