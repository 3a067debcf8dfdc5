"""GradDot: products of the rows' gradients at the trained weights."""

import time
from collections.abc import Iterator
from importlib import import_module

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from benchmarks.lds.networks import trained
from benchmarks.lds.result import Result
from benchmarks.lds.tasks import Task


def scores(task: Task, networks: int) -> Iterator[Result]:
    """Give the mean of the products over networks trained from the first seeds."""
    import_module("torch._dynamo")  # vmap loads it at first: not in the seconds
    started = time.perf_counter()
    products = [_products(task, seed) for seed in range(networks)]
    passes = 3 * networks * (len(task.train[1]) + len(task.query[1]))
    yield Result({}, np.mean(products, axis=0), passes, time.perf_counter() - started)


def _products(task: Task, seed: int) -> np.ndarray:
    network = trained(task, seed)
    weights = {name: w.detach() for name, w in network.named_parameters()}

    def loss(w: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(network, w, x[None]), y[None])

    def gradients(x: np.ndarray, y: np.ndarray) -> torch.Tensor:
        each = vmap(grad(loss), (None, 0, 0))(weights, torch.from_numpy(x), torch.from_numpy(y))
        return torch.cat([g.flatten(1) for g in each.values()], dim=1)

    return (gradients(*task.train) @ gradients(*task.query).T).numpy()
