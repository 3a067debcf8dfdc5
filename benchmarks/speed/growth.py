"""How cost grows: ``python -m benchmarks.speed.growth BACKEND``.

A run of SGLD on a small MLP (a GPT for tokens, in PyTorch), of which one size at a time grows over
a decade; CPU-seconds of warm calls, the least of three. The exponent is fitted to the sizes above
the middle, where what does not grow no longer shows; passes alone would give 1. Adds lines to
``results/growth.jsonl``.
"""

import argparse
import json
import time
import warnings
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.speed.compare import RESULTS, about

# All sizes at rest, and those that each takes while it grows.
REST = {"rows": 2_000, "queries": 200, "width": 64, "chains": 4, "draws": 50, "tokens": 32}
GROWING = {
    "rows": [2_000, 5_000, 10_000, 20_000],
    "queries": [2_000, 5_000, 10_000, 20_000],
    "width": [128, 256, 512, 1280],
    "chains": [4, 8, 20, 40],
    "draws": [100, 200, 500, 1_000],
    "tokens": [32, 64, 160, 320],
}
FEATURES, CLASSES, REPEATS = 64, 10, 3


def main() -> None:
    """Let each size grow, print times and exponents, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("pyro", "numpyro"))
    parser.add_argument("--sizes", nargs="+", choices=GROWING, default=list(GROWING))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in options.sizes:
        if name == "tokens" and options.backend == "numpyro":
            continue
        seconds = [measured(options.backend, name, size) for size in GROWING[name]]
        # Weights grow with the square of the width, beside those of the first and last layer.
        sizes = [weights(w) for w in GROWING[name]] if name == "width" else GROWING[name]
        exponent = np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0]
        line = {
            "backend": options.backend,
            "size": "weights" if name == "width" else name,
            "values": sizes,
            "cpu_seconds": [float(f"{s:.3g}") for s in seconds],
            "exponent": round(float(exponent), 2),
            **about(),
        }
        print(json.dumps(line), flush=True)
        with RESULTS.with_name("growth.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def measured(backend: str, name: str, size: int) -> float:
    """CPU-seconds of a warm call in which one size has grown."""
    import ppl_bif as bif

    sizes = {**REST, name: size}
    rng = np.random.default_rng(0)
    rows = sizes["rows"] + sizes["queries"]
    if name == "tokens":
        rows = 64
        x = rng.integers(CLASSES, size=(rows, size))
        y, train, likelihood = np.roll(x, -1, axis=1), 48, "tokens"
    else:
        x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
        y, train, likelihood = rng.integers(CLASSES, size=rows), sizes["rows"], "categorical"
    kernel = build(backend, name, sizes["width"], likelihood)
    settings: dict[str, Any] = {
        "train": (x[:train], y[:train]),
        "query": (x[train:], y[train:]),
        "chains": sizes["chains"],
        "draws": 10 if name == "tokens" else sizes["draws"],
        "warmup": 0,
        "progress": False,
    }
    bif.sample(kernel, **settings)
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        bif.sample(kernel, **settings)
        found.append(time.process_time() - began)
    return min(found)


def build(backend: str, name: str, width: int, likelihood: str) -> Any:
    """Build SGLD of a network of three layers, or of a small GPT."""
    import torch
    from torch import nn

    from benchmarks.speed.networks import gpt

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(
        *(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, CLASSES),
    )
    if backend == "numpyro":
        given = as_function(network)
    else:
        given = (gpt(max(GROWING["tokens"])) if name == "tokens" else network,)
    module = import_module(f"ppl_bif.{backend}")
    model = module.localize(*given, likelihood=likelihood, localization=100.0)
    return module.SGLD(model, batch_size=32, step_size=1e-6, steps_per_draw=1)


def as_function(network: Any) -> tuple[Any, dict[str, Any]]:
    """Return the network of three layers as a function in JAX, and its weights."""
    import jax
    import jax.numpy as jnp

    def apply(p: Any, x: Any) -> Any:
        for layer in "02":
            x = jax.nn.relu(x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"])
        return x @ p["4.weight"].T + p["4.bias"]

    return apply, {n: jnp.asarray(w.detach().numpy()) for n, w in network.named_parameters()}


def weights(width: int) -> int:
    """Return how many weights the network of three layers has."""
    return width * (FEATURES + 1) + width * (width + 1) + CLASSES * (width + 1)


if __name__ == "__main__":
    main()
