"""A plain GPT in Flax NNX: learned positions, norms before, the embedding tied to the logits."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ppl_bif_models.gpt_recipe import Shape

__all__ = ["GPT", "with_weights"]

EPSILON = 1e-5


class GPT(nnx.Module):
    """A decoder from ids ``(row, token)`` to logits, at each place of the token that comes next.

    Parameters
    ----------
    shape
        Its size.
    seed
        Of the weights.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        rngs = nnx.Rngs(seed)
        self.embedding = nnx.Embed(shape.vocabulary, shape.width, rngs=rngs)
        self.position = nnx.Embed(shape.context, shape.width, rngs=rngs)
        self.blocks = nnx.List([_Block(shape, rngs) for _ in range(shape.layers)])
        self.norm = nnx.LayerNorm(shape.width, epsilon=EPSILON, rngs=rngs)

    def __call__(self, ids: Array) -> Array:
        """Compute logits ``(row, token, vocabulary)``."""
        places: Array = self.position(jnp.arange(ids.shape[-1]))
        stream: Array = self.embedding(ids) + places
        for block in self.blocks:
            stream = block(stream)
        return self.embedding.attend(self.norm(stream))


class _Block(nnx.Module):
    """Attention and a layer of four times the width, each added to what it reads."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs) -> None:
        width, self.heads = shape.width, shape.heads
        self.attention_norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.out(self._attend(self.attention_norm(x)))
        return x + self.down(jax.nn.gelu(self.up(self.mlp_norm(x)), approximate=False))

    def _attend(self, x: Array) -> Array:
        *rows, length, width = x.shape
        parts = jnp.reshape(self.qkv(x), (*rows, length, 3, self.heads, width // self.heads))
        q, k, v = jnp.swapaxes(jnp.moveaxis(parts, -3, 0), -3, -2)
        scores = q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        past = jnp.tril(jnp.ones((length, length), bool))
        found = jax.nn.softmax(jnp.where(past, scores, -jnp.inf)) @ v
        return jnp.swapaxes(found, -3, -2).reshape(*rows, length, width)


def with_weights(shape: Shape, weights: Mapping[str, Any]) -> GPT:
    """Return a GPT with the weights of :class:`ppl_bif_models.gpt_torch.GPT`, by its names."""
    network = GPT(shape)
    for name, value in weights.items():
        *path, leaf = name.split(".")
        part: Any = network
        for step in path:
            part = part[int(step)] if step.isdigit() else getattr(part, step)
        array = jnp.asarray(value)
        if isinstance(part, nnx.Embed):
            leaf = "embedding"
        elif leaf == "weight" and isinstance(part, nnx.LayerNorm):
            leaf = "scale"
        elif leaf == "weight":
            leaf, array = "kernel", array.T
        getattr(part, leaf)[...] = array
    return network
