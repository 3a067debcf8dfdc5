"""How ResNet-9 is trained, whatever it is written in: settings, and what both JAX sides share."""

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["BATCH", "DECAY", "EPOCHS", "GROUPS", "MOMENTUM", "RISING", "STEP", "batches", "rule"]

GROUPS = 8
EPOCHS, BATCH, STEP, MOMENTUM, DECAY = 40, 128, 0.1, 0.9, 5e-4
# The step rises over this share of the training, and falls for the rest.
RISING = 0.2


def batches(rows: int, epochs: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw rows, and which of them are mirrored, ``(batch,)``; what fills no batch is left out."""
    rng, batch = np.random.default_rng(seed), min(BATCH, rows)
    for _ in range(epochs):
        for chosen in rng.permutation(rows)[: rows // batch * batch].reshape(-1, batch):
            yield chosen, rng.random(batch) < 0.5


def rule(rows: int, epochs: int) -> Any:
    """Return Nesterov momentum with weight decay in Optax."""
    import optax

    steps = epochs * (rows // min(BATCH, rows))
    curve = optax.linear_onecycle_schedule(steps, STEP, RISING, 1.0)
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(curve, MOMENTUM, nesterov=True))
