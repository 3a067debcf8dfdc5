"""Transfer learning: fewer features than a backbone gives, and a linear layer fitted to them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["DECAY", "Projection", "fit_head", "projection"]

DECAY, STEPS = 3e-3, 300


class Projection(NamedTuple):
    """Onto the principal directions of some features: ``(features - mean) @ directions``."""

    mean: Tensor
    directions: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Project features ``(row, feature)``."""
        return (features - self.mean) @ self.directions


def projection(features: Tensor, count: int) -> Projection:
    """Find the directions in which features differ most.

    Parameters
    ----------
    features
        ``(row, feature)``, of the training rows.
    count
        Of the directions. They are scaled by one number, so that the first has deviation 1.
    """
    if not 0 < count <= min(features.shape):
        raise ValueError(
            f"count must lie between 1 and {min(features.shape)}, the smaller of rows and "
            f"features; got {count}"
        )
    mean = features.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(features - mean, full_matrices=False)
    return Projection(mean, directions[:count].T * len(features) ** 0.5 / sizes[0])


def fit_head(features: Tensor, y: Tensor, classes: int, *, decay: float = DECAY) -> nn.Linear:
    """Fit a linear layer to the minimum of the mean cross-entropy with weight decay, by L-BFGS.

    Parameters
    ----------
    features, y
        ``(row, feature)`` and ``(row,)``.
    classes
        Logits that come out.
    decay
        Half of it times the sum of the squared weights, without the biases, is added to the loss.
    """
    head = nn.Linear(features.shape[1], classes)
    for part in (head.weight, head.bias):
        nn.init.zeros_(part)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = cross_entropy(head(features), y) + decay / 2 * (head.weight**2).sum()
        found.backward()
        return found

    optimizer.step(loss)
    return head
