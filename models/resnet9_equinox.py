"""ResNet-9 for 32x32 pictures in Equinox, with GroupNorm, and its training."""

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from ppl_bif_models.resnet9_recipe import EPOCHS, GROUPS, batches, rule

__all__ = ["ResNet9", "train"]


class ResNet9(eqx.Module):
    """ResNet-9 (Page 2018) from one picture ``(channel, 32, 32)`` to logits, as Equinox has it.

    Parameters
    ----------
    seed
        Of the weights.
    width
        Channels of the first layer: 64 make 6.6 million weights, 32 make 1.6 million.
    channels, classes
        Of the pictures.
    """

    blocks: list["_Block"]
    inner: list["_Block"]
    head: eqx.nn.Linear

    def __init__(
        self, seed: int = 0, *, width: int = 64, channels: int = 3, classes: int = 10
    ) -> None:
        wide = [width * 2**i for i in range(4)]
        keys = iter(jax.random.split(jax.random.key(seed), 9))
        self.blocks = [_Block(a, b, next(keys)) for a, b in pairwise([channels, *wide])]
        self.inner = [_Block(n, n, next(keys)) for n in (wide[1], wide[1], wide[3], wide[3])]
        self.head = eqx.nn.Linear(wide[3], classes, key=next(keys))

    def __call__(self, x: Array) -> Array:
        """Compute logits ``(class,)``."""
        pool = eqx.nn.MaxPool2d(2, 2)
        x = pool(self.blocks[1](self.blocks[0](x)))
        x = x + self.inner[1](self.inner[0](x))
        x = pool(self.blocks[3](pool(self.blocks[2](x))))
        x = x + self.inner[3](self.inner[2](x))
        return self.head(x.max((1, 2)))


class _Block(eqx.Module):
    convolution: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm

    def __init__(self, inside: int, outside: int, key: Array) -> None:
        self.convolution = eqx.nn.Conv2d(inside, outside, 3, padding=1, use_bias=False, key=key)
        self.norm = eqx.nn.GroupNorm(GROUPS, outside)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(self.norm(self.convolution(x)))


def train(network: ResNet9, x: Any, y: Any, *, seed: int = 0, epochs: int = EPOCHS) -> ResNet9:
    """Train by Nesterov momentum with weight decay, on pictures mirrored at random.

    Parameters
    ----------
    network
        To start from; what is trained is returned.
    x, y
        Pictures ``(row, channel, height, width)``, scaled, and classes ``(row,)``.
    seed
        Of the order, and of the mirrors.
    epochs
        Passes over the pictures; the last rows of each that fill no batch are left out.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    steps = rule(len(y), epochs)
    state = steps.init(eqx.filter(network, eqx.is_array))

    def loss(network: ResNet9, images: Array, labels: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(
            jax.vmap(network)(images), labels
        ).mean()

    @eqx.filter_jit
    def step(network: ResNet9, state: Any, rows: Array, mirrors: Array) -> tuple[ResNet9, Any]:
        images = jnp.where(mirrors[:, None, None, None], x[rows][..., ::-1], x[rows])
        found = eqx.filter_grad(loss)(network, images, y[rows])
        moves, state = steps.update(found, state, eqx.filter(network, eqx.is_array))
        return eqx.apply_updates(network, moves), state

    for rows, mirrors in batches(len(y), epochs, seed):
        network, state = step(network, state, rows, mirrors)
    return network
