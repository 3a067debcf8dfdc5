"""Where tensors are and what type they have: masters to be sampled, casts to compute with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

__all__ = [
    "as_device",
    "as_dtype",
    "as_masters",
    "bytes_kept",
    "cast_statistics",
    "free_memory",
    "in_dtype",
    "to_host",
]

HALF = (torch.bfloat16, torch.float16)


def as_device(device: str) -> torch.device | None:
    """Return a device by its name, None for ``"auto"``.

    Raises
    ------
    ValueError
        If it is unknown, or this machine has none.
    """
    if device == "auto":
        return None
    try:
        found = torch.device(device)
        # Asks the device, which a name alone does not.
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', or such as 'cuda' or 'cuda:0' where PyTorch sees one; "
            f"got {device!r}"
        ) from error
    return found


def as_dtype(name: str | None) -> torch.dtype | None:
    """Return a type by its name."""
    return None if name is None else getattr(torch, name)


def as_masters(module: nn.Module) -> torch.dtype | None:
    """Make half-precision parameters float32, in place; return the type they had."""
    had = None
    for parameter in module.parameters():
        if parameter.dtype in HALF:
            had = parameter.dtype
            parameter.data = parameter.data.float()
    return had


def cast_statistics(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Cast the statistics of normalizing layers, in place: PyTorch wants them as the weights.

    Other buffers stay: frequencies of rotary embeddings would lose their places.
    """
    for layer in module.modules():
        if isinstance(layer, _NormBase):
            for name, value in in_dtype(dict(layer.named_buffers(recurse=False)), dtype).items():
                setattr(layer, name, value)


def in_dtype(tree: Any, dtype: torch.dtype | None) -> Any:
    """Cast the floating-point tensors of a tree; all stay as they are where the type is None."""
    if dtype is None:
        return tree
    if isinstance(tree, Tensor):
        # Site by site at every step, which `pytree` would take longer for than the cast.
        return tree.to(dtype) if tree.is_floating_point() else tree
    return pytree.tree_map_only(Tensor, lambda t: in_dtype(t, dtype), tree)


def to_host(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a NumPy array, which knows no bfloat16."""
    return (tensor.float() if tensor.dtype in HALF else tensor).cpu().numpy()


def free_memory(device: torch.device) -> int | None:
    """Bytes to be had on a GPU; None on other devices."""
    if device.type != "cuda":
        return None
    # What PyTorch has reserved and does not use is to be had too.
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved


def bytes_kept(function: Callable[[], Any]) -> int:
    """Count the bytes that a call keeps for its gradient."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    # Held until here, or the memory of one tensor might be that of the next.
    del result
    return sum(seen.values())
