"""An MLP (64-64-32-10) and a small CNN on digits in PyTorch, with their training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

__all__ = ["NETWORKS", "cnn", "mlp", "train"]

EPOCHS, BATCH, STEP, MOMENTUM, DECAY = 30, 64, 0.05, 0.9, 1e-3


def mlp(seed: int = 0) -> nn.Module:
    """Return an MLP from pixels ``(row, 64)`` to logits ``(row, 10)``."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def cnn(seed: int = 0) -> nn.Module:
    """Return a CNN from pixels ``(row, 64)`` to logits ``(row, 10)``."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(network: nn.Module, x: Any, y: Any, *, seed: int = 0) -> nn.Module:
    """Train by momentum with weight decay, the step falling to 0 over 30 epochs."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=STEP, momentum=MOMENTUM, weight_decay=DECAY
    )
    steps = EPOCHS * (len(y) // BATCH)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(y), generator=generator)
        for rows in order[: len(y) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            falling.step()
    return network.eval()


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"mlp": mlp, "cnn": cnn}
