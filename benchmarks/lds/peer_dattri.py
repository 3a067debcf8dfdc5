"""dattri's influence function by conjugate gradients, and its TRAK over five networks."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.lds.networks import trained
from benchmarks.lds.result import Result
from benchmarks.lds.tasks import Task
from ppl_bif.text import IGNORED

# dattri's default is no damping, with which few steps on a Hessian that is not positive may say
# anything; the others are a grid.
REGULARIZATIONS = (0.0, 1e-3, 1e-2, 1e-1)
# Of conjugate gradients: dattri's default.
ITERATIONS = 10
# 512 is dattri's default.
DIMENSIONS = (512, 2048)
NETWORKS, GRADIENTS_AT_ONCE = 5, 64
# dattri keeps what one TRAK was told for the next: each is told everything.
PROJECTION: dict[str, Any] = {"proj_max_batch_size": 32, "proj_seed": 0, "proj_type": "rademacher"}


def influence(task: Task, networks: int, device: str) -> Iterator[Result]:
    """Give scores of the network of the first seed, by damping."""
    from dattri.algorithm.influence_function import IFAttributorCG
    from dattri.task import AttributionTask

    n, q = len(task.train[1]), len(task.query[1])
    network = trained(task, 0, device)

    def loss(weights: Any, data: Any) -> torch.Tensor:
        return cross_entropy(functional_call(network, weights, (data[0],)), data[1])

    for regularization in REGULARIZATIONS:
        started = time.perf_counter()
        asked = AttributionTask(loss, network, network.state_dict())
        method = IFAttributorCG(
            asked, device=device, max_iter=ITERATIONS, regularization=regularization
        )
        method.cache(_loader(task.train, n))
        with torch.no_grad():
            found = method.attribute(_loader(task.train, n), _loader(task.query, q))
        yield Result(
            {"regularization": regularization, "iterations": ITERATIONS},
            found.cpu().numpy(),
            passes=3 * (n + q) + 6 * ITERATIONS * q * n,
            seconds=time.perf_counter() - started,
            role="grid" if regularization else "default",
        )


def trak(task: Task, networks: int, device: str) -> Iterator[Result]:
    """Give TRAK's scores over five networks, by the dimension that gradients are projected to."""
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

    n, q = len(task.train[1]), len(task.query[1])
    trained_ones = [trained(task, seed, device) for seed in range(NETWORKS)]
    network = trained_ones[0]
    states = [{k: v.clone() for k, v in one.state_dict().items()} for one in trained_ones]

    for dimension in DIMENSIONS:
        started = time.perf_counter()
        asked = AttributionTask(_margin_of(network), network, states)
        method = TRAKAttributor(
            asked,
            correct_probability_func=_probability_of(network),
            projector_kwargs={**PROJECTION, "proj_dim": dimension, "device": device},
            device=device,
        )
        with torch.no_grad():
            method.cache(_loader(task.train, GRADIENTS_AT_ONCE))
            found = method.attribute(_loader(task.query, GRADIENTS_AT_ONCE))
        yield Result(
            {"projection": dimension, "networks": NETWORKS},
            found.cpu().numpy(),
            passes=NETWORKS * 3 * (n + q),
            seconds=time.perf_counter() - started,
            role="default" if dimension == DIMENSIONS[0] else "grid",
            seed=0,
        )


def _margin_of(network: nn.Module) -> Any:
    def margin(weights: Any, data: Any) -> torch.Tensor:
        """Log odds of the class, which TRAK linearizes."""
        p = _probability(network, weights, data)
        return torch.log(p) - torch.log1p(-p.clamp(max=1 - 1e-6))

    return margin


def _probability_of(network: nn.Module) -> Any:
    return lambda weights, data: _probability(network, weights, data)


def _probability(network: nn.Module, weights: Any, data: Any) -> torch.Tensor:
    """Of the label, or the geometric mean of the tokens' probabilities."""
    row, label = data
    logits = functional_call(network, weights, (row[None],))
    return torch.exp(-cross_entropy(logits.movedim(-1, 1), label[None], ignore_index=IGNORED))


def _loader(rows: tuple[np.ndarray, np.ndarray], batch: int) -> DataLoader:
    return DataLoader(TensorDataset(*map(torch.from_numpy, rows)), batch_size=batch)
