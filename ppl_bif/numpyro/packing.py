"""The state of chains as arrays by name and back, so that a run can be taken up again."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl_bif.numpyro.preconditioners import Root

__all__ = ["pack", "unpack"]


def pack(state: Any, *, shared: bool) -> dict[str, np.ndarray]:
    """Return a state as arrays; of what chains share, the preconditioner's root if asked for."""
    root = state.shared.root if shared else Root()
    # What is stored at w* is computed again from weights and data.
    state = state._replace(shared=state.shared._replace(stored=(), root=root))
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): _array(leaf) for path, leaf in leaves}


def unpack(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """Return the state that was packed; ``like`` gives its structure, and what was left out."""

    def leaf(path: Any, value: Array) -> Array:
        name = jax.tree_util.keystr(path)
        if name not in arrays and name.startswith(".shared"):
            return value
        return _like(arrays[name], value, name)

    return jax.tree_util.tree_map_with_path(leaf, like)


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _array(leaf: Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(array: np.ndarray, value: Array, name: str) -> Array:
    expected = jax.eval_shape(jax.random.key_data, value) if _is_key(value) else value
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ValueError(
            f"{name} of a state is {expected.dtype} {expected.shape}; got {array.dtype} "
            f"{array.shape}"
        )
    if _is_key(value):
        return jax.random.wrap_key_data(
            jax.device_put(array, value.sharding), impl=jax.random.key_impl(value)
        )
    return jax.device_put(array, value.sharding)
