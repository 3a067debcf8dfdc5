"""Weights that lie on several devices: everything of their shape lies as they do.

Arrays with a ``NamedSharding`` over a mesh keep it from ``localize`` to the last draw: w*, weights,
gradients and noise. Data are on every device of the mesh. XLA adds what the devices have to tell
each other; JAX draws the same random numbers however they are laid out.
"""

from collections.abc import Mapping

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

__all__ = ["constrained", "everywhere", "laid_out", "shardings"]

Shardings = dict[str, NamedSharding]


def shardings(weights: Mapping[str, Array]) -> Shardings:
    """Return how weights lie on a mesh; empty where they are on one device.

    Raises
    ------
    ValueError
        If only some of them lie on a mesh, or not all on the same.
    """
    if all(len(w.devices()) == 1 for w in weights.values()):
        return {}
    found = {name: w.sharding for name, w in weights.items()}
    alone = [name for name, lies in found.items() if not isinstance(lies, NamedSharding)]
    if alone or len({lies.mesh for lies in found.values()}) > 1:
        raise ValueError(
            "weights on several devices must all have a NamedSharding over one mesh, also those "
            "that every device is to hold (PartitionSpec()): pass them through "
            f"jax.device_put(params, shardings); got others for {alone[:5] or list(found)[:5]}"
        )
    return {name: _whole(found[name], w.ndim) for name, w in weights.items()}


def laid_out(weights: Mapping[str, Array], laid: Shardings) -> dict[str, Array]:
    """Return weights on the meshes of :func:`shardings`; nothing moves."""
    return {name: jax.device_put(w, laid[name]) if laid else w for name, w in weights.items()}


def everywhere(sharding: Sharding) -> Sharding:
    """Return the same device, or all of the same mesh, for arrays that are not cut."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec())


def constrained(laid: Shardings, weights: dict[str, Array]) -> dict[str, Array]:
    """Keep weights, with or without a leading chain axis, as the trained ones lie."""
    if not laid:
        return weights
    return {
        name: jax.lax.with_sharding_constraint(w, _lifted(laid[name], w))
        for name, w in weights.items()
    }


def _whole(sharding: NamedSharding, axes: int) -> NamedSharding:
    """Name all axes, of which a specification may leave out the last.

    The mesh is one whose axes the compiler sees to, as a network knows nothing of them.
    """
    rest = (None,) * (axes - len(sharding.spec))
    mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
    return NamedSharding(mesh, PartitionSpec(*sharding.spec, *rest))


def _lifted(sharding: NamedSharding, array: Array) -> NamedSharding:
    """Leave axes before those of the trained weight whole."""
    before = (None,) * (array.ndim - len(sharding.spec))
    return NamedSharding(sharding.mesh, PartitionSpec(*before, *sharding.spec))
