"""Variables of a run as rows with ids: dims stacked, several variables one after another."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

__all__ = ["Rows", "as_rows", "refuse_other_draws", "spread_over", "together"]

DRAWS = ("chain", "draw")


class Rows(NamedTuple):
    """A variable, or several, as rows.

    Attributes
    ----------
    array
        With dims chain, draw, ``dim``, and tokens if there are any.
    ids
        Of the rows.
    dim
        Along which the rows lie.
    axes
        Of each variable, the sizes of the dims that its rows come from, by name.
    """

    array: xr.DataArray
    ids: np.ndarray
    dim: str
    axes: tuple[dict[str, int], ...]


def as_rows(array: xr.DataArray, role: str) -> Rows:
    """Lay the elements of a variable out as rows.

    Rows of one dim have its coordinate as ids; of several, their coordinates with a comma between.

    Parameters
    ----------
    array
        With dims chain, draw, and others.
    role
        What a single row without a dim lies along.

    Raises
    ------
    ValueError
        If chain or draw is missing.

    Examples
    --------
    >>> array = xr.DataArray(np.zeros((1, 2, 2, 2)), {"year": [1999, 2000]}, ["chain", "draw",
    ...     "school", "year"], "y")
    >>> as_rows(array, "train").ids.tolist()
    ['0,1999', '0,2000', '1,1999', '1,2000']
    """
    if set(DRAWS) - set(array.dims):
        raise ValueError(f"{array.name!r} must have dims chain and draw; it has {array.dims}")
    own = [d for d in array.dims if d not in DRAWS and not str(d).endswith("_token")]
    axes = {str(d): array.sizes[d] for d in own}
    if not own:
        return Rows(array.expand_dims({role: [array.name]}), np.array([array.name]), role, (axes,))
    if len(own) == 1:
        return Rows(array, array[own[0]].values, str(own[0]), (axes,))
    labels = {d: array[d].values for d in own}
    dim = "_".join(axes)
    flat = array.assign_coords(labels).stack({dim: own}, create_index=False)
    ids = [",".join(map(str, at)) for at in product(*labels.values())]
    return Rows(flat, np.array(ids), dim, (axes,))


def together(arrays: Sequence[xr.DataArray], role: str) -> Rows:
    """Lay the rows of several variables one after another, their ids with the variable's name.

    Coordinates that all have stay with the rows, and ``variable`` says which one each comes from.

    Raises
    ------
    ValueError
        If there is none, a name is there twice, their chains or draws are not the same, or one has
        tokens.
    """
    names = [str(array.name) for array in arrays]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"several variables are named once each, and at least one; got {names}")
    found = [as_rows(array, role) for array in arrays]
    for name, one in zip(names, found, strict=True):
        if one.array.ndim > 3:
            raise ValueError(f"{name!r} holds tokens, which do not stand beside other variables")
        refuse_other_draws(one.array, found[0].array)
    ids = [
        name if len(one.ids) == 1 and str(one.ids[0]) == name else f"{name}[{i}]"
        for name, one in zip(names, found, strict=True)
        for i in one.ids
    ]
    flat = [
        one.array.drop_vars(list(one.array.coords)).rename({one.dim: role}).transpose(*DRAWS, role)
        for one in found
    ]
    known = [_along(one) | {"variable": np.full(len(one.ids), one.array.name)} for one in found]
    shared = [name for name in known[0] if name != role and all(name in one for one in known)]
    array = xr.concat(flat, role).rename(", ".join(names))
    return Rows(
        array.assign_coords({n: (role, np.concatenate([one[n] for one in known])) for n in shared}),
        np.array(ids),
        role,
        tuple(axes for one in found for axes in one.axes),
    )


def _along(rows: Rows) -> dict[str, np.ndarray]:
    """Return the coordinates along rows."""
    coords = rows.array.coords.items()
    return {str(name): values.values for name, values in coords if values.dims == (rows.dim,)}


def spread_over(values: xr.DataArray, axes: Sequence[Mapping[str, int]]) -> np.ndarray:
    """Give each row its value of what is known along some of the dims that rows come from.

    Values along other dims are returned as they are.

    Examples
    --------
    >>> region = xr.DataArray(["north", "south"], dims="school")
    >>> spread_over(region, [{"school": 2, "year": 2}]).tolist()
    ['north', 'north', 'south', 'south']
    """
    if not all(set(values.dims) <= set(of) for of in axes):
        return np.asarray(values.values)
    parts = []
    for of in axes:
        shape = [size if dim in values.dims else 1 for dim, size in of.items()]
        own = values.transpose(*(dim for dim in of if dim in values.dims)).values
        parts.append(np.broadcast_to(own.reshape(shape), tuple(of.values())).ravel())
    return np.concatenate(parts)


def refuse_other_draws(one: xr.DataArray, other: xr.DataArray) -> None:
    """Raise ValueError where two variables are not of the same chains and draws."""
    for dim in DRAWS:
        same = one.sizes[dim] == other.sizes[dim]
        if same and dim in one.coords and dim in other.coords:
            same = bool((one[dim].values == other[dim].values).all())
        if not same:
            raise ValueError(
                f"{one.name!r} and {other.name!r} are of other draws: {_draws(one)}, and "
                f"{_draws(other)}; take the same of both, such as posterior.sel(draw=...)"
            )


def _draws(array: xr.DataArray) -> str:
    def of(dim: Any) -> str:
        if dim not in array.coords:
            return str(array.sizes[dim])
        labels = array[dim].values
        return f"{len(labels)} ({labels[0]} ... {labels[-1]})"

    return f"chains {of('chain')}, draws {of('draw')}"
