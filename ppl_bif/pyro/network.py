"""Networks as pure functions: a torch module in, its weights by name and a function out."""

import copy
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.utils.checkpoint import checkpoint

from ppl_bif.pyro.precision import as_masters, cast_statistics

__all__ = ["Network", "as_network", "is_sharded"]


class Network(NamedTuple):
    """A network without state.

    Attributes
    ----------
    name
        What is recorded of it.
    structure
        What tells it from others of the name.
    weights
        The trained parameters by name; float32 where they were half that.
    buffers
        What is neither sampled nor trained, such as statistics of BatchNorm.
    apply
        ``(weights, *inputs, **named_inputs) -> outputs``.
    while_held
        ``(weights, job) -> job()``, done while the module holds these weights: what activation
        checkpointing computes again on the way back is then of these weights as well.
    compute_dtype
        What weights and inputs are cast to when it is called; None for what they are.
    convolves
        Whether it has convolutions, which ``vmap`` makes grouped ones, of half the speed on a CPU.
    """

    name: str
    structure: str
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    apply: Callable[..., Any]
    while_held: Callable[[Mapping[str, Tensor], Callable[[], Any]], Any]
    compute_dtype: torch.dtype | None
    convolves: bool


def is_sharded(network: Any) -> bool:
    """Say whether parameters of a module lie on several devices."""
    # It takes a second to load, which whoever sharded a module has done.
    known = sys.modules.get("torch.distributed.tensor")
    if known is None or not isinstance(network, nn.Module):
        return False
    return any(isinstance(w, known.DTensor) for w in network.parameters())


def as_network(
    network: Any,
    params: Mapping[str, Tensor] | None,
    *,
    compute_dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Network:
    """Turn a module into a pure function of named weights, on a frozen copy in evaluation mode.

    Parameters
    ----------
    network
        The trained module; it is not touched.
    params
        Weights to use in place of the module's own, by name.
    compute_dtype
        To be cast to when called; that of half-precision weights unless given.
    device
        To be copied to; where the module is unless given.

    Raises
    ------
    TypeError
        If the network is not a module.
    ValueError
        If ``params`` do not fit the module by name or shape.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network must be a torch.nn.Module; got {type(network).__name__}. A JAX network goes "
            "to ppl_bif.numpyro.localize"
        )
    frozen = copy.deepcopy(network).to(device).eval().requires_grad_(False)
    named = _prepared_hugging_face(frozen)
    had = as_masters(frozen)
    compute_dtype = compute_dtype or had
    cast_statistics(frozen, compute_dtype)
    weights = {name: w.detach() for name, w in frozen.named_parameters()}
    if params is not None:
        weights = _replaced(weights, params)

    def apply(weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        return functional_call(frozen, dict(weights), args, named(args, kwargs))

    holder = _Holder(frozen)

    def while_held(weights: Mapping[str, Tensor], job: Callable[[], Any]) -> Any:
        return functional_call(holder, {f"module.{n}": w for n, w in weights.items()}, (job,))

    return Network(
        type(network).__qualname__,
        repr(network),
        weights,
        dict(frozen.named_buffers()),
        apply,
        while_held,
        compute_dtype,
        any(isinstance(module, _ConvNd) for module in frozen.modules()),
    )


class _Holder(nn.Module):
    """Does a job while weights are put into its module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, job: Callable[[], Any]) -> Any:
        return job()


def _prepared_hugging_face(
    network: nn.Module,
) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Make a network of Hugging Face one that can be traced; leave others as they are.

    Keys and values that nobody reads again are not kept. On a CPU attention is a product, which
    ``vmap`` maps. Without a mask these networks look at the values of positions for documents that
    were packed into one row: a mask of ones is the same without that look.

    Returns
    -------
    Callable
        From positional and named inputs to the named inputs to call it with.
    """
    config: Any = getattr(network, "config", None)
    if not hasattr(config, "_attn_implementation"):
        return lambda args, kwargs: kwargs
    config.use_cache = False
    _checkpointed(network)
    if next(network.parameters()).device.type == "cpu":
        network.set_attn_implementation("eager")
    masked = "attention_mask" in inspect.signature(network.forward).parameters

    def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if not masked or ids is None or len(args) > 1 or "attention_mask" in kwargs:
            return kwargs
        return {**kwargs, "attention_mask": torch.ones_like(ids)}

    return named


def _checkpointed(network: nn.Module) -> None:
    """Have layers that were told to checkpoint do it though nothing is trained, where it can be."""
    for layer in network.modules():
        if getattr(layer, "gradient_checkpointing", False) and layer is not network:
            # Of this layer alone: its parts, such as dropout, stay in evaluation mode.
            layer.training = True
            layer._gradient_checkpointing_func = _computed_again


def _computed_again(function: Callable[..., Any], *args: Any) -> Any:
    """Keep no activations, but where ``torch.func`` differentiates, which cannot do without."""
    if torch._C._are_functorch_transforms_active():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False)


def _replaced(weights: dict[str, Tensor], params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(params, Mapping):
        raise TypeError(
            "params must be a mapping from names to tensors, such as those of "
            f"module.named_parameters(); got {type(params).__name__}"
        )
    missing, unknown = set(weights) - set(params), set(params) - set(weights)
    if missing or unknown:
        raise ValueError(
            f"params do not fit the network: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    for name, w in weights.items():
        shape = torch.as_tensor(params[name]).shape
        if shape != w.shape:
            raise ValueError(
                f"params[{name!r}] must have shape {tuple(w.shape)}; got {tuple(shape)}: pass the "
                "weights that this network was trained to"
            )
    return {name: torch.as_tensor(params[name]).detach().to(w) for name, w in weights.items()}
