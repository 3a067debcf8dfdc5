"""Peak memory of one chain: ``python -m benchmarks.speed.memory BACKEND``.

The network is so large, and its batches so small, that weights are all: w*, w and one gradient.
Prints the peak above what was there before ``localize``, in copies of the weights. In Pyro the
module that was passed in is not counted, its frozen copy is w*; in NumPyro arrays are shared. A
network of one layer goes first, for what libraries and compilers take.
"""

import argparse
import json
import os
import threading
import time
import warnings
from typing import Any

import numpy as np

WIDTH, LAYERS, ROWS, BATCH = 2048, 16, 16, 2
SETTINGS: dict[str, Any] = {"likelihood": "categorical", "localization": 100.0}


def main() -> None:
    """Sample a few draws, and watch the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("pyro", "numpyro"))
    parser.add_argument("--compute-dtype", help="such as bfloat16")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import ppl_bif as bif

    rng = np.random.default_rng(0)
    data = np.float32(rng.normal(size=(ROWS, WIDTH))), rng.integers(WIDTH, size=ROWS)
    kernel = {"pyro": torch_kernel, "numpyro": jax_kernel}[options.backend]
    settings = {"train": data, "query": data, "chains": 1, "draws": 8, "warmup": 0}
    settings |= {"progress": False, "chain_method": "sequential"}
    bif.sample(kernel(1, options.compute_dtype)[0](), **settings)
    build, shared = kernel(LAYERS, options.compute_dtype)
    before = resident()
    watch = Watch()
    bif.sample(build(), **settings)
    copies = (watch.stop() - before) / (4 * WIDTH**2 * LAYERS)
    print(json.dumps({"backend": options.backend, "copies": round(copies + shared, 2), "bare": 3}))


def torch_kernel(layers: int, compute_dtype: str | None) -> tuple[Any, int]:
    """A deep network in PyTorch, and how many copies of its weights are shared with the caller."""
    from torch import nn

    from ppl_bif.pyro import SGLD, localize

    network = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))

    def build() -> Any:
        model = localize(network, **SETTINGS, compute_dtype=compute_dtype)
        return SGLD(model, batch_size=BATCH, step_size=1e-6, steps_per_draw=1)

    return build, 0


def jax_kernel(layers: int, compute_dtype: str | None) -> tuple[Any, int]:
    """The same in JAX."""
    import jax

    from ppl_bif.numpyro import SGLD, localize

    keys = jax.random.split(jax.random.key(0), layers)
    weights = {str(i): 0.02 * jax.random.normal(k, (WIDTH, WIDTH)) for i, k in enumerate(keys)}

    def network(p: Any, x: Any) -> Any:
        for w in p.values():
            x = x @ w
        return x

    def build() -> Any:
        model = localize(network, weights, **SETTINGS, compute_dtype=compute_dtype)
        return SGLD(model, batch_size=BATCH, step_size=1e-6, steps_per_draw=1)

    jax.block_until_ready(weights)
    return build, 1


def resident() -> int:
    """Memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Look at the process's memory every few milliseconds until stopped."""

    def __init__(self) -> None:
        self.most, self.running = 0, True
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def _look(self) -> None:
        while self.running:
            self.most = max(self.most, resident())
            time.sleep(0.002)

    def stop(self) -> int:
        """Return the most that was seen."""
        self.running = False
        self.thread.join()
        return self.most


if __name__ == "__main__":
    main()
