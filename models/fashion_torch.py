"""A small CNN (2,826 weights) on Fashion-MNIST in PyTorch, with its training."""

from typing import Any

import torch
from torch import nn

from ppl_bif_models import digits_torch
from ppl_bif_models.digits_recipe import EPOCHS

__all__ = ["cnn", "train"]


def cnn(seed: int = 0) -> nn.Sequential:
    """Return a CNN from pixels ``(row, 784)``, 0 ... 1, to logits ``(row, 10)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            *(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * 3 * 3, 10)),
        )


def train(network: nn.Module, x: Any, y: Any, *, seed: int = 0, epochs: int = EPOCHS) -> nn.Module:
    """Train in place by momentum with weight decay, the step falling to 0 over the epochs."""
    return digits_torch.train(network, x, y, seed=seed, epochs=epochs, drop_last=False)
