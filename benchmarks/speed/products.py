"""Products with the Hessian of a CPU-second: ``python -m benchmarks.speed.products``.

Against a bare loop that goes back twice, as ``torch.func.vjp`` of ``torch.func.grad`` does; in
turn, on one core.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.lds.networks import build
from benchmarks.speed.slopes import rows
from ppl_bif.pyro import localize

POINTS, TURNS = 4, 5
# Shape of a row, and rows at each point.
NETWORKS = {"fashion_cnn": ((784,), 256), "cifar_resnet9": ((3, 32, 32), 64)}


def main() -> None:
    """Time each network in single precision and in bfloat16."""
    torch.set_num_threads(1)
    for name, (shape, count) in NETWORKS.items():
        for dtype in (None, "bfloat16"):
            settings = {"likelihood": "categorical", "localization": 1.0, "compute_dtype": dtype}
            model = localize(build(name), **settings)
            ours, bare = products(model, rows(POINTS * count, *shape))
            rates = [POINTS * count / seconds for seconds in in_turn(ours, bare)]
            print(
                f"{name}, {dtype or 'float32'}: {rates[0]:.0f} rows a CPU-second, "
                f"{rates[0] / rates[1]:.2f} times those of a bare loop",
                flush=True,
            )


def products(model: Any, data: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a product with the mean Hessian over points, ours and the bare loop's."""
    mode = dict(sorted(model.mode.items()))
    flat = np.concatenate([w.numpy().ravel() for w in mode.values()])
    vector = np.random.default_rng(0).normal(size=len(flat)).astype(np.float32)
    chosen = np.arange(len(data[1])).reshape(POINTS, -1)
    ours = model.make_slopes({"train": data}).hessian(np.stack([flat] * POINTS), chosen)
    parts = torch.tensor(vector).split([w.numel() for w in mode.values()])
    along = {n: v.view_as(w) for (n, w), v in zip(mode.items(), parts, strict=True)}
    x, y = (torch.tensor(a) for a in data)

    def bare() -> None:
        for some in torch.tensor(chosen):

            def loss(weights: Any, some: Any = some) -> Any:
                return -model.log_likelihood(weights, (x[some], y[some])).sum()

            torch.func.vjp(torch.func.grad(loss), mode)[1](along)

    return lambda: ours(vector), bare


def in_turn(*jobs: Callable[[], Any]) -> list[float]:
    """Return the median CPU-seconds of each of some jobs, done in turn, after once."""
    taken: list[list[float]] = [[] for _ in jobs]
    for _ in range(TURNS + 1):
        for job, seconds in zip(jobs, taken, strict=True):
            started = time.process_time()
            job()
            seconds.append(time.process_time() - started)
    return [statistics.median(seconds[1:]) for seconds in taken]


if __name__ == "__main__":
    main()
