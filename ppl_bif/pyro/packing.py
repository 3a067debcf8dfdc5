"""The state of chains as arrays by name and back, so that a run can be taken up again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl_bif.pyro.preconditioners import Root

__all__ = ["pack", "unpack"]

ROOT = ".shared.root"


def pack(state: Any, *, shared: bool) -> dict[str, np.ndarray]:
    """Return a state as arrays; of what chains share, the preconditioner's root if asked for."""
    root = state.shared.root if shared else Root()
    # What is stored at w* is computed again from weights and data.
    state = state._replace(shared=state.shared._replace(stored=(), root=root))
    leaves, _ = pytree.tree_flatten_with_path(state)
    return {pytree.keystr(path): _array(leaf) for path, leaf in leaves if leaf is not None}


def unpack(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """Return the state that was packed; ``like`` gives its structure, and what was left out."""
    if any(name.startswith(ROOT) for name in arrays):
        like = like._replace(shared=like.shared._replace(root=_root(arrays, like)))

    def leaf(path: Any, value: Any) -> Any:
        name = pytree.keystr(path)
        if value is None or (name not in arrays and name.startswith(".shared")):
            return value
        return _like(arrays[name], value, name)

    return pytree.tree_map_with_path(leaf, like)


def _root(arrays: Mapping[str, np.ndarray], like: Any) -> Root:
    """Return a root of the right structure, whose sites are those of the weights."""

    def by_site(field: str) -> dict[str, Tensor] | None:
        names = {site: f"{ROOT}.{field}[{site!r}]" for site in like.z}
        found = {
            site: torch.as_tensor(arrays[name]).to(like.z[site])
            for site, name in names.items()
            if name in arrays
        }
        return found or None

    change = arrays.get(f"{ROOT}.change")
    example = next(iter(like.z.values()))
    return Root(
        by_site("diagonal"),
        by_site("directions"),
        None if change is None else torch.as_tensor(change).to(example),
    )


def _array(leaf: Any) -> np.ndarray:
    if isinstance(leaf, torch.Generator):
        return leaf.get_state().numpy()
    return leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) else np.asarray(leaf)


def _like(array: np.ndarray, value: Any, name: str) -> Any:
    expected = _array(value)
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ValueError(
            f"{name} of a state is {expected.dtype} {expected.shape}; got {array.dtype} "
            f"{array.shape}"
        )
    if isinstance(value, torch.Generator):
        generator = torch.Generator(value.device)
        generator.set_state(torch.tensor(array))
        return generator
    if isinstance(value, Tensor):
        return torch.tensor(array, device=value.device)
    return type(value)(array)
