"""ResNet-9 for 32x32 pictures in Flax NNX, with BatchNorm or GroupNorm, and its training."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ppl_bif_models.resnet9_recipe import EPOCHS, GROUPS, batches, rule

__all__ = ["ResNet9", "train", "with_weights"]

# Of the running statistics.
KEPT = 0.9
# As PyTorch and Equinox have it, in both norms.
EPSILON = 1e-5
# What PyTorch calls the parts of a norm, and Flax.
LEARNED = {"weight": "scale", "bias": "bias"}
PARTS = {"batch": {**LEARNED, "running_mean": "mean", "running_var": "var"}, "group": LEARNED}


class ResNet9(nnx.Module):
    """ResNet-9 (Page 2018) from pictures ``(row, channel, 32, 32)`` to logits.

    Parameters
    ----------
    seed
        Of the weights.
    width
        Channels of the first layer: 64 make 6.6 million weights, 32 make 1.6 million.
    norm
        ``"batch"`` or ``"group"``.
    channels, classes
        Of the pictures.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        width: int = 64,
        norm: str = "batch",
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        if norm not in ("batch", "group"):
            raise ValueError(f'norm must be "batch" or "group"; got {norm!r}')
        rngs, wide = nnx.Rngs(seed), [width * 2**i for i in range(4)]
        sizes = [(channels, wide[0]), *pairwise(wide)]
        self.blocks = nnx.List([_Block(*size, norm, rngs) for size in sizes])
        self.inner = nnx.List(
            [_Block(size, size, norm, rngs) for size in (wide[1], wide[1], wide[3], wide[3])]
        )
        self.head = nnx.Linear(wide[3], classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Compute logits ``(row, class)``."""
        x = jnp.transpose(x, (0, 2, 3, 1))
        x = _pool(self.blocks[1](self.blocks[0](x)))
        x = x + self.inner[1](self.inner[0](x))
        x = _pool(self.blocks[3](_pool(self.blocks[2](x))))
        x = x + self.inner[3](self.inner[2](x))
        return self.head(x.max((1, 2)))


class _Block(nnx.Module):
    def __init__(self, inside: int, outside: int, norm: str, rngs: nnx.Rngs) -> None:
        self.convolution = nnx.Conv(inside, outside, (3, 3), use_bias=False, rngs=rngs)
        self.norm = (
            nnx.BatchNorm(outside, momentum=KEPT, epsilon=EPSILON, rngs=rngs)
            if norm == "batch"
            else nnx.GroupNorm(outside, num_groups=GROUPS, epsilon=EPSILON, rngs=rngs)
        )

    def __call__(self, x: Array) -> Array:
        return nnx.relu(self.norm(self.convolution(x)))


def _pool(x: Array) -> Array:
    return nnx.max_pool(x, (2, 2), strides=(2, 2))


def train(network: ResNet9, x: Any, y: Any, *, seed: int = 0, epochs: int = EPOCHS) -> ResNet9:
    """Train in place by Nesterov momentum with weight decay, on pictures mirrored at random.

    Parameters
    ----------
    network
        It is returned in evaluation mode.
    x, y
        Pictures ``(row, channel, height, width)``, scaled, and classes ``(row,)``.
    seed
        Of the order, and of the mirrors.
    epochs
        Passes over the pictures; the last rows of each that fill no batch are left out.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    optimizer = nnx.Optimizer(network, rule(len(y), epochs), wrt=nnx.Param)
    network.train()
    for rows, mirrors in batches(len(y), epochs, seed):
        _step(network, optimizer, x[rows], y[rows], mirrors)
    network.eval()
    return network


@nnx.jit
def _step(network: ResNet9, optimizer: nnx.Optimizer, x: Array, y: Array, mirrors: Array) -> None:
    images = jnp.where(mirrors[:, None, None, None], x[..., ::-1], x)

    def loss(network: ResNet9) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(network(images), y).mean()

    optimizer.update(network, nnx.grad(loss)(network))


def with_weights(weights: Mapping[str, Any]) -> ResNet9:
    """Return, in evaluation mode, a ResNet-9 with weights of PyTorch's.

    Parameters
    ----------
    weights
        By the names of :func:`ppl_bif_models.resnet9_torch.resnet9`, running statistics among them
        where its norms have any. They tell the width, the norm, and what the pictures are.
    """
    width, channels = weights["0.0.weight"].shape[:2]
    norm = "batch" if "0.1.running_mean" in weights else "group"
    classes = len(weights["11.bias"])
    network = ResNet9(width=width, norm=norm, channels=channels, classes=classes)
    places = ("0", "1", "4", "6", "3.inner.0", "3.inner.1", "8.inner.0", "8.inner.1")
    for place, block in zip(places, (*network.blocks, *network.inner), strict=True):
        kernel = jnp.transpose(weights[f"{place}.0.weight"], (2, 3, 1, 0))
        block.convolution.kernel[...] = kernel
        for name, part in PARTS[norm].items():
            getattr(block.norm, part)[...] = jnp.asarray(weights[f"{place}.1.{name}"])
    network.head.kernel[...] = jnp.transpose(weights["11.weight"])
    assert network.head.bias is not None
    network.head.bias[...] = jnp.asarray(weights["11.bias"])
    network.eval()
    return network
