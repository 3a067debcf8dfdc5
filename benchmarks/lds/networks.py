"""The tasks' networks in PyTorch, the recipe that trains them, and their losses."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.lds.tasks import Task, rows_of
from ppl_bif.text import IGNORED
from ppl_bif_models import gpt_torch, resnet9_torch
from ppl_bif_models.gpt_recipe import Shape

EPOCHS, BATCH, STEP, MOMENTUM, DECAY = 30, 64, 0.05, 0.9, 1e-3
RESNET_WIDTH = 32
HALF_FROM = 10**6
GPT = Shape(vocabulary=2048, context=48, width=48, layers=2)
GPT_EPOCHS, GPT_BATCH = 30, 32


def mlp(width: int = 64) -> nn.Sequential:
    """Two hidden layers, the second half as wide as the first, from 8x8 pixels to ten classes."""
    half = width // 2
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, half), nn.ReLU(), nn.Linear(half, 10)
    )


def _digits_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


def _fashion_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 3 * 3, 10)),
    )


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
    return _plainly(network, x, y, seed)


def _plainly(network: nn.Module, x: np.ndarray, y: np.ndarray, seed: int) -> nn.Module:
    """Train by SGD with momentum and weight decay, the step falling to 0 over 30 epochs."""
    images, classes = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=STEP, momentum=MOMENTUM, weight_decay=DECAY
    )
    steps = EPOCHS * -(-len(y) // BATCH)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / steps)
    generator = torch.Generator().manual_seed(1_000 + seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y), generator=generator).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(images[rows]), classes[rows]).backward()
            optimizer.step()
            falling.step()
    return network.eval()


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
