"""The tasks' networks in JAX, over the weights that PyTorch trained.

Convolutions of the small ones are matrix products over patches, which is several times as fast on a
CPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.lds.tasks import Task

Weights = Mapping[str, Array]


def digits_mlp(weights: Weights, x: Array) -> Array:
    """Return the logits of the MLP."""
    for layer in ("0", "2"):
        x = jax.nn.relu(_linear(weights, layer, x))
    return _linear(weights, "4", x)


def digits_cnn(weights: Weights, x: Array) -> Array:
    """Return the logits of the CNN on 8 x 8 pixels."""
    x = _pooled(jax.nn.relu(_convolved(weights, "1", x.reshape(-1, 8, 8, 1))))
    return _head(weights, "4", x)


def fashion_cnn(weights: Weights, x: Array) -> Array:
    """Return the logits of the CNN on 28 x 28 pixels."""
    x = x.reshape(-1, 28, 28, 1)
    x = _pooled(jax.nn.relu(_convolved(weights, "1", x, stride=2)))
    return _head(weights, "4", x)


def cifar_resnet9(weights: Weights) -> Any:
    """Return the ResNet-9 in Flax."""
    from ppl_bif_models.resnet9_flax import with_weights

    return with_weights(weights)


def verses_gpt(weights: Weights) -> Any:
    """Return the GPT in Flax."""
    from benchmarks.lds.networks import GPT
    from ppl_bif_models.gpt_flax import with_weights

    return with_weights(GPT, weights)


FUNCTIONS: dict[str, Callable[[Weights, Array], Array]] = {
    "digits_mlp": digits_mlp,
    "digits_cnn": digits_cnn,
    "fashion_cnn": fashion_cnn,
}
# These carry their weights: running statistics are none to be sampled.
MODULES: dict[str, Callable[[Weights], Any]] = {
    "cifar_resnet9": cifar_resnet9,
    "verses_gpt": verses_gpt,
}


def trained(task: Task, seed: int = 0) -> tuple[Any, ...]:
    """Return what ``localize`` takes: a function and its weights, or a module that has them."""
    if task.name not in FUNCTIONS | MODULES:
        raise ValueError(
            f"{task.name} has no network in JAX: take pyro, or one of "
            f"{', '.join(FUNCTIONS | MODULES)}"
        )
    weights = {name: jnp.asarray(w) for name, w in task.weights[seed].items()}
    if task.name in MODULES:
        return (MODULES[task.name](weights),)
    return FUNCTIONS[task.name], weights


def _head(weights: Weights, layer: str, x: Array) -> Array:
    x = _pooled(jax.nn.relu(_convolved(weights, layer, x)))
    return _linear(weights, "8", x.transpose(0, 3, 1, 2).reshape(len(x), -1))


def _linear(weights: Weights, layer: str, x: Array) -> Array:
    return x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]


def _convolved(weights: Weights, layer: str, x: Array, stride: int = 1) -> Array:
    """Convolve images ``(row, height, width, channel)``, padded to keep their size."""
    kernel = weights[f"{layer}.weight"]
    size = kernel.shape[-1]
    height, width = x.shape[1] // stride, x.shape[2] // stride
    pad = (size // 2, size // 2)
    padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    shifts = [(i, j) for i in range(size) for j in range(size)]
    patches = jnp.concatenate(
        [
            padded[:, i : i + stride * height : stride, j : j + stride * width : stride]
            for i, j in shifts
        ],
        axis=-1,
    )
    matrix = kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
    return patches @ matrix + weights[f"{layer}.bias"]


def _pooled(x: Array) -> Array:
    """Keep the largest of 2 x 2 pixels; a last odd row or column is left out."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
