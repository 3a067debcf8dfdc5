"""How good the runs' scores are: ``python -m benchmarks.lds.judge`` writes ``results/ours.jsonl``.

Every run in ``runs/`` is judged at several numbers of draws, by each estimator: LDS against
retraining, rank agreement with another run of the same settings, Pearson with the long reference,
or with all other default runs together where there is none. Lines of runs that are no longer in
``runs/`` stay as they are.
"""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import ppl_bif as bif
from benchmarks.lds import tasks
from benchmarks.lds.ours import RUNS
from ppl_bif.convergence import agreement
from ppl_bif.evaluation import lds

RESULTS = Path(__file__).parent / "results" / "ours.jsonl"
SCORES = RUNS / "scores"
DRAWS = (62, 125, 250, 300, 500, 1000)
ESTIMATORS: dict[str, dict[str, Any]] = {"raw": {"shrink": None}, "eb": {"shrink": "eb"}}
# Passes of one example: scoring, a gradient, a product with the Hessian.
FORWARD, GRADIENT, HESSIAN = 1, 3, 6
# Of a top curvature by Lanczos: steps, and rows of the Hessian.
LANCZOS, HESSIAN_ROWS = 12, 1024


class Run(NamedTuple):
    """A kept run: its parts of the name, and where it is."""

    task: str
    backend: str
    name: str
    seed: int
    path: Path


def main() -> None:
    """Judge all runs."""
    SCORES.mkdir(parents=True, exist_ok=True)
    runs = [
        Run(*path.stem.split("-")[:3], int(path.stem.split("-")[3]), path)
        for path in sorted(RUNS.glob("*-*-*-*.npz"))
    ]
    lines = earlier(runs)
    for run in runs:
        if run.name != "reference":
            lines += [describe(run, runs, *which) for which in wanted(run)]
            print(run.path.stem, lines[-1]["lds"], flush=True)
    lines.sort(key=lambda line: [line[key] for key in ("task", "backend", "name", "seed")])
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))


def earlier(runs: list[Run]) -> list[dict[str, Any]]:
    """Return the lines of runs that are not among these."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    here = {run[:4] for run in runs}
    return [x for x in lines if (x["task"], x["backend"], x["name"], x["seed"]) not in here]


def wanted(run: Run) -> Iterator[tuple[str, int]]:
    """Estimators and draws to judge a run at."""
    with np.load(run.path) as kept:
        most = kept["train"].shape[1]
    yield from product(ESTIMATORS, [n for n in DRAWS if n <= most])


def describe(run: Run, runs: list[Run], estimator: str, draws: int) -> dict[str, Any]:
    """Put down what one estimate is worth and what it cost."""
    task, score = tasks.load(run.task), scores(run, estimator, draws)
    with np.load(run.path) as kept:
        attrs, seconds = json.loads(str(kept["attrs"])), float(kept["seconds"])
        drawn = kept["train"].shape[1]
    line = {
        **run._asdict(),
        "path": None,
        "estimator": estimator,
        "draws": draws,
        "lds": quality(score, task),
        "passes": passes(attrs, task, draws),
        "seconds": round(seconds * draws / drawn, 1),
        "steps_per_draw": int(attrs["steps_per_draw"]),
        "step_size": float(attrs["step_size"]),
    }
    del line["path"]
    other = next((r for r in runs if r[:3] == run[:3] and r.seed == run.seed ^ 1), None)
    if other is not None:
        line["agreement"] = round(
            float(agreement(score, scores(other, estimator, draws)).mean()), 4
        )
    limit = reference(run, runs)
    if limit is not None and line["lds"] is not None:
        line["pearson"] = round(float(np.corrcoef(score.ravel(), limit.ravel())[0, 1]), 4)
    return line


def reference(run: Run, runs: list[Run]) -> np.ndarray | None:
    """Plain scores of the long reference run, or of all other default runs together."""
    same = [r for r in runs if r.task == run.task]
    long = [r for r in same if r.name == "reference"]
    others = [r for r in same if r.name == "default" and r != run]
    used = long or others
    return np.mean([scores(r, "raw", 10**9) for r in used], axis=0) if used else None


def quality(score: np.ndarray, task: tasks.Task) -> float | None:
    """LDS of scores ``(query, train)``; None where the run diverged."""
    if not np.isfinite(score).all():
        return None
    return round(float(lds(score, task.truth, resamples=0)["mean"]), 4)


def scores(run: Run, estimator: str, draws: int) -> np.ndarray:
    """Scores ``(query, train)`` from the first draws of a run."""
    kept = SCORES / f"{run.path.stem}-{estimator}-{draws}.npy"
    if not kept.exists():
        with np.load(run.path) as traces:
            series = {
                f"{part}_obs": (("chain", "draw", part), traces[part][:, :draws])
                for part in ("train", "query")
            }
        tree = xr.DataTree.from_dict({"log_likelihood": xr.Dataset(series)})
        try:
            found = bif.influence(tree, **ESTIMATORS[estimator])["influence"]
        except bif.BIFError:
            sizes = tree["log_likelihood"].sizes
            found = xr.DataArray(np.full((sizes["query"], sizes["train"]), np.nan))
        np.save(kept, found.values.astype(np.float32))
    return np.load(kept)


def passes(attrs: dict[str, Any], task: tasks.Task, draws: int) -> int:
    """Example passes of a run, warm-up among them: a gradient counts 3, scoring 1."""
    rows, queries = len(task.rows.train_y), len(task.rows.query_y)
    full = attrs["gradient"] == "full"
    per_step = (
        rows if full else attrs["batch_size"] * (1 + (attrs["gradient"] == "control_variates"))
    )
    leapfrogs = attrs.get("leapfrog_steps", 1)
    steps = draws * attrs["steps_per_draw"] + attrs.get("warmup_steps", 600)
    scored = queries if full else rows + queries
    sampling = GRADIENT * per_step * leapfrogs * steps + FORWARD * draws * scored
    return int(attrs["chains"] * sampling + HESSIAN * products(attrs) * min(rows, HESSIAN_ROWS))


def products(attrs: dict[str, Any]) -> int:
    """Products with the Hessian of so many rows, which warm-up took."""
    chosen = {line.split(" = ")[0] for line in attrs["tuning"]}
    found = LANCZOS if "localization" in chosen else 0
    if "step_size" in chosen:
        found += 3 * LANCZOS * attrs["chains"]
    if attrs["preconditioner"].startswith("low_rank"):
        found += (2 * 17 + 10) * attrs["chains"]
    return found


if __name__ == "__main__":
    main()
