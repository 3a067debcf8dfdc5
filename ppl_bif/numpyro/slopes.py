"""Derivatives of log-likelihoods at given weights: of single rows, of all, and of second order."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from ppl_bif.data import Batch, batches, map_arrays, num_rows, stacked
from ppl_bif.kernel import ROWS_OF_A_GRADIENT, fewer_rows, gradients_at_once
from ppl_bif.numpyro.alike import Alike
from ppl_bif.numpyro.model import Held, LocalizedModel

__all__ = ["Slopes"]


class Slopes:
    """Derivatives on the device of a model; see :class:`ppl_bif.kernel.Slopes`."""

    def __init__(self, model: LocalizedModel, data: Mapping[str, Batch]) -> None:
        self.model = model
        self._of = Alike(model), model.held
        placed = {name: map_arrays(self._place, batch) for name, batch in data.items()}
        self._train = placed["train"]
        logits = max(map(model.logits_per_row, placed.values()))
        self._size = model.rows_at_once or fewer_rows(ROWS_OF_A_GRADIENT, logits)
        self._parts = {name: list(batches(batch, self._size)) for name, batch in placed.items()}
        on_cpu = model.device.platform == "cpu"
        few, self._fewer = gradients_at_once(model.num_weights, logits, on_cpu=on_cpu)
        self._few = {name: list(batches(batch, few)) for name, batch in placed.items()}

    @property
    def rows(self) -> int:
        """Number of training rows."""
        return num_rows(self._train)

    def log_likelihood(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the log-likelihoods of a group's rows at some weights, ``(row,)``."""
        at = self._weights(weights)
        return np.concatenate([_scores(*self._of, at, part) for part in self._parts[name]])

    def gradients(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the rows' gradients, means over points, ``(row, d)``."""
        return stacked(self._means(name, weights), sum(map(num_rows, self._few[name])))

    def along(self, name: str, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of these with directions, ``(direction, row)``."""
        towards = self._weights(directions)
        parts = [np.asarray(towards @ mean.T) for mean in self._means(name, weights)]
        return np.concatenate(parts, axis=1)

    def uphill(self, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of the potential's gradients with directions, ``(point, direction)``."""
        towards = self._weights(directions)
        found = []
        for at in self._weights(weights):
            slope = _pull(*self._of, at)
            for part in self._parts["train"]:
                slope += _slope(*self._of, at, part)
            found.append(np.asarray(towards @ slope))
        return np.stack(found)

    def hessian(self, weights: np.ndarray, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the product with the mean Hessian over points of the tempered loss."""
        points, scale = self._weights(weights), self.rows / rows.size
        cuts = list(range(self._size, rows.shape[1], self._size))
        parts = [self._place(part) for part in np.split(rows, cuts, axis=1)]

        def product(vector: np.ndarray) -> np.ndarray:
            along, total = self._weights(vector), 0.0
            for part in parts:
                for at, seen in zip(points, part, strict=True):
                    total += _image(*self._of, at, self._train, seen, along)
            return scale * np.asarray(total)

        return product

    def _place(self, array: Any) -> Array:
        return jax.device_put(array, self.model.data_place)

    def _weights(self, array: np.ndarray) -> Array:
        return self._place(np.asarray(array, self.model.dtype))

    def _means(self, name: str, weights: np.ndarray) -> Iterator[Array]:
        """Give the mean gradients of some rows after others, ``(row, d)``."""
        at = self._weights(weights)
        for part in self._few[name]:
            yield jnp.concatenate([self._mean(some, at) for some in batches(part, self._fewer)])

    def _mean(self, batch: Batch, at: Array) -> Array:
        return sum(_row_slopes(*self._of, point, batch) for point in at) / len(at)


# Called point by point: XLA's convolutions on a CPU are several times slower inside a loop.


@partial(jax.jit, static_argnums=0)
def _scores(model: Alike, held: Held, at: Array, batch: Batch) -> Array:
    """Log-likelihoods of rows, tokens summed, ``(row,)``."""
    own = model.of.holding(held)
    found = own.log_likelihood(ravel_pytree(dict(own.mode))[1](at), batch)
    return found.reshape(len(found), -1).sum(axis=1)


@partial(jax.jit, static_argnums=0)
def _row_slopes(model: Alike, held: Held, at: Array, batch: Batch) -> Array:
    """Gradients of rows, ``(row, d)``."""

    def of_row(row: Batch) -> Array:
        alone = map_arrays(lambda a: a[None], row)
        return jax.grad(lambda w: _scores(model, held, w, alone).sum())(at)

    return jax.vmap(of_row)(batch)


@partial(jax.jit, static_argnums=0)
def _slope(model: Alike, held: Held, at: Array, batch: Batch) -> Array:
    """Gradient of the tempered loss, ``(d,)``."""
    beta = model.of.inverse_temperature
    return jax.grad(lambda w: -beta * _scores(model, held, w, batch).sum())(at)


@partial(jax.jit, static_argnums=0)
def _pull(model: Alike, held: Held, at: Array) -> Array:
    """Gradient of the prior's part of the potential, ``(d,)``."""
    own = model.of.holding(held)
    return own.precision * (at - ravel_pytree(dict(own.mode))[0])


@partial(jax.jit, static_argnums=0)
def _image(model: Alike, held: Held, at: Array, train: Batch, rows: Array, vector: Array) -> Array:
    """Image of a vector under the Hessian of the tempered loss of some rows, ``(d,)``."""
    seen = map_arrays(lambda a: a[rows], train)
    return jax.jvp(lambda w: _slope(model, held, w, seen), (at,), (vector,))[1]
