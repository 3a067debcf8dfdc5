"""Remake a ground truth: ``python -m benchmarks.lds.retrain TASK`` (minutes)."""

import argparse
import time
from collections.abc import Iterator

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
    kept |= tasks.named(weights(name, rows, options.device))
    np.savez_compressed(tasks.DATA / f"{name}.npz", **kept)
    spec = tasks.SPECS[name]
    truth = retrain(
        networks.Retraining(name, options.device),
        tasks.masks(spec.subsets, len(rows.train_y)),
        seeds=range(spec.seeds),
        workers=options.workers,
        store=options.store,
        progress=True,
    )
    kept["loss"] = truth["loss"].values.astype(np.float32)
    np.savez_compressed(tasks.DATA / f"{name}.npz", **kept)
    print(f"{name}: {time.perf_counter() - started:.0f} s")


def weights(name: str, rows: tasks.Rows, device: str) -> Iterator[dict[str, np.ndarray]]:
    """Train on all rows, from each seed."""
    for seed in range(tasks.SPECS[name].networks):
        network = networks.fit(name, rows.train_x, rows.train_y, seed, device)
        loss = networks.losses(network, rows.query_x, rows.query_y).mean()
        print(f"{name}: all rows, seed {seed}, loss of a query {loss:.3f}", flush=True)
        yield networks.arrays(network)


if __name__ == "__main__":
    main()
