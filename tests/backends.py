"""The same small networks in both backends, for tests that must hold in each of them.

Weights are NumPy arrays and sites have the same names (``w``; ``W0``, ``b0``, ``W1`` ...), so that
one test can say what it expects and run over ``BACKENDS`` by the fixture ``backend``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from ppl_bif.data import map_arrays

BACKENDS = ("numpyro", "pyro")

Layers = Sequence[tuple[np.ndarray, np.ndarray]]


class Backend(NamedTuple):
    """One backend.

    Attributes
    ----------
    name
        ``"pyro"`` or ``"numpyro"``.
    localize, SGLD
        Of that backend, as users import them.
    linear
        ``linear(w, **settings)``: the localized model of ``x @ w``, likelihood normal.
    mlp
        ``mlp(layers, likelihood=..., **settings)``: of tanh layers ``(W (in, out), b (out,))``.
    log_joint
        ``log_joint(model, batch, weights=None)``: log p(w, data) by the PPL's own handlers, at the
        trained weights unless others are given.
    log_likelihood
        ``log_likelihood(model, batch, weights=None)``: pointwise, as a NumPy array.
    site
        Name of the weight of ``linear``.
    """

    name: str
    localize: Callable[..., Any]
    SGLD: Callable[..., Any]
    linear: Callable[..., Any]
    mlp: Callable[..., Any]
    log_joint: Callable[..., float]
    log_likelihood: Callable[..., np.ndarray]
    site: str = "w"


def get_backend(name: str) -> Backend:
    """Import one backend, when a test first needs it."""
    return {"numpyro": _numpyro, "pyro": _pyro}[name]()


def marked(names: Sequence[str]) -> list[Any]:
    """Name backends as parameters of tests, each skipped where it is not installed."""
    return [pytest.param(name, marks=getattr(pytest.mark, name)) for name in names]


def in_turn(names: Iterable[str]) -> list[Any]:
    """Pair names with backends in turn: for long tests of what others hold against both."""
    return [
        pytest.param((name, backend), id=f"{name}-{backend}", marks=getattr(pytest.mark, backend))
        for name, backend in zip(names, cycle(reversed(BACKENDS)), strict=False)
    ]


def named_layers(layers: Layers) -> dict[str, np.ndarray]:
    """Name the weights of an MLP as both backends do."""
    pairs = [(f"W{i}", w, f"b{i}", b) for i, (w, b) in enumerate(layers)]
    return {k: np.float32(a) for w, W, b, B in pairs for k, a in ((w, W), (b, B))}


def random_layers(sizes: Sequence[int], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make weights of an MLP with units ``sizes``, inputs and outputs among them."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(a, b)) / np.sqrt(a), 0.1 * rng.normal(size=b)) for a, b in pairwise(sizes)
    ]


def _forward(weights: Mapping[str, Any], x: Any, tanh: Callable[[Any], Any]) -> Any:
    depth = len(weights) // 2
    for i in range(depth):
        x = x @ weights[f"W{i}"] + weights[f"b{i}"]
        x = tanh(x) if i < depth - 1 else x
    return x


def _numpyro() -> Backend:
    import jax.numpy as jnp
    from numpyro.infer.util import log_density

    from ppl_bif.numpyro import SGLD, localize

    def linear(w: np.ndarray, *, likelihood: Any = "normal", **settings: Any) -> Any:
        params = {"w": jnp.float32(w)}
        return localize(lambda p, x: x @ p["w"], params, likelihood=likelihood, **settings)

    def mlp(layers: Layers, *, likelihood: Any = "categorical", **settings: Any) -> Any:
        params = {name: jnp.asarray(a) for name, a in named_layers(layers).items()}
        apply = lambda p, x: _forward(p, x, jnp.tanh)  # noqa: E731
        return localize(apply, params, likelihood=likelihood, **settings)

    def log_joint(model: Any, batch: Any, weights: Mapping[str, Any] | None = None) -> float:
        values = {name: jnp.asarray(w) for name, w in (weights or model.mode).items()}
        return float(log_density(model, tuple(map_arrays(jnp.asarray, batch)), {}, values)[0])

    def log_likelihood(model: Any, batch: Any, weights: Any = None) -> np.ndarray:
        values = {name: jnp.asarray(w) for name, w in (weights or model.mode).items()}
        return np.asarray(model.log_likelihood(values, map_arrays(jnp.asarray, batch)))

    return Backend("numpyro", localize, SGLD, linear, mlp, log_joint, log_likelihood)


def _pyro() -> Backend:
    import torch
    from pyro import poutine

    from ppl_bif.pyro import SGLD, localize

    class Linear(torch.nn.Module):
        def __init__(self, w: np.ndarray) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(np.float32(w)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    class MLP(torch.nn.Module):
        def __init__(self, layers: Layers) -> None:
            super().__init__()
            for name, a in sorted(named_layers(layers).items()):
                self.register_parameter(name, torch.nn.Parameter(torch.tensor(a)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _forward(dict(self.named_parameters()), x, torch.tanh)

    def linear(w: np.ndarray, *, likelihood: Any = "normal", **settings: Any) -> Any:
        return localize(Linear(w), likelihood=likelihood, **settings)

    def mlp(layers: Layers, *, likelihood: Any = "categorical", **settings: Any) -> Any:
        return localize(MLP(layers), likelihood=likelihood, **settings)

    def log_joint(model: Any, batch: Any, weights: Mapping[str, Any] | None = None) -> float:
        values = {name: torch.as_tensor(w) for name, w in (weights or model.mode).items()}
        run = poutine.trace(poutine.condition(model, data=values))
        return float(run.get_trace(*map_arrays(torch.as_tensor, batch)).log_prob_sum())

    def log_likelihood(model: Any, batch: Any, weights: Any = None) -> np.ndarray:
        values = {name: torch.as_tensor(w) for name, w in (weights or model.mode).items()}
        return model.log_likelihood(values, map_arrays(torch.as_tensor, batch)).detach().numpy()

    return Backend("pyro", localize, SGLD, linear, mlp, log_joint, log_likelihood)
