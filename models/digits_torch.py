"""An MLP (64-64-32-10) and a small CNN on digits in PyTorch, with their training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ppl_bif_models.digits_recipe import BATCH, DECAY, EPOCHS, MOMENTUM, STEP

__all__ = ["NETWORKS", "cnn", "mlp", "train"]


def mlp(seed: int = 0, *, width: int = 64) -> nn.Sequential:
    """Return an MLP from pixels ``(row, 64)`` to logits ``(row, 10)``.

    Its first hidden layer is as wide as said, its second half as wide.
    """
    torch.manual_seed(seed)
    half = width // 2
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, half), nn.ReLU(), nn.Linear(half, 10)
    )


def cnn(seed: int = 0) -> nn.Sequential:
    """Return a CNN from pixels ``(row, 64)`` to logits ``(row, 10)``."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(
    network: nn.Module,
    x: Any,
    y: Any,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    drop_last: bool = True,
) -> nn.Module:
    """Train by momentum with weight decay, the step falling to 0 over the epochs.

    Parameters
    ----------
    network
        It is trained in place.
    x, y
        Pixels ``(row, pixel)`` and classes ``(row,)``.
    seed
        Of the order.
    epochs
        Passes over the rows.
    drop_last
        Whether the last rows of an epoch, which fill no batch, are left out.
    """
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=STEP, momentum=MOMENTUM, weight_decay=DECAY
    )
    batches = len(y) // BATCH if drop_last else -(-len(y) // BATCH)
    steps = epochs * batches
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / steps)
    for _ in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        for rows in order[: batches * BATCH].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            falling.step()
    return network.eval()


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"mlp": mlp, "cnn": cnn}
