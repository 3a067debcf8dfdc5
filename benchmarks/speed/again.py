"""CPU-seconds of a first run in a process and those after: ``python -m benchmarks.speed.again``.

A run of default settings on a small network, then one with another seed, one at another
localization, and one of another model of the same network. Each backend in a process of its own.
"""

import subprocess
import sys
import time
from itertools import pairwise

import numpy as np

import ppl_bif as bif

WIDTHS, ROWS, CHAINS, DRAWS = (20, 16, 3), 200, 4, 50


def main() -> None:
    """Time one backend, or both one after the other."""
    if len(sys.argv) > 1:
        timed(sys.argv[1])
        return
    for backend in ("pyro", "numpyro"):
        subprocess.run([sys.executable, "-m", "benchmarks.speed.again", backend], check=True)


def timed(backend: str) -> None:
    localize, *network = {"pyro": in_torch, "numpyro": in_jax}[backend]()
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(ROWS, WIDTHS[0]))), rng.integers(0, WIDTHS[-1], ROWS)
    rows = {"train": (x, y), "query": (x[:10], y[:10]), "chains": CHAINS, "draws": DRAWS}
    model = localize(*network, likelihood="categorical")
    runs = {
        "the first": (model, 0),
        "another seed": (model, 1),
        "another localization": (model.resolve(30.0), 0),
        "localized again": (localize(*network, likelihood="categorical"), 0),
    }
    for name, (of, seed) in runs.items():
        started = time.process_time()
        bif.sample(of, **rows, seed=seed, progress=False)
        print(f"{backend:8} {name:22} {time.process_time() - started:6.2f} CPU-s")


def layers(widths: tuple[int, ...] = WIDTHS) -> list[np.ndarray]:
    """Make random weights, a matrix a layer."""
    rng = np.random.default_rng(1)
    return [np.float32(rng.normal(size=(a, b)) / a**0.5) for a, b in pairwise(widths)]


def in_torch():
    import torch

    from ppl_bif.pyro import localize

    first, last = (torch.nn.Linear(*w.shape, bias=False) for w in layers())
    return localize, torch.nn.Sequential(first, torch.nn.Tanh(), last)


def in_jax():
    import jax.numpy as jnp

    from ppl_bif.numpyro import localize

    return localize, lambda p, x: jnp.tanh(x @ p[0]) @ p[1], layers()


if __name__ == "__main__":
    main()
