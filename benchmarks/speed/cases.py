"""What is timed: networks on digits with random weights, and how many chains and draws."""

from typing import Any, NamedTuple

import numpy as np

from models import digits

__all__ = ["BATCH", "CASES", "LOCALIZATION", "STEP", "Case", "jax_network", "rows", "torch_network"]

# Settings that all subjects share: rows of a gradient, pull, SGLD's eps.
BATCH, LOCALIZATION, STEP = 64, 100.0, 1e-5
WIDTH, CHANNELS = 64, (16, 32)


class Case(NamedTuple):
    """Chains of a network.

    Attributes
    ----------
    network
        ``"mlp"`` (64-64-10) or ``"cnn"`` (convolutions of 16 and 32 channels, pooled).
    chains
        Moved side by side.
    draws
        A short and a long run, whose difference is free of set-up.
    thinning
        Steps between two draws; where more than 1, every subject but devinterp scores no more
        often than that, and devinterp not at all.
    """

    network: str
    chains: int
    draws: tuple[int, int]
    thinning: int = 1

    @property
    def scored(self) -> bool:
        """Whether all rows are scored at every step."""
        return self.thinning == 1


CASES = {
    "mlp4": Case("mlp", 4, (200, 1000)),
    "mlp16": Case("mlp", 16, (50, 250)),
    "cnn4": Case("cnn", 4, (10, 50)),
    "steps16": Case("mlp", 16, (2, 10), thinning=100),
}


def rows(network: str) -> tuple[Any, Any]:
    """Rows to attribute to and rows to explain: 1,437 and 360 digits."""
    data = digits.load()
    if network == "mlp":
        return data.train, data.query
    return tuple((x.reshape(-1, 1, 8, 8), y) for x, y in (data.train, data.query))


def torch_network(network: str) -> Any:
    """Build the network with random weights."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if network == "mlp":
        return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
    first, second = CHANNELS
    return nn.Sequential(
        *(nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4 * second, 10)),
    )


def jax_network(network: str) -> tuple[Any, dict[str, Any]]:
    """Return the same network as a pure function, and its weights."""
    import jax
    import jax.numpy as jnp
    from jax.lax import conv_general_dilated, reduce_window

    weights = {
        name: jnp.asarray(np.asarray(w.detach()))
        for name, w in torch_network(network).named_parameters()
    }

    def mlp(p: dict[str, Any], x: Any) -> Any:
        return jax.nn.relu(x @ p["0.weight"].T + p["0.bias"]) @ p["2.weight"].T + p["2.bias"]

    def block(x: Any, weight: Any, bias: Any) -> Any:
        x = conv_general_dilated(x, weight, (1, 1), "SAME") + bias[:, None, None]
        window = (1, 1, 2, 2)
        return reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, window, window, "VALID")

    def cnn(p: dict[str, Any], x: Any) -> Any:
        x = block(block(x, p["0.weight"], p["0.bias"]), p["3.weight"], p["3.bias"])
        return x.reshape(len(x), -1) @ p["7.weight"].T + p["7.bias"]

    return {"mlp": mlp, "cnn": cnn}[network], weights
