"""A row of the GPU table in JAX: passes by hand, and what ``ppl_bif`` makes of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.gpu_rows import (
    Row,
    Subject,
    bound,
    everything,
    localized,
    sampled,
    torch_network,
    whole_run,
)
from benchmarks.speed.language import Shape
from ppl_bif.kernel import BURST_DRAWS
from ppl_bif.numpyro import SGLD, localize

__all__ = ["subject"]


def subject(row: Row, device: str) -> Subject:
    """Build the network, sample a little for the peak of memory, and return what is timed."""
    assert row.shape is not None
    apply, weights = _gpt(row)
    model = localize(apply, weights, **localized(row), device=device)
    kernel = SGLD(model, **sampled(row))
    whole_run(kernel, row)
    peak = (model.device.memory_stats() or {}).get("peak_bytes_in_use")
    engine = bound(kernel, row)
    state = [engine.start([0], 0)]
    forward, backward = _bare(apply, model, row)

    def step() -> None:
        state[0] = jax.block_until_ready(
            engine.advance(state[0]._replace(i=jnp.ones_like(state[0].i)), row.steps)
        )

    def score() -> None:
        for name in ("train", "query"):
            engine.log_likelihood(state[0], name)

    def draw(count: int) -> None:
        first = state[0]._replace(i=jnp.zeros_like(state[0].i))
        state[0], _ = engine.draws(first, row.steps, count, most=BURST_DRAWS, names=())
        jax.block_until_ready(state[0].z)

    return Subject(forward, backward, score, step, draw, lambda: None, peak, model.num_weights)


def _bare(apply: Any, model: Any, row: Row) -> tuple[Any, Any]:
    """Return forward passes over all rows, and gradients of as many batches as a draw has steps."""
    x, y = (jax.device_put(array, model.device) for array in everything(row))
    weights = {name: w.astype(jnp.bfloat16) for name, w in model.mode.items()}

    def losses(weights: Any, x: Any, y: Any) -> Any:
        logits = apply(weights, x).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen

    score = jax.jit(losses)
    slope = jax.jit(jax.grad(lambda w, x, y: losses(w, x, y).sum()))
    cuts = [slice(i, i + row.at_once) for i in range(0, row.scored, row.at_once)]

    def forward() -> Any:
        return [np.asarray(found) for found in [score(weights, x[c], y[c]) for c in cuts]]

    def backward() -> None:
        for _ in range(row.steps):
            jax.block_until_ready(slope(weights, x[: row.batch], y[: row.batch]))

    return forward, backward


def _gpt(row: Row) -> tuple[Any, dict[str, Any]]:
    """Return GPT-2 as a pure function, and the weights of the PyTorch one."""
    shape = row.shape
    assert shape is not None
    weights = {n: w.detach().numpy() for n, w in torch_network(row).named_parameters()}

    def apply(p: dict[str, Any], ids: Any) -> Any:
        x = p["tokens.weight"][ids] + p["places.weight"][: ids.shape[1]]
        for i in range(shape.layers):
            x = _layer(shape, {n: p[f"layers.{i}.{n}"] for n in _NAMES}, x)
        return _normal(x, p["norm.weight"], p["norm.bias"]) @ p["tokens.weight"].T

    return apply, weights


_LAYERS = ("before_attention", "attend", "project", "before_thought", "widen", "narrow")
_NAMES = [f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")]


def _layer(shape: Shape, p: dict[str, Any], x: Any) -> Any:
    def linear(name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def normal(name: str, x: Any) -> Any:
        return _normal(x, p[f"{name}.weight"], p[f"{name}.bias"])

    rows, tokens, width = x.shape
    parts = linear("attend", normal("before_attention", x))
    query, key, value = jnp.moveaxis(parts.reshape(rows, tokens, 3, shape.heads, -1), 2, 0)
    found = jax.nn.dot_product_attention(query, key, value, is_causal=True)
    x = x + linear("project", found.reshape(rows, tokens, width))
    wide = jax.nn.gelu(linear("widen", normal("before_thought", x)), approximate=False)
    return x + linear("narrow", wide)


def _normal(x: Any, weight: Any, bias: Any) -> Any:
    """Normalize in float32, as PyTorch does."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
    return (centred * scale).astype(x.dtype) * weight + bias
