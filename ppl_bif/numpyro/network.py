"""Networks as pure functions: an apply function or a flax or equinox module in, names out."""

from collections.abc import Callable, Hashable, Mapping
from inspect import isfunction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.numpyro.precision import as_masters
from ppl_bif.signatures import describe

__all__ = ["Network", "as_network"]


class Network(NamedTuple):
    """A network without state.

    Attributes
    ----------
    name
        What is recorded of it.
    structure
        What tells it from others of the name.
    weights
        The trained weights by name, float32 where they were half that; names are the path in the
        pytree, joined by dots.
    apply
        ``(weights, *inputs, **named_inputs) -> outputs``.
    compute_dtype
        What weights and inputs are cast to when it is called; None for what they are.
    program
        Equal for networks that are the same function of weights of the same names; None for what
        holds more than these, and is like itself alone.
    """

    name: str
    structure: str
    weights: dict[str, Array]
    apply: Callable[..., Any]
    compute_dtype: Any = None
    program: Hashable = None


def as_network(
    network: Any, params: Any, *, compute_dtype: Any = None, device: jax.Device | None = None
) -> Network:
    """Turn what a user has into a pure function of named weights.

    Parameters
    ----------
    network
        ``apply(params, *inputs)``, a ``flax.linen.Module`` (with its variables as ``params``), a
        ``flax.nnx.Module`` or an ``equinox.Module`` (weights inside, ``params`` left out). Modules
        are put in evaluation mode as copies; an equinox module is taken to see one example and
        is mapped over rows.
    params
        The trained weights, any pytree of floating-point arrays.
    compute_dtype
        To be cast to when called; that of half-precision weights unless given.
    device
        To be copied to; where the weights are unless given.

    Raises
    ------
    TypeError
        If the network is none of these, or ``params`` is missing or superfluous.
    """
    found = _named(network, params)
    weights, had = as_masters(found.weights)
    if device is not None:
        weights = jax.device_put(weights, device)
    return found._replace(weights=weights, compute_dtype=compute_dtype or had)


def _named(network: Any, params: Any) -> Network:
    family = {base.__module__.split(".")[0] for base in type(network).__mro__}
    if "torch" in family:
        raise TypeError(
            f"network must be a JAX function or module; got the torch module "
            f"{type(network).__name__}, which goes to ppl_bif.pyro.localize"
        )
    if "flax" in family and hasattr(network, "apply"):
        return _from_linen(network, _needed(params, "a flax.linen.Module"))
    if "flax" in family:
        _superfluous(params, "a flax.nnx.Module")
        return _from_nnx(network)
    if "equinox" in family:
        _superfluous(params, "an equinox.Module")
        return _from_equinox(network)
    if callable(network):
        params = _needed(params, "an apply function")
        found = _from_tree(network, params, _name_of(network), describe(network))
        return _alike(found, network, params) if isfunction(network) else found
    raise TypeError(
        "network must be a pure function apply(params, x), a flax module or an equinox module; "
        f"got {type(network).__name__}"
    )


def _name_of(network: Any) -> str:
    return getattr(network, "__qualname__", type(network).__qualname__)


def _needed(params: Any, what: str) -> Any:
    if params is None:
        raise TypeError(f"{what} needs its trained weights: localize(network, params, ...)")
    return params


def _superfluous(params: Any, what: str) -> None:
    if params is not None:
        raise TypeError(f"{what} carries its weights: call localize(network, likelihood=...)")


def _from_tree(apply: Callable[..., Any], params: Any, name: str, description: str) -> Network:
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [_join(path) for path, _ in leaves]
    if len(set(names)) != len(names):
        raise ValueError(f"paths of the weights must differ once joined by dots; got {names}")

    def named_apply(weights: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
        tree = jax.tree_util.tree_unflatten(structure, [weights[name] for name in names])
        return apply(tree, *args, **kwargs)

    weights = {name: jnp.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}
    return Network(name, description, weights, named_apply)


def _join(path: tuple[Any, ...]) -> str:
    # InferenceData, netCDF and Zarr read a slash as a group.
    return jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".") or "weights"


def _from_linen(module: Any, variables: Mapping[str, Any]) -> Network:
    rest = {key: value for key, value in variables.items() if key != "params"}
    params = variables.get("params", variables)

    def apply(params: Any, *args: Any, **kwargs: Any) -> Any:
        fixed = rest if "params" in variables else {}
        return module.apply({**fixed, "params": params}, *args, **kwargs)

    found = _from_tree(apply, params, type(module).__qualname__, repr(module))
    return found if rest else _alike(found, module, params)


def _alike(network: Network, function: Hashable, params: Any) -> Network:
    """Let a network be like all of the same function, which by JAX's rules is pure."""
    return network._replace(program=(function, jax.tree_util.tree_structure(params)))


def _from_nnx(module: Any) -> Network:
    from flax import nnx

    frozen = nnx.clone(module)
    frozen.eval()
    graph, state = nnx.split(frozen)
    params, rest = nnx.split_state(state, nnx.Param, ...)
    structure = jax.tree_util.tree_structure(params)

    def apply(leaves: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
        tree = jax.tree_util.tree_unflatten(structure, list(leaves.values()))
        return nnx.merge(graph, tree, rest, copy=True)(*args, **kwargs)

    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    named = {_join(path).removesuffix(".value"): leaf for path, leaf in leaves}
    return Network(
        type(module).__qualname__,
        str(graph),
        {name: jnp.asarray(leaf) for name, leaf in named.items()},
        lambda weights, *args, **kwargs: apply({n: weights[n] for n in named}, *args, **kwargs),
    )


def _from_equinox(module: Any) -> Network:
    import equinox as eqx

    frozen = eqx.nn.inference_mode(module)
    params, static = eqx.partition(frozen, eqx.is_inexact_array)

    def apply(params: Any, *args: Any, **kwargs: Any) -> Any:
        return jax.vmap(eqx.combine(params, static))(*args, **kwargs)

    return _from_tree(apply, params, type(module).__qualname__, repr(module))
