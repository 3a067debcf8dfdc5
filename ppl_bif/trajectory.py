"""One question asked of a network at several times of its training, by the same sampling."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.errors import BIFError, StoreError
from ppl_bif.sampling import sample
from ppl_bif.schema import along, root_attrs
from ppl_bif.scores import influence

__all__ = ["over_checkpoints"]

Estimate = Callable[[Any], xr.Dataset]


def over_checkpoints(
    models: Mapping[Any, Any],
    *,
    estimate: Estimate | Mapping[str, Estimate] = influence,
    store: Any = None,
    **settings: Any,
) -> Any:
    """Sample around each of some checkpoints, and estimate the same at all of them.

    Data, seed, settings, localization and inverse temperature are those of every checkpoint, so
    that what differs is the weights. A localization that is left open is found for the **last**
    checkpoint and taken for all; steps and warm-up are each checkpoint's own.

    Parameters
    ----------
    models
        By name or number of the training step, in order: what :func:`ppl_bif.sample` takes, the
        localized model of each checkpoint's weights, or a kernel on it.
    estimate
        What to make of each run: :func:`ppl_bif.influence`,
        :func:`ppl_bif.learning_coefficient`, or any function that gives a Dataset. A mapping of
        several asks them all of the same runs.
    store
        Folder or address under which each checkpoint has a store of its own, ``NAME.zarr``: the
        same call finds the finished ones again and goes on where it was left.
    settings
        Of :func:`ppl_bif.sample`: ``train``, ``query``, ``train_ids``, ``chains``, ``draws`` ...

    Returns
    -------
    xarray.Dataset, or a dict of them
        What ``estimate`` gives, with a dim ``checkpoint`` first, in the order of ``models``; a dict
        of such for a mapping. Rows are aligned by their ids, attributes are those that all have.
        A checkpoint whose chains diverged, or whose run did not sample its posterior, which is
        common before a network fits anything, is NaN (False), and named in the attribute
        ``left_out``. As the seed is the same, so is much of the noise: two checkpoints agree better
        than two seeds would, and their difference is often known better than their errors say.

    Raises
    ------
    ValueError
        If there are no checkpoints, they differ in anything but weights, or a name holds "/".
    BIFError
        If the last checkpoint, or every one, cannot be sampled.
    StoreError
        As :func:`ppl_bif.sample`.

    Warns
    -----
    UserWarning
        If a checkpoint is left out, with the reason.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import ppl_bif as bif
    >>> from ppl_bif.numpyro import localize
    >>> weights = {0: jnp.zeros(2), 100: jnp.ones(2)}
    >>> models = {
    ...     step: localize(lambda p, x: x @ p["w"], {"w": w}, likelihood="normal")
    ...     for step, w in weights.items()
    ... }
    >>> data = (jnp.eye(8)[:, :2], jnp.ones(8))
    >>> scores = bif.over_checkpoints(models, train=data, query=data, draws=50)
    >>> dict(scores["influence"].sizes)
    {'checkpoint': 2, 'query': 8, 'train': 8}
    """
    names = _names(models)
    asked = estimate if isinstance(estimate, Mapping) else {"": estimate}
    found: dict[str, dict[Any, xr.Dataset]] = {of: {} for of in asked}
    left_out: dict[Any, str] = {}
    gamma: float | None = None
    # The last one first, whose localization is that of all.
    for name in reversed(names):
        model = models[name] if gamma is None else _with(models[name], gamma)
        where = None if store is None else f"{store}/{name}.zarr"
        try:
            run = sample(model, store=where, **settings)
            gamma = root_attrs(run)["localization"]
            estimates = {of: function(run) for of, function in asked.items()}
        except StoreError:
            raise
        except BIFError as error:
            if gamma is None:
                raise
            left_out[name] = str(error)
            continue
        for of, one in estimates.items():
            found[of][name] = one
    _tell(left_out, names)
    several = {of: _joined(parts, names) for of, parts in found.items()}
    return several if isinstance(estimate, Mapping) else several[""]


def _model(one: Any) -> Any:
    """Return the localized model of a kernel, or of itself."""
    return one.model if hasattr(one, "bind") else one


def _with(one: Any, localization: float) -> Any:
    """Return a model, or a kernel on it, with this localization."""
    model = _model(one).resolve(localization)
    return one.on(model) if hasattr(one, "bind") else model


def _names(models: Mapping[Any, Any]) -> list[Any]:
    """Check that checkpoints differ in their weights only; return their names."""
    names = list(models)
    if not names:
        raise ValueError("models must hold at least one checkpoint")
    if any("/" in str(name) for name in names):
        raise ValueError(f"names of checkpoints must not contain '/'; got {names}")
    first = _described(models[names[0]])
    for name in names[1:]:
        other = _described(models[name])
        differ = [k for k in first | other if first.get(k) != other.get(k)]
        if differ:
            said = "; ".join(f"{k}: {first.get(k)!r}, {other.get(k)!r}" for k in differ)
            raise ValueError(
                f"checkpoints {names[0]!r} and {name!r} must differ in their weights only ({said})"
            )
    return names


def _described(one: Any) -> dict[str, Any]:
    model = _model(one)
    kernel = dict(one.settings) if hasattr(one, "bind") else {}
    shapes = {name: tuple(w.shape) for name, w in model.mode.items()}
    return {**model.settings, **kernel, "sampled weights": shapes}


def _tell(left_out: Mapping[Any, str], names: Sequence[Any]) -> None:
    if len(left_out) == len(names):
        raise BIFError(f"no checkpoint could be sampled: {left_out}")
    for name in (one for one in names if one in left_out):
        warnings.warn(f"checkpoint {name!r} is left out: {left_out[name]}", stacklevel=3)


def _joined(parts: Mapping[Any, xr.Dataset], names: Sequence[Any]) -> xr.Dataset:
    """Put checkpoints after each other, those that are missing as NaN."""
    joined = along("checkpoint", {name: parts[name] for name in names if name in parts})
    fill = {str(k): False if of.dtype == bool else np.nan for k, of in joined.data_vars.items()}
    joined = joined.reindex(checkpoint=names, fill_value=fill)
    return joined.assign_attrs(left_out=[str(name) for name in names if name not in parts])
