"""BIF's first-order limit, without noise: ``python -m benchmarks.lds.damped TASK``.

Where the posterior is narrow, BIF is the influence function whose Hessian, that of the loss summed
over all rows, is damped by ``localization`` (*Theory* in the docs). Here this is solved for many
localizations at once, in the space that a few products with the Hessian make of the queries'
gradients (block Krylov, Galerkin's condition), and its LDS says what each localization costs when
draws cost nothing. The space is cut short by one product as well: what that changes is the error of
the solution. Lines go to ``results/damped.jsonl``.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.lds import tasks
from benchmarks.lds.networks import each_loss, trained
from benchmarks.lds.peer_gradients import Rows, gradients, placed, projected
from ppl_bif.evaluation import lds

RESULTS = Path(__file__).parent / "results" / "damped.jsonl"
# Top curvature over localization. The default is 70; 0 is the product of gradients.
RATIOS = (0.0, 0.7, 3.5, 7, 20, 70, 200, 700, 2_000, 7_000)
# Inputs times predictions in one graph, and vectors multiplied at once.
GRAPH, VECTORS = 2**17, 8


def main() -> None:
    """Solve, judge, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--products", type=int, default=4, help="with the Hessian, for each query")
    parser.add_argument("--queries", type=int, help="only so many, spread evenly")
    parser.add_argument("--rows", type=int, help="of the Hessian only so many, rescaled")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = some_queries(tasks.load(options.task), options.queries)
    for line in judged(task, options.products, options.rows, options.device):
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"task": task.name, **line}) + "\n")


def some_queries(task: tasks.Task, count: int | None) -> tasks.Task:
    """Keep only so many queries."""
    if count is None:
        return task
    chosen = np.linspace(0, len(task.rows.query_y) - 1, count).astype(int)
    x, y = task.rows.query_x[chosen], task.rows.query_y[chosen]
    rows = task.rows._replace(query_x=x, query_y=y)
    return task._replace(rows=rows, loss=task.loss[:, :, chosen])


def judged(
    task: tasks.Task, products: int, rows: int | None, device: str
) -> Iterator[dict[str, Any]]:
    """Give LDS by localization, and how far the solution is from one of a smaller space."""
    started = time.perf_counter()
    network = trained(task, 0, device)
    train, query = placed(task, device)
    explained = gradients(network, query)
    basis, images = krylov(hessian(network, train, rows), explained, products)
    image = basis @ images.T
    small = Small((image + image.T) / 2, projected(network, train, basis), explained @ basis.T)
    spectrum = torch.linalg.eigvalsh(small.hessian)
    top, least = float(spectrum[-1]), float(spectrum[0])
    known = {
        "top_and_least_curvature": [round(top, 1), round(least, 1)],
        "queries": len(explained),
        "rows_of_hessian": rows or len(train[1]),
        "products": products * len(explained),
        "seconds": round(time.perf_counter() - started, 1),
        "device": device,
    }
    for ratio in RATIOS:
        damping = top / ratio if ratio else np.inf
        if damping + least <= 0:
            return
        score, coarse = (small.solve(damping, n) for n in (len(basis), len(basis) - len(explained)))
        found, same = lds(score, task.truth), np.corrcoef(score.ravel(), coarse.ravel())
        yield {
            "curvature_over_localization": ratio,
            "localization": round(damping, 1) if ratio else None,
            "lds": [round(float(found[name]), 4) for name in ("mean", "low", "high")],
            "pearson_with_one_product_less": round(float(same[0, 1]), 5),
            **known,
        }


class Small(NamedTuple):
    """The problem in the small space: the Hessian, and gradients ``(row, basis)`` of both sides."""

    hessian: Tensor
    train: Tensor
    query: Tensor

    def solve(self, damping: float, size: int) -> np.ndarray:
        """Give scores ``(query, train)`` by the first vectors of the basis."""
        damped = self.hessian[:size, :size] / damping
        damped.diagonal().add_(1)
        inverse = torch.linalg.solve(damped, self.query[:, :size].T)
        return (self.train[:, :size] @ inverse).T.cpu().numpy()


def krylov(
    product: Callable[[Tensor], Tensor], start: Tensor, products: int
) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis ``(basis, weight)`` of these and their images, and its images."""
    basis = images = start.new_zeros(0, start.shape[1])
    block = start
    for _ in range(products):
        for _ in range(2):  # Once leaves what rounding hides.
            block = block - (block @ basis.T) @ basis
        block = torch.linalg.qr(block.T).Q.T
        image = product(block)
        basis, images = torch.cat([basis, block]), torch.cat([images, image])
        block = image
    return basis, images


def hessian(
    network: torch.nn.Module, rows: Rows, count: int | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the product of vectors ``(vector, weight)`` with the Hessian of the summed loss.

    By only so many of the rows, spread evenly and rescaled to all.
    """
    chosen = torch.linspace(0, len(rows[1]) - 1, count or len(rows[1])).long()
    scale, rows = len(rows[1]) / len(chosen), (rows[0][chosen], rows[1][chosen])
    weights = list(network.parameters())
    sizes = [w.numel() for w in weights]
    some = max(1, GRAPH // (rows[0][0].numel() * rows[1][0].numel()))
    graphs = []
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        for x, y in zip(*(part.split(some) for part in rows), strict=True):
            total = scale * each_loss(network(x), y).sum()
            graphs.append(torch.autograd.grad(total, weights, create_graph=True))

    def product(vectors: Tensor) -> Tensor:
        return torch.cat([several(part) for part in vectors.split(VECTORS)])

    def several(vectors: Tensor) -> Tensor:
        parts = zip(vectors.split(sizes, dim=1), weights, strict=True)
        like = [part.reshape(-1, *w.shape) for part, w in parts]
        total = torch.zeros_like(vectors)
        for graph in graphs:
            image = torch.autograd.grad(
                graph, weights, like, retain_graph=True, is_grads_batched=True
            )
            total += torch.cat([part.flatten(1) for part in image], dim=1)
        return total

    return product


if __name__ == "__main__":
    main()
