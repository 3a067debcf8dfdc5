"""Remake a ground truth: ``python -m benchmarks.lds.retrain TASK`` (minutes, one process)."""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.lds import networks, tasks


def main() -> None:
    """Train on all rows and on every half, and store weights, losses and what else is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--folder", help="where Fashion-MNIST's files are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    stored = tasks.fashion(options.folder) if options.task.startswith("fashion") else {}
    rows = tasks.scaled(stored) if stored else tasks.digits()
    stored |= tasks.named(weights(options.task, rows))
    stored["loss"] = truth(options.task, rows).astype(np.float16)
    np.savez_compressed(tasks.DATA / f"{options.task}.npz", **stored)
    print(f"{options.task}: {time.perf_counter() - started:.0f} s")


def weights(name: str, rows: tasks.Rows) -> Iterator[dict[str, np.ndarray]]:
    """Train on all rows, from each seed."""
    for seed in range(tasks.SPECS[name].networks):
        network = networks.fit(name, rows.train_x, rows.train_y, seed)
        right = networks.accuracy(network, rows.query_x, rows.query_y)
        print(f"{name}: all rows, seed {seed}, {right:.1%} of the queries are right", flush=True)
        yield networks.arrays(network)


def truth(name: str, rows: tasks.Rows) -> np.ndarray:
    """Losses of the networks retrained on halves, ``(subset, seed, query)``."""
    spec = tasks.SPECS[name]
    masks = tasks.masks(spec.subsets, len(rows.train_y))
    out = np.zeros((spec.subsets, spec.seeds, len(rows.query_y)), np.float32)
    for m, mask in enumerate(masks):
        for seed in range(spec.seeds):
            out[m, seed] = retrained(name, rows, mask, seed)
        print(f"{name}: subset {m + 1} of {spec.subsets}", flush=True)
    return out


def retrained(name: str, rows: tasks.Rows, mask: np.ndarray, seed: int) -> np.ndarray:
    """Losses of the queries after training on some of the rows, ``(query,)``."""
    network = networks.fit(name, rows.train_x[mask], rows.train_y[mask], seed)
    return networks.losses(network, rows.query_x, rows.query_y)


if __name__ == "__main__":
    main()
