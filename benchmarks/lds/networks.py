"""The tasks' networks in PyTorch, the recipe that trains them, and their losses."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.lds.tasks import Task, rows_of
from ppl_bif.text import IGNORED
from ppl_bif_models import (
    digits_recipe,
    digits_torch,
    fashion_torch,
    gpt_torch,
    resnet9_recipe,
    resnet9_torch,
)
from ppl_bif_models.gpt_recipe import Shape

RESNET_WIDTH = 32
HALF_FROM = 10**6
GPT = Shape(vocabulary=2048, context=48, width=48, layers=2)
GPT_EPOCHS, GPT_BATCH = 30, 32
# Of the weights, in training; the GPT has none.
DECAY = {
    **dict.fromkeys(("digits_mlp", "digits_cnn", "fashion_cnn"), digits_recipe.DECAY),
    "cifar_resnet9": resnet9_recipe.DECAY,
}


def mlp(width: int = 64) -> nn.Sequential:
    """Two hidden layers, the second half as wide as the first, from 8x8 pixels to ten classes."""
    return digits_torch.mlp(torch.initial_seed(), width=width)


def _digits_cnn() -> nn.Sequential:
    return digits_torch.cnn(torch.initial_seed())


def _fashion_cnn() -> nn.Sequential:
    return fashion_torch.cnn(torch.initial_seed())


def _cifar_resnet9() -> nn.Sequential:
    return resnet9_torch.resnet9(torch.initial_seed(), width=RESNET_WIDTH)


def _verses_gpt() -> gpt_torch.GPT:
    return gpt_torch.gpt(GPT, torch.initial_seed())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits_mlp": mlp,
    "digits_cnn": _digits_cnn,
    "fashion_cnn": _fashion_cnn,
    "cifar_resnet9": _cifar_resnet9,
    "verses_gpt": _verses_gpt,
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Return a task's network before training, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]()


def trained(task: Task, seed: int = 0, device: str = "cpu") -> nn.Module:
    """Return a task's network with its stored weights, or trained from a seed that has none."""
    if seed >= len(task.weights):
        return fit(task.name, *task.train, seed, device).to(device)
    network = build(task.name)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in task.weights[seed].items()})
    return network.eval().to(device)


def fit(name: str, x: np.ndarray, y: np.ndarray, seed: int, device: str = "cpu") -> nn.Module:
    """Train by the recipe of the task."""
    network = build(name, seed)
    if name == "cifar_resnet9":
        return resnet9_torch.train(network, x, y, seed=1_000 + seed, device=device)
    if name == "verses_gpt":
        order = 1_000 + seed
        return gpt_torch.train(network, x, y, epochs=GPT_EPOCHS, batch=GPT_BATCH, seed=order)
    # The demo leaves out what fills no batch; the committed truths were trained on every row.
    return digits_torch.train(network, x, y, seed=1_000 + seed, drop_last=False)


class Retraining(NamedTuple):
    """Trains on some rows and says the queries' losses, for :func:`ppl_bif.evaluation.retrain`."""

    name: str
    device: str

    def __call__(self, rows: np.ndarray, seed: int) -> np.ndarray:
        torch.set_num_threads(1)
        task = rows_of(self.name)
        network = fit(self.name, task.train_x[rows], task.train_y[rows], seed, self.device)
        return losses(network, task.query_x, task.query_y)


def losses(network: nn.Module, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row, ``(row,)``, of tokens summed."""
    with torch.no_grad():
        logits = network(torch.from_numpy(x)).double()
    return each_loss(logits, torch.from_numpy(y)).float().numpy()


def each_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row, whose logits are ``(row, [token,] class)``."""
    each = cross_entropy(logits.movedim(-1, 1), labels, reduction="none", ignore_index=IGNORED)
    return each.reshape(len(each), -1).sum(dim=1)


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Copy a network's weights into arrays by name; those of large networks in half precision."""
    large = sum(w.numel() for w in network.parameters()) > HALF_FROM
    return {
        name: (w.half() if large and w.is_floating_point() else w).detach().numpy().copy()
        for name, w in network.state_dict().items()
    }
