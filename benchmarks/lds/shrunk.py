"""What shrinking small scores does to any method: ``python -m benchmarks.lds.shrunk TASK``.

Scores of EK-FAC at some dampings, and the first order of BIF by the gradients at 4 x 62 draws, are
shrunk as by errors that they do not have: some share of the root mean square of their row and of
their query. LDS of each share; 0 leaves scores as they are. Kronfluence is needed.
Lines go to ``results/shrunk.jsonl``.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

import ppl_bif as bif
from benchmarks.lds import peer_ekfac, tasks
from benchmarks.lds.ours import BACKENDS, localized
from benchmarks.lds.refined import quality
from ppl_bif.shrinkage import shrink

RESULTS = Path(__file__).parent / "results" / "shrunk.jsonl"
SHARES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
DAMPINGS = (1e-8, 1e-4, 1e-3)
DRAWS = 62


def main() -> None:
    """Score, shrink, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--backend", choices=BACKENDS, default="pyro")
    options = parser.parse_args()
    task = tasks.load(options.task)
    for name, score in methods(task, options.backend):
        for share in SHARES:
            judged = quality(xr.DataArray(shrunk(score, share), dims=("query", "train")), task)
            line = {"task": task.name, "method": name, "share": share, "lds": judged}
            print(line, flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")


def methods(task: tasks.Task, backend: str) -> Iterator[tuple[str, np.ndarray]]:
    """Give scores ``(query, train)`` by name."""
    for found in peer_ekfac.scores(task, 1, "cpu", DAMPINGS):
        yield f"EK-FAC, damping {found.settings['damping']:g}", found.score.T
    model, rows = localized(task, backend, {}), {"train": task.train, "query": task.query}
    run = bif.sample(model, **rows, draws=DRAWS, seed=0, progress=False, save_weights=True)
    refined = bif.refine(run, model, **rows)
    yield f"BIF, {backend}, first order", refined["first_order"].values
    yield f"BIF, {backend}, refined", refined["influence"].values


def shrunk(score: np.ndarray, share: float) -> np.ndarray:
    """Shrink scores as if so much of them were noise.

    Examples
    --------
    >>> shrunk(np.array([[1.0, 4.0], [2.0, 8.0]]), 0.0)
    array([[1., 4.],
           [2., 8.]])
    """
    if not share:
        return score
    squares = score**2
    of_query, of_row = squares.mean(axis=1, keepdims=True), squares.mean(axis=0, keepdims=True)
    return shrink(score, share * np.sqrt(of_query * of_row / squares.mean())).mean


if __name__ == "__main__":
    main()
