"""BIF's first-order limit, without noise: ``python -m benchmarks.lds.damped TASK``.

Where the posterior is narrow, BIF is the influence function whose Hessian, that of the loss summed
over all rows, is damped by ``localization`` (*Theory* in the docs). Here this is solved for many
localizations at once, in the space that a few products with the Hessian make of the queries'
gradients (block Krylov, Galerkin's condition), and its LDS says what each localization costs when
draws cost nothing. The space is cut short by one product as well: what that changes is the error of
the solution. The variances of the losses, known to the first order as well, say how many
independent draws would show how much of it. Lines go to ``results/damped.jsonl``.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.lds import tasks
from benchmarks.lds.networks import each_loss, trained
from benchmarks.lds.peer_gradients import Rows, gradients, placed, some_at_once
from ppl_bif.evaluation import lds

RESULTS = Path(__file__).parent / "results" / "damped.jsonl"
# Top curvature over localization. The default is 70; 0 is the product of gradients.
RATIOS = (0.0, 0.7, 3.5, 7, 20, 70, 200, 700, 2_000, 7_000)
# Inputs times predictions in one graph, and vectors multiplied at once.
GRAPH, VECTORS = 2**17, 8
# What is said of draws is said of so many, independent ones.
DRAWS = 4_000

Product = Callable[[Tensor], Tensor]


def main() -> None:
    """Solve, judge, and append what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tasks.SPECS)
    parser.add_argument("--products", type=int, default=4, help="with the Hessian, for each query")
    parser.add_argument("--queries", type=int, help="only so many, spread evenly")
    parser.add_argument("--rows", type=int, help="of the Hessian only so many, rescaled")
    parser.add_argument("--gauss-newton", metavar="DTYPE", help="in place of the Hessian")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = some_queries(tasks.load(options.task), options.queries)
    for line in judged(task, options):
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


