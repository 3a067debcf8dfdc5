"""Remake a ground truth: ``python -m benchmarks.lds.retrain TASK`` (minutes)."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.lds import networks, tasks
from ppl_bif.evaluation import retrain

CHOOSERS = {"fashion_cnn": tasks.fashion, "cifar_resnet9": tasks.cifar}


def main() -> None:
    """Train on all rows and on every half, and store weights, losses and what else is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--folder", help="where the pictures are")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--store", help="where retrainings are kept as they end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, name = time.perf_counter(), options.task
    stored = CHOOSERS[name](options.folder) if name in CHOOSERS else {}
    rows = tasks.scaled(stored) if stored else tasks.rows_of(name)
    kept = {} if name.startswith("cifar") else stored
    path, spec = tasks.DATA / f"{name}.npz", tasks.SPECS[name]
    # A retraining reads its rows from there; the truth that is there stays until the new one is.
    if not path.exists():
        write(path, kept)
    elif not np.array_equal(tasks.rows_of(name).train_x, rows.train_x):
        parser.error(f"{path} holds other pictures than {options.folder}: move it away first")
    kept |= tasks.named(weights(name, rows, options.device))
    truth = retrain(
        networks.Retraining(name, options.device),
        tasks.masks(spec.subsets, len(rows.train_y)),
        seeds=range(spec.seeds),
        workers=options.workers,
        store=options.store,
        progress=True,
    )
    kept["loss"] = truth["loss"].values.astype(np.float32)
    write(path, kept)
    print(f"{name}: {time.perf_counter() - started:.0f} s")


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


def weights(name: str, rows: tasks.Rows, device: str) -> Iterator[dict[str, np.ndarray]]:
    """Train on all rows, from each seed."""
    for seed in range(tasks.SPECS[name].networks):
        network = networks.fit(name, rows.train_x, rows.train_y, seed, device)
        loss = networks.losses(network, rows.query_x, rows.query_y).mean()
        print(f"{name}: all rows, seed {seed}, loss of a query {loss:.3f}", flush=True)
        yield networks.arrays(network)


if __name__ == "__main__":
    main()
