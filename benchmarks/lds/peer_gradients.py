"""GradDot and GradCos: products of the rows' gradients at the trained weights, or their cosines."""

import time
from collections.abc import Iterator
from importlib import import_module

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import normalize

from benchmarks.lds.networks import each_loss, trained
from benchmarks.lds.result import Result
from benchmarks.lds.tasks import Task

# Gradients of so many rows are held at once, beside those of all queries.
AT_ONCE = 256

Rows = tuple[Tensor, Tensor]


def products(task: Task, networks: int, device: str) -> Iterator[Result]:
    """Give the mean of the products over networks trained from the first seeds."""
    yield _mean(task, networks, device, cosine=False)


def cosines(task: Task, networks: int, device: str) -> Iterator[Result]:
    """Give the mean of the cosines."""
    yield _mean(task, networks, device, cosine=True)


def _mean(task: Task, networks: int, device: str, *, cosine: bool) -> Result:
    import_module("torch._dynamo")  # vmap loads it at first: not in the seconds
    started = time.perf_counter()
    found = [_products(task, seed, device, cosine=cosine) for seed in range(networks)]
    passes = 3 * networks * (len(task.train[1]) + len(task.query[1]))
    return Result({}, np.mean(found, axis=0), passes, time.perf_counter() - started)


def _products(task: Task, seed: int, device: str, *, cosine: bool) -> np.ndarray:
    network = trained(task, seed, device)
    train, query = placed(task, device)
    explained = gradients(network, query)
    if cosine:
        explained = normalize(explained)
    return projected(network, train, explained, cosine=cosine).cpu().numpy()


def placed(task: Task, device: str) -> tuple[Rows, Rows]:
    """Put the rows of a task, and its queries, on a device."""
    (x, y), (query_x, query_y) = (
        [torch.from_numpy(part).to(device) for part in side] for side in (task.train, task.query)
    )
    return (x, y), (query_x, query_y)


def projected(
    network: torch.nn.Module, rows: Rows, basis: Tensor, *, cosine: bool = False
) -> Tensor:
    """Products of the rows' gradients, or of their directions, with a basis, ``(row, basis)``."""
    found = some_at_once(network, rows)
    return torch.cat([(normalize(one) if cosine else one) @ basis.T for one in found])


def some_at_once(network: torch.nn.Module, rows: Rows) -> Iterator[Tensor]:
    """Give the gradients of the rows' losses, of some rows after others."""
    for part in zip(*(part.split(AT_ONCE) for part in rows), strict=True):
        yield gradients(network, part)


def gradients(network: torch.nn.Module, rows: Rows) -> Tensor:
    """Gradients of the rows' losses, ``(row, weight)``."""
    weights = {name: w.detach() for name, w in network.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return each_loss(functional_call(network, weights, x[None]), y[None])[0]

    each = vmap(grad(loss), (None, 0, 0), chunk_size=AT_ONCE)(weights, *rows)
    return torch.cat([g.flatten(1) for g in each.values()], dim=1)
