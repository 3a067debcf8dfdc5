"""What is timed: networks with random weights, their data, and how many chains and draws."""

from typing import Any, NamedTuple

import numpy as np

from models import digits

__all__ = [
    "BATCH",
    "CASES",
    "JAX_NETWORKS",
    "LOCALIZATION",
    "STEP",
    "Case",
    "jax_network",
    "rows",
    "torch_network",
]

# Settings that all subjects share: rows of a gradient, pull, SGLD's eps.
BATCH, LOCALIZATION, STEP = 64, 100.0, 1e-5
# Networks that are written in JAX too.
JAX_NETWORKS = ("mlp", "cnn")
# Images and sequences to attribute to, and to explain.
TRAIN, QUERY = 192, 64


class Case(NamedTuple):
    """Chains of a network.

    Attributes
    ----------
    network
        A function of :mod:`benchmarks.speed.networks`.
    chains
        Of a run.
    draws
        A short and a long run, whose difference is free of set-up.
    thinning
        Steps between two draws; where more than 1, every subject but devinterp scores no more
        often than that, and devinterp not at all.
    whole
        Whether ``sample`` does all it can: write a store, show a progress bar.
    """

    network: str
    chains: int
    draws: tuple[int, int]
    thinning: int = 1
    whole: bool = False

    @property
    def scored(self) -> bool:
        """Whether all rows are scored at every step."""
        return self.thinning == 1

    @property
    def together(self) -> bool:
        """Whether a loop by hand would move all chains at once."""
        return self.network == "mlp"

    @property
    def likelihood(self) -> str:
        """What the outputs are."""
        return "tokens" if self.network == "gpt" else "categorical"


CASES = {
    "mlp4": Case("mlp", 4, (200, 1000)),
    "mlp16": Case("mlp", 16, (50, 250)),
    "cnn4": Case("cnn", 4, (10, 50)),
    "steps16": Case("mlp", 16, (2, 10), thinning=100),
    "whole_mlp": Case("mlp", 4, (200, 1000), whole=True),
    "whole_cnn": Case("cnn", 4, (20, 100), whole=True),
    "whole_resnet9": Case("resnet9", 1, (3, 12), whole=True),
    "whole_gpt": Case("gpt", 1, (3, 15), whole=True),
}


def rows(network: str) -> tuple[Any, Any]:
    """Rows to attribute to and rows to explain: 1,437 and 360 digits, or random ones."""
    data = digits.load()
    if network == "mlp":
        return data.train, data.query
    if network == "cnn":
        return tuple((x.reshape(-1, 1, 8, 8), y) for x, y in (data.train, data.query))
    rng = np.random.default_rng(0)
    if network == "resnet9":
        x = rng.normal(size=(TRAIN + QUERY, 3, 32, 32)).astype(np.float32)
        y = rng.integers(10, size=len(x))
    else:
        x = rng.integers(512, size=(TRAIN + QUERY, 64))
        y = np.roll(x, -1, axis=1)
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def torch_network(network: str) -> Any:
    """Build the network with random weights."""
    import torch

    from benchmarks.speed import networks

    torch.manual_seed(0)
    return getattr(networks, network)().eval()


def jax_network(network: str) -> tuple[Any, dict[str, Any]]:
    """Return the MLP or the CNN as a pure function, and its weights."""
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
