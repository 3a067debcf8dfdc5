"""Gradients of single rows a CPU-second: ``python -m benchmarks.speed.slopes``.

By how many numbers are held at once, on one core, each network in a process of its own. Also with
``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000``, by which glibc keeps memory it has freed.
"""

import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.speed.again import layers

WIDTHS, ROWS = (64, 512, 256, 10), 2048
IMAGES, POINTS, DIRECTIONS = 40, 8, 10
NUMBERS = tuple(2**power for power in range(26, 20, -1))
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000"}


def main() -> None:
    """Time one network, or all, each with both ways of allocating."""
    if len(sys.argv) > 1:
        timed(sys.argv[1])
        return
    for name in NETWORKS:
        for keeping in ({}, KEEPING):
            print(f"{name}{', freed memory kept' if keeping else ''}", flush=True)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **keeping}
            command = [sys.executable, "-m", "benchmarks.speed.slopes", name]
            subprocess.run(command, check=True, env=environment)


def timed(name: str) -> None:
    """Print rows a CPU-second by numbers held at once."""
    import ppl_bif.kernel as kernel

    model, train = NETWORKS[name]()
    rng = np.random.default_rng(0)
    at = np.concatenate([np.asarray(model.mode[site]).ravel() for site in sorted(model.mode)])
    directions = rng.normal(size=(DIRECTIONS, len(at))).astype(np.float32)
    for numbers in NUMBERS:
        kernel.NUMBERS_AT_ONCE_ON_CPU = numbers
        slopes = model.make_slopes({"train": train})
        slopes.along("train", at[None], directions)
        started = time.process_time()
        slopes.along("train", np.stack([at] * POINTS), directions)
        rate = POINTS * len(train[1]) / (time.process_time() - started)
        print(f"  {numbers * 4 // 2**20:4} MB {rate:8.0f} rows a CPU-second", flush=True)


def rows(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Make random rows of ten classes."""
    rng = np.random.default_rng(2)
    return np.float32(rng.normal(size=(count, *shape))), rng.integers(0, 10, count)


def mlp_in_torch() -> Any:
    import torch

    from ppl_bif.pyro import localize

    parts: list[torch.nn.Module] = []
    for w in layers(WIDTHS):
        linear = torch.nn.Linear(*w.shape, bias=False)
        linear.weight.data = torch.from_numpy(w.T.copy())
        parts += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*parts[:-1])
    model = localize(network, likelihood="categorical", localization=100.0)
    return model, rows(ROWS, WIDTHS[0])


def mlp_in_jax() -> Any:
    import jax

    from ppl_bif.numpyro import localize

    def apply(weights: list[Any], x: Any) -> Any:
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return x @ weights[-1]

    weights = [jax.numpy.asarray(w) for w in layers(WIDTHS)]
    model = localize(apply, weights, likelihood="categorical", localization=100.0)
    return model, rows(ROWS, WIDTHS[0])


def resnet9_in_torch() -> Any:
    from ppl_bif.pyro import localize
    from ppl_bif_models.resnet9_torch import resnet9

    network = resnet9(0, width=32).eval()
    model = localize(network, likelihood="categorical", localization=1e4)
    return model, rows(IMAGES, 3, 32, 32)


NETWORKS = {
    "MLP, PyTorch": mlp_in_torch,
    "MLP, JAX": mlp_in_jax,
    "ResNet-9, PyTorch": resnet9_in_torch,
}


if __name__ == "__main__":
    main()
