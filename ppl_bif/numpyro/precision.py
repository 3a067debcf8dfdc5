"""Where arrays are and what type they have: masters to be sampled, casts to compute with."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["as_device", "as_dtype", "as_masters", "bytes_kept", "free_memory", "in_dtype"]

HALF = (jnp.bfloat16, jnp.float16)


def as_device(device: str) -> jax.Device | None:
    """Return a device by its name, None for ``"auto"``.

    Raises
    ------
    ValueError
        If it is unknown, or this machine has none.
    """
    if device == "auto":
        return None
    try:
        platform, _, number = device.partition(":")
        return jax.devices(platform)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', or such as 'cuda' or 'cuda:0' where JAX sees one; "
            f"got {device!r}"
        ) from error


def as_dtype(name: str | None) -> Any:
    """Return a type by its name."""
    return None if name is None else jnp.dtype(name)


def as_masters(weights: Mapping[str, Array]) -> tuple[dict[str, Array], Any]:
    """Make half-precision weights float32; return them, and the type they had."""
    had = [w.dtype for w in weights.values() if w.dtype in HALF]
    masters = {n: w.astype(jnp.float32) if w.dtype in HALF else w for n, w in weights.items()}
    return masters, had[0] if had else None


def in_dtype(tree: Any, dtype: Any) -> Any:
    """Cast the floating-point arrays of a tree; all stay as they are where the type is None."""
    if dtype is None:
        return tree

    def cast(array: Any) -> Any:
        floating = hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.floating)
        return jnp.asarray(array, dtype) if floating else array

    return jax.tree.map(cast, tree)


def free_memory(device: jax.Device) -> int | None:
    """Bytes to be had on a GPU; None on other devices."""
    known = device.memory_stats() if device.platform != "cpu" else None
    return known["bytes_limit"] - known["bytes_in_use"] if known else None


def bytes_kept(model: Any, weights: Mapping[str, Array], batch: Any) -> int:
    """Count the bytes that a pass keeps for its gradient, without running it."""
    kept = jax.tree.leaves(_kept.eval_shape(model, dict(weights), batch))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept)


# Jitted for its cache of traces alone.
@partial(jax.jit, static_argnums=0)
def _kept(model: Any, weights: dict[str, Array], batch: Any) -> Any:
    return jax.vjp(lambda w: model.log_likelihood(w, batch), weights)[1]
