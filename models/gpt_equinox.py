"""A plain GPT in Equinox: learned positions, norms before, the embedding tied to the logits."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif_models.gpt_recipe import Shape

__all__ = ["GPT", "with_weights"]


class GPT(eqx.Module):
    """A decoder from the ids of one row ``(token,)`` to logits, as Equinox has it.

    Parameters
    ----------
    shape
        Its size.
    seed
        Of the weights.
    """

    embedding: eqx.nn.Embedding
    position: eqx.nn.Embedding
    blocks: list["_Block"]
    norm: eqx.nn.LayerNorm

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        keys = iter(jax.random.split(jax.random.key(seed), 2 + shape.layers))
        self.embedding = eqx.nn.Embedding(shape.vocabulary, shape.width, key=next(keys))
        self.position = eqx.nn.Embedding(shape.context, shape.width, key=next(keys))
        self.blocks = [_Block(shape, next(keys)) for _ in range(shape.layers)]
        self.norm = eqx.nn.LayerNorm(shape.width)

    def __call__(self, ids: Array) -> Array:
        """Compute logits ``(token, vocabulary)``, at each place of the token that comes next."""
        stream = self.embedding.weight[ids] + self.position.weight[: len(ids)]
        for block in self.blocks:
            stream = block(stream)
        return jax.vmap(self.norm)(stream) @ self.embedding.weight.T


class _Block(eqx.Module):
    """Attention and a layer of four times the width, each added to what it reads."""

    attention_norm: eqx.nn.LayerNorm
    mlp_norm: eqx.nn.LayerNorm
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, shape: Shape, key: Array) -> None:
        width, keys = shape.width, jax.random.split(key, 4)
        self.heads = shape.heads
        self.attention_norm, self.mlp_norm = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.qkv = eqx.nn.Linear(width, 3 * width, key=keys[0])
        self.out = eqx.nn.Linear(width, width, key=keys[1])
        self.up = eqx.nn.Linear(width, 4 * width, key=keys[2])
        self.down = eqx.nn.Linear(4 * width, width, key=keys[3])

    def __call__(self, x: Array) -> Array:
        x = x + jax.vmap(self.out)(self._attend(jax.vmap(self.attention_norm)(x)))
        wide = jax.vmap(self.up)(jax.vmap(self.mlp_norm)(x))
        return x + jax.vmap(self.down)(jax.nn.gelu(wide, approximate=False))

    def _attend(self, x: Array) -> Array:
        length, width = x.shape
        parts = jax.vmap(self.qkv)(x).reshape(length, 3, self.heads, width // self.heads)
        q, k, v = jnp.transpose(parts, (1, 2, 0, 3))
        scores = q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        past = jnp.tril(jnp.ones((length, length), bool))
        found = jax.nn.softmax(jnp.where(past, scores, -jnp.inf)) @ v
        return jnp.swapaxes(found, 0, 1).reshape(length, width)


def with_weights(shape: Shape, weights: Mapping[str, Any]) -> GPT:
    """Return a GPT with the weights of :class:`ppl_bif_models.gpt_torch.GPT`, by its names."""

    def place(path: tuple[Any, ...], old: Array) -> Array:
        keys = (str(getattr(key, "name", getattr(key, "idx", key))) for key in path)
        return jnp.asarray(weights[".".join(keys)], old.dtype)

    arrays, rest = eqx.partition(GPT(shape), eqx.is_array)
    return eqx.combine(jax.tree_util.tree_map_with_path(place, arrays), rest)
