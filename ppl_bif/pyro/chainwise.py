"""Functions of one chain's weights, mapped over a leading chain axis."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch.utils import _pytree as pytree

__all__ = ["chainwise"]


def chainwise(function: Callable[..., Any], *mapped: Any) -> Any:
    """Call a function of one chain on all chains.

    One chain alone is called without ``vmap``, so that networks which vmap cannot trace, and
    networks that fill the device, still run.

    Parameters
    ----------
    function
        Takes what ``mapped`` holds without the chain axis; gives tensors.
    mapped
        Trees of tensors ``(chain, ...)``, or None.
    """
    # Checks of supports branch on values, which vmap cannot; data was checked when it came in.
    with pyro.validation_enabled(False):
        if next(t for t in pytree.tree_leaves(mapped) if t is not None).shape[0] == 1:
            result = function(*pytree.tree_map_only(torch.Tensor, lambda t: t[0], mapped))
            return pytree.tree_map_only(torch.Tensor, lambda t: t.unsqueeze(0), result)
        axes = tuple(None if tree is None else 0 for tree in mapped)
        return torch.func.vmap(function, in_dims=axes)(*mapped)
