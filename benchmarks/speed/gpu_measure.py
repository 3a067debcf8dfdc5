"""Time one row of the GPU table: ``python -m benchmarks.speed.gpu_measure ROW``.

Prints a line of JSON: rates as shares of those by hand, and the peak of memory.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.speed.compare import about, spread
from benchmarks.speed.gpu_rows import ROWS, as_small

__all__ = ["measured"]

MODULES = {"pyro": "gpu_torch", "numpyro": "gpu_jax"}
# One in so many measures the noise of minibatches.
DRAWS = 8


def main() -> None:
    """Print the line of a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(json.dumps(measured(**vars(options))))


def measured(row: str, *, device: str, small: bool, turns: int) -> dict[str, Any]:
    """Take turns of passes by hand and ours, and return their ratios within a turn."""
    given = as_small(ROWS[row]) if small else ROWS[row]
    of = import_module(f"benchmarks.speed.{MODULES[given.backend]}").subject(given, device)
    calls: dict[str, Callable[[], Any]] = {
        "forward": of.forward,
        "score": of.score,
        "backward": of.backward,
        "step": of.step,
        "draw": lambda: of.draw(DRAWS),
    }
    for call in calls.values():
        call()
    seconds = [{name: timed(call, of.wait) for name, call in calls.items()} for _ in range(turns)]
    bare = [DRAWS * (turn["forward"] + turn["backward"]) for turn in seconds]
    return {
        "row": row,
        "weights": of.weights,
        "small": small,
        "settings": {n: v for n, v in given._asdict().items() if n != "shape"},
        "turns": turns,
        "seconds": {name: spread([turn[name] for turn in seconds]) for name in calls},
        "score_share": spread([turn["forward"] / turn["score"] for turn in seconds]),
        "step_share": spread([turn["backward"] / turn["step"] for turn in seconds]),
        "draw_over_bare": spread(
            [turn["draw"] / passes for turn, passes in zip(seconds, bare, strict=True)]
        ),
        "peak_gb": None if of.peak is None else round(of.peak / 1e9, 2),
        **device_of(device),
        **about(),
    }


def timed(call: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Seconds of a call, the device's work among them."""
    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began


def device_of(device: str) -> dict[str, Any]:
    """Name the GPU, and the CUDA that PyTorch was built with."""
    import torch

    if not device.startswith("cuda"):
        return {"device": device}
    return {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}


if __name__ == "__main__":
    main()