def judged(task: tasks.Task, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give LDS by localization, without noise and with, and how far off a smaller space is."""
    started = time.perf_counter()
    network = trained(task, 0, options.device)
    train, query = placed(task, options.device)
    explained = gradients(network, query)
    basis, images = krylov(curvature(network, train, options), explained, options.products)
    image = basis @ images.T
    inside, outside = within(network, train, basis)
    small = Small((image + image.T) / 2, inside, outside, explained @ basis.T)
    spectrum = torch.linalg.eigvalsh(small.hessian)
    top, least = float(spectrum[-1]), float(spectrum[0])
    known = {
        "top_and_least_curvature": [round(top, 1), round(least, 1)],
        "queries": len(explained),
        "rows_of_hessian": options.rows or len(train[1]),
        "products": options.products * len(explained),
        "seconds": round(time.perf_counter() - started, 1),
        "device": options.device,
        "gauss_newton": options.gauss_newton,
    }
    for ratio in RATIOS:
        damping = top / ratio if ratio else np.inf
        if damping + least <= 0:
            return
        score, coarse = (small.solve(damping, n) for n in (len(basis), len(basis) - len(explained)))
        found, same = lds(score, task.truth), np.corrcoef(score.ravel(), coarse.ravel())
        noise = small.noise(damping) / score.var(axis=1)
        shown = found["lds"] / np.sqrt(1 + noise / DRAWS)
        yield {
            "curvature_over_localization": ratio,
            "localization": round(damping, 1) if ratio else None,
            "lds": [round(float(found[name]), 4) for name in ("mean", "low", "high")],
            "draws_for_half": round(float(np.median(noise))),
            f"lds_of_{DRAWS}_draws": round(float(shown.mean()), 4),
            "pearson_with_one_product_less": round(float(same[0, 1]), 5),
            **known,
        }


class Small(NamedTuple):
    """The problem in the small space: the Hessian, and gradients ``(row, basis)`` of both sides.

    Of the training rows' gradients some lies outside: its square, ``(row,)``.
    """

    hessian: Tensor
    train: Tensor
    outside: Tensor
    query: Tensor

    def solve(self, damping: float, size: int) -> np.ndarray:
        """Give scores ``(query, train)`` by the first vectors of the basis, times the damping."""
        inverse = self.inverse(damping, size, self.query)
        return (self.train[:, :size] @ inverse).T.cpu().numpy()

    def noise(self, damping: float) -> np.ndarray:
        """Give a query's mean squared error over rows, of one draw, in units of the scores'.

        The product of both variances; outside of the basis only the prior holds.
        """
        of_query, of_train = (
            (side.T * self.inverse(damping, len(self.hessian), side)).sum(0)
            for side in (self.query, self.train)
        )
        return (of_query * (of_train + self.outside).mean()).cpu().numpy()

    def inverse(self, damping: float, size: int, side: Tensor) -> Tensor:
        """Solve for a side's gradients by the first vectors, ``(basis, row)``."""
        damped = self.hessian[:size, :size] / damping
        damped.diagonal().add_(1)
        return torch.linalg.solve(damped, side[:, :size].T)


def within(network: torch.nn.Module, rows: Rows, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the rows' gradients with a basis, and the square of what lies outside of it."""
    inside, outside = [], []
    for whole in some_at_once(network, rows):
        inside.append(whole @ basis.T)
        outside.append(whole.square().sum(1) - inside[-1].square().sum(1))
    return torch.cat(inside), torch.cat(outside).clamp_min(0)


def curvature(network: torch.nn.Module, rows: Rows, options: argparse.Namespace) -> Product:
    """Return the product with the matrix that was asked for."""
    if options.gauss_newton:
        return gauss_newton(network, rows, options.rows, getattr(torch, options.gauss_newton))
    return hessian(network, rows, options.rows)


def krylov(product: Product, start: Tensor, products: int) -> tuple[Tensor, Tensor]:
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


def hessian(network: torch.nn.Module, rows: Rows, count: int | None = None) -> Product:
    """Return the product of vectors ``(vector, weight)`` with the Hessian of the summed loss.

    By only so many of the rows, spread evenly and rescaled to all.
    """
    scale, parts = fewer(rows, count)
    weights = list(network.parameters())
    sizes = [w.numel() for w in weights]
    graphs = []
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        for x, y in parts:
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


def gauss_newton(
    network: torch.nn.Module,
    rows: Rows,
    count: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Product:
    """Return the product with the Hessian of the summed loss of the network made linear at w*.

    This has no negative curvature. Passes are in ``dtype``.
    """
    scale, parts = fewer(rows, count)
    narrow = deepcopy(network).to(dtype=dtype, memory_format=torch.channels_last)
    weights = {name: w.detach() for name, w in narrow.named_parameters()}

    def logits(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return functional_call(narrow, weights, x).float()

    def product(vectors: Tensor) -> Tensor:
        # Fused attention has no derivative forwards either.
        with sdpa_kernel(SDPBackend.MATH):
            return scale * torch.stack([sum(map(flat, images(v))) for v in vectors])

    def images(vector: Tensor) -> Iterator[dict[str, Tensor]]:
        # In the dtype and the memory format of the weights.
        parts_of = shaped(vector, weights)
        along = {name: torch.empty_like(w).copy_(parts_of[name]) for name, w in weights.items()}
        for x, y in parts:
            given = x.to(dtype, memory_format=torch.channels_last) if x.ndim == 4 else x
            output, pull = vjp(partial(logits, given), weights)
            _, moved = jvp(partial(logits, given), (weights,), (along,))
            slope = grad(lambda z, y=y: each_loss(z, y).sum())
            yield pull(jvp(slope, (output,), (moved,))[1])[0]

    return product


def flat(weights: dict[str, Tensor]) -> Tensor:
    """Make one vector of weights by name."""
    return torch.cat([w.float().reshape(-1) for w in weights.values()])


def shaped(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`flat`; ``like`` gives names and shapes."""
    parts = vector.split([w.numel() for w in like.values()])
    return {name: part.view(w.shape) for (name, w), part in zip(like.items(), parts, strict=True)}


def fewer(rows: Rows, count: int | None) -> tuple[float, list[Rows]]:
    """Choose so many rows, spread evenly, in parts; and by how much there were more."""
    chosen = torch.linspace(0, len(rows[1]) - 1, count or len(rows[1])).long()
    scale, rows = len(rows[1]) / len(chosen), (rows[0][chosen], rows[1][chosen])
    some = max(1, GRAPH // (rows[0][0].numel() * rows[1][0].numel()))
    return scale, list(zip(*(part.split(some) for part in rows), strict=True))


if __name__ == "__main__":
    main()
