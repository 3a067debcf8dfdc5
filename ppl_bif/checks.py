"""Checks of settings and of what a network gives, with errors that say what to do."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from ppl_bif.data import Batch, arrays, inputs, map_arrays, target
from ppl_bif.text import IGNORED

__all__ = [
    "check_compute_dtype",
    "check_finite_weights",
    "check_outputs",
    "check_targets",
    "positive",
    "whole",
]

LIKELIHOODS = ("categorical", "bernoulli", "normal", "tokens")
COMPUTE_DTYPES = ("bfloat16", "float16", "float32")


def positive(name: str, value: Any) -> float:
    """Return a setting as a float, or say that it must be positive and finite."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 < float(value) < float("inf"):
        raise ValueError(f"{name} must be a positive number; got {value!r}")
    return float(value)


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """Return a setting as an int, or say that it must be a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
    return int(value)


def check_compute_dtype(name: Any) -> str | None:
    """Return the name of a type to compute with, or say which there are."""
    if name is not None and name not in COMPUTE_DTYPES:
        raise ValueError(f"compute_dtype must be None or one of {COMPUTE_DTYPES}; got {name!r}")
    return name


def check_finite_weights(weights: Mapping[str, np.ndarray], sampled: Collection[str]) -> None:
    """Say which weights are NaN or infinite, or are to be sampled and not floating point."""
    for name, value in weights.items():
        if name in sampled and not np.issubdtype(np.asarray(value).dtype, np.floating):
            raise TypeError(
                f"weight {name!r} must be floating point to be sampled; got {value.dtype}: leave "
                "it out by sites="
            )
        if not np.isfinite(value).all():
            raise ValueError(f"weight {name!r} holds NaN or infinity: is the network trained?")


def check_targets(likelihood: str, outputs: tuple[int, ...], batch: Batch, name: str) -> None:
    """Check targets against the outputs of the network, for the likelihoods known by name.

    Parameters
    ----------
    likelihood
        The name; others than the known ones are not checked.
    outputs
        Shape of the network's outputs, rows first.
    batch
        All rows of the data.
    name
        ``"train"`` or ``"query"``, for messages.
    """
    y = np.asarray(target(batch))
    if likelihood in ("categorical", "tokens"):
        _check_classes(likelihood, outputs, batch, name)
    elif likelihood in ("bernoulli", "normal") and outputs[1:] != y.shape[1:]:
        raise ValueError(
            f"likelihood {likelihood!r} expects targets shaped like the outputs; the network "
            f"gives (row, {_dims(outputs)}) and {name} has targets (row, {_dims(y.shape)}): "
            "squeeze the outputs or reshape the targets"
        )
    if likelihood == "bernoulli" and not np.isin(y, (0, 1)).all():
        raise ValueError(f"likelihood 'bernoulli' expects 0 and 1; {name} targets hold others")


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape[1:]))


def _check_shifted(y: np.ndarray, batch: Batch, name: str) -> None:
    """Refuse targets that repeat the inputs, as the networks of Hugging Face take them."""
    counted = y != IGNORED
    args, kwargs = inputs(batch)
    for given in (*args, *kwargs.values()):
        same = np.shape(given) == y.shape and counted.sum() > 1
        if same and (np.asarray(given)[counted] == y[counted]).all():
            raise ValueError(
                f"{name} targets are the inputs themselves: at each place they must hold the token "
                "that comes next, labels[:, :-1] = input_ids[:, 1:] (ppl_bif.text.encode does it)"
            )


def _check_classes(likelihood: str, outputs: tuple[int, ...], batch: Batch, name: str) -> None:
    y = np.asarray(target(batch))
    depth = 1 if likelihood == "categorical" else 2
    wanted = "(row, class)" if depth == 1 else "(row, token, vocabulary)"
    if len(outputs) != depth + 1:
        raise ValueError(
            f"likelihood {likelihood!r} expects outputs {wanted}; the network gives "
            f"(row, {_dims(outputs)})"
        )
    if y.ndim != depth or y.shape[1:] != outputs[1:-1]:
        raise ValueError(
            f"likelihood {likelihood!r} expects {name} targets {wanted.rsplit(',', 1)[0]}) that "
            f"match outputs (row, {_dims(outputs)}); got shape {y.shape}"
        )
    if y.dtype.kind not in "iu":
        raise TypeError(
            f"{name} targets must be integer classes; got dtype {y.dtype}: convert them first"
        )
    if likelihood == "tokens":
        _check_shifted(y, batch, name)
    known = y[y != IGNORED] if likelihood == "tokens" else y
    if known.size and (known.min() < 0 or known.max() >= outputs[-1]):
        raise ValueError(
            f"{name} targets must lie in 0 ... {outputs[-1] - 1}, as the network has "
            f"{outputs[-1]} outputs; got {known.min()} ... {known.max()}"
        )


def check_outputs(
    outputs: Callable[..., Any],
    pointwise: Callable[[Any, Batch], Any],
    likelihood: str,
    batch: Batch,
    name: str,
) -> None:
    """Run a network at its trained weights on a few rows and check what comes out.

    Two sizes are tried, so that a shape which is right by coincidence is seen.

    Raises
    ------
    ValueError
        If the network cannot be run on the data, targets do not fit the outputs, or the
        likelihood does not give one value per row (or per row and token).
    """
    shapes = []
    for rows in (2, 3):
        few = map_arrays(partial(_repeated_first, rows), batch)
        args, kwargs = inputs(few)
        try:
            out = outputs(*args, **kwargs)
        except Exception as error:
            raise ValueError(
                f"the network could not be run on {name} rows of shape "
                f"{ {k: a.shape[1:] for k, a in arrays(batch).items()} }: "
                f"{_first_line(error)}; pass data and weights of the shapes and dtypes it "
                "was trained on"
            ) from error
        if hasattr(out, "shape"):
            if not out.shape or out.shape[0] != rows:
                raise ValueError(
                    f"the network must give one output per row; {rows} {name} rows gave shape "
                    f"{tuple(out.shape)}"
                )
            check_targets(likelihood, tuple(out.shape), batch, name)
        shapes.append(_shape_of(pointwise, out, few, name))
    _check_pointwise(shapes, name)


def _shape_of(
    pointwise: Callable[[Any, Batch], Any], out: Any, batch: Batch, name: str
) -> tuple[int, ...]:
    try:
        return tuple(pointwise(out, batch).shape)
    except Exception as error:
        raise ValueError(
            f"the likelihood could not be evaluated on outputs {getattr(out, 'shape', type(out))} "
            f"and {name} targets {np.shape(target(batch))}: {_first_line(error)}; it must take "
            "(outputs) and give a distribution, or (outputs, batch) and give log-likelihoods"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _repeated_first(rows: int, array: np.ndarray) -> np.ndarray:
    return np.repeat(array[:1], rows, axis=0)


def _check_pointwise(shapes: list[tuple[int, ...]], name: str) -> None:
    two, three = shapes
    per_row = two == (2,) and three == (3,)
    per_token = len(two) == 2 and (two[0], three[0]) == (2, 3) and two[1] == three[1] > 1
    if not (per_row or per_token):
        raise ValueError(
            "the likelihood must give log-likelihoods (row,) or (row, token); for 3 rows of "
            f"{name} it gave shape {three}: squeeze the network's outputs, or sum over the extra "
            "axes (`.to_event(1)` for a distribution)"
        )
