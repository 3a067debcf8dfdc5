"""Runs of ppl_bif on the tasks: ``python -m benchmarks.lds.ours TASK BACKEND --seeds 0 1``.

Default settings unless a kernel or settings are named. A run is kept as ``runs/NAME.npz`` (not
committed), from which :mod:`benchmarks.lds.judge` makes ``results/ours.jsonl``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ppl_bif as bif
from benchmarks.lds import tasks
from ppl_bif.schema import group

RUNS = Path(__file__).parent / "runs"
BACKENDS = ("numpyro", "pyro")


def main() -> None:
    """Sample a task from some seeds, and keep the traces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("--name", default="default", help="of these settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu", help="in Pyro")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--max-time", type=float, help="seconds of sampling, in place of draws")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--chain-method", default="auto")
    parser.add_argument("--kernel", help="class of a kernel")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the kernel, JSON")
    parser.add_argument("--model", type=json.loads, default={}, help="of localize, JSON")
    options = parser.parse_args()
    task = tasks.load(options.task)
    RUNS.mkdir(exist_ok=True)
    for seed in options.seeds:
        model = localized(task, options.backend, options.model, options.device)
        if options.kernel:
            model = model.make_kernel(options.kernel, **options.settings)
        name = f"{options.task}-{options.backend}-{options.name}-{seed}"
        keep(
            task,
            model,
            name,
            seed=seed,
            draws="auto" if options.max_time else options.draws,
            max_time=options.max_time,
            chains=options.chains,
            chain_method=options.chain_method,
        )


def localized(
    task: tasks.Task, backend: str, settings: dict[str, Any], device: str = "cpu", threads: int = 1
) -> Any:
    """Localize a task's network, trained from seed 0; in Pyro on so many threads of a CPU."""
    tokens = task.train[1].ndim > 1
    settings = {"likelihood": "tokens" if tokens else "categorical", **settings}
    if backend == "pyro":
        import torch

        from benchmarks.lds.networks import trained
        from ppl_bif.pyro import localize

        torch.set_num_threads(threads)
        return localize(trained(task, 0, device), **settings)
    from benchmarks.lds import jax_networks
    from ppl_bif.numpyro import localize as localize_jax

    return localize_jax(*jax_networks.trained(task), **settings)


def keep(task: tasks.Task, model: Any, name: str, **settings: Any) -> None:
    """Sample, and keep traces, seconds and what warm-up chose."""
    start = time.perf_counter()
    run = bif.sample(model, train=task.train, query=task.query, progress=False, **settings)
    seconds = time.perf_counter() - start
    traces = group(run, "log_likelihood").map(rowwise)
    attrs = {k: v for k, v in run.attrs.items() if not isinstance(v, np.ndarray)}
    np.savez(
        RUNS / f"{name}.npz",
        train=traces["train_obs"].values,
        query=traces["query_obs"].values,
        seconds=seconds,
        attrs=json.dumps(attrs, default=str),
    )
    print(f"{name}: {seconds:.0f} s", *attrs["tuning"], *attrs["notes"], sep="\n  ", flush=True)


def rowwise(series: xr.DataArray) -> xr.DataArray:
    """Sum the tokens of a row."""
    return series.sum([d for d in series.dims if str(d).endswith("_token")])


if __name__ == "__main__":
    main()
