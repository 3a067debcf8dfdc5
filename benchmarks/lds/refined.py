"""Scores by gradients at few draws: ``python -m benchmarks.lds.refined TASK BACKEND``.

One run from each seed, with default settings unless others are given, judged at several numbers of
its first draws: LDS of plain, of shrunk and of refined scores, of their first order alone, as it is
and shrunk by its errors, and how many are resolved; what they have over EK-FAC, paired, where
``peers`` has left its scores. Lines go to ``results/refined.jsonl``, scores that ``--keep`` names
to ``runs/refined/``, for ``versus``.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ppl_bif as bif
from benchmarks.lds import peers, tasks
from benchmarks.lds.damped import some_queries
from benchmarks.lds.ours import BACKENDS, RUNS, localized
from ppl_bif.evaluation import compare, lds
from ppl_bif.shrinkage import shrink_in_scale

RESULTS = Path(__file__).parent / "results" / "refined.jsonl"
SCORES = RUNS / "refined"


def main() -> None:
    """Sample, score, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[62, 125, 250])
    parser.add_argument("--queries", type=int, help="only so many, spread evenly")
    parser.add_argument("--model", type=json.loads, default={}, help="of localize, JSON")
    parser.add_argument("--kernel", help="class of a kernel")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the kernel, JSON")
    parser.add_argument("--sample", type=json.loads, default={}, help="of sample, JSON")
    parser.add_argument("--refine", type=json.loads, default={}, help="of refine, JSON")
    parser.add_argument("--device", default="cpu", help="in Pyro")
    parser.add_argument("--threads", type=int, default=1, help="in Pyro on a CPU")
    parser.add_argument("--keep", metavar="NAME", help="keep refined scores of the last line")
    options = parser.parse_args()
    task = some_queries(tasks.load(options.task), options.queries)
    for seed in options.seeds:
        for line, scores in judged(task, seed, options):
            print(line, flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if options.keep:
                keep(options.keep, line, scores)


def judged(
    task: tasks.Task, seed: int, options: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], xr.Dataset]]:
    """Give LDS and the share resolved by draws and estimator, and what was refined."""
    model = localized(task, options.backend, options.model, options.device, options.threads)
    rows = {"train": task.train, "query": task.query}
    kernel = model.make_kernel(options.kernel, **options.settings) if options.kernel else model
    settings = {"seed": seed, "progress": False, "save_weights": True, **options.sample}
    given = {name: value for name, value in options.sample.items() if name != "store"}
    started = time.perf_counter()
    run = bif.sample(kernel, **rows, draws=max(options.draws), **settings)
    seconds = time.perf_counter() - started
    for draws in options.draws:
        some = run.isel(draw=slice(0, draws))
        started = time.perf_counter()
        refined = bif.refine(some, model, **rows, **options.refine)
        more = time.perf_counter() - started
        shrunk, plain = bif.influence(some), bif.influence(some, shrink=None)
        scores = {
            "plain": plain["influence"],
            "shrunk": shrunk["influence"],
            "refined": refined["influence"],
            "first order": refined["first_order"],
            "first order, shrunk": shrunk_first_order(refined),
        }
        line = {
            "task": task.name,
            "backend": options.backend,
            "seed": seed,
            "draws": draws,
            "queries": len(task.query[1]),
            "localization": round(float(run.attrs["localization"]), 1),
            "chains": run.attrs["chains"],
            "settings": {**options.model, **options.settings, **given, **options.refine},
            "tuning": list(run.attrs["tuning"]),
            "device": peers.device_name(options.device),
            "threads": options.threads,
            "lds": {name: quality(found, task) for name, found in scores.items()},
            "less_ekfac": {} if options.queries else less_ekfac(scores, task),
            "resolved": {
                name: round(float(found["resolved"].mean()), 4)
                for name, found in (("shrunk", shrunk), ("refined", refined))
            },
            "curvatures_above_localization": refined.attrs["curvatures_above_localization"],
            "seconds_to_sample": round(seconds * draws / max(options.draws), 1),
            "seconds_to_refine": round(more, 1),
        }
        yield line, refined


def keep(name: str, line: dict[str, Any], refined: xr.Dataset) -> None:
    """Keep scores ``(query, train)`` and the line that describes them."""
    SCORES.mkdir(parents=True, exist_ok=True)
    np.savez(
        SCORES / f"{line['task']}-{line['backend']}-{name}.npz",
        line=json.dumps(line),
        **{
            part: refined[part].transpose("query", "train").values.astype(np.float32)
            for part in ("influence", "first_order")
        },
    )


def shrunk_first_order(refined: xr.Dataset) -> xr.DataArray:
    """Shrink the first order as it is shrunk alone."""
    value = refined["first_order"]
    return value.copy(data=shrink_in_scale(value.values, refined["first_order_mcse"].values).mean)


def quality(scores: xr.DataArray, task: tasks.Task) -> list[float]:
    """LDS with its 95% interval."""
    found = lds(scores.transpose("query", "train").values, task.truth)
    return [round(float(found[name]), 4) for name in ("mean", "low", "high")]


def less_ekfac(scores: Mapping[str, xr.DataArray], task: tasks.Task) -> dict[str, list[float]]:
    """What scores have over EK-FAC at its best, if it is there, else at its default: paired."""
    kept = (peers.SCORES / f"{task.name}-ekfac-{role}.npy" for role in ("best", "default"))
    path = next(filter(Path.exists, kept), None)
    if path is None:
        return {}
    values = {name: one.transpose("query", "train").values for name, one in scores.items()}
    found = compare({**values, "EK-FAC": np.load(path)}, task.truth).sel(other="EK-FAC")
    ends = ("difference", "difference_low", "difference_high")
    return {
        name: [round(float(found[end].sel(attributor=name)), 4) for end in ends] for name in scores
    }


if __name__ == "__main__":
    main()
