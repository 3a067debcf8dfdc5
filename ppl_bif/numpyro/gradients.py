"""Gradient estimators: unbiased estimates of the gradient of the potential, with their noise.

Each is a small record that a kernel is built with. ``prepare`` computes what is stored once, at
the trained weights; calling it gives an :class:`Estimate` at others.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.checks import whole
from ppl_bif.data import map_arrays, num_rows
from ppl_bif.kernel import check_batch_size
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.potential import potential

__all__ = [
    "ControlVariates",
    "Data",
    "Estimate",
    "FullBatch",
    "GradientEstimator",
    "Minibatch",
    "Partition",
]

Weights = Mapping[str, Array]


class Data(NamedTuple):
    """All of the training data, as the model takes it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def rows(self) -> int:
        """Number of rows, n."""
        return num_rows(self.kwargs or self.args)

    def take(self, rows: Array) -> Any:
        """Return some rows as a batch."""
        return map_arrays(lambda a: jnp.asarray(a)[rows], self.kwargs or self.args)


class Estimate(NamedTuple):
    """An estimate of the gradient of the potential.

    Attributes
    ----------
    gradient
        By site, shaped like the weights.
    loss
        Mean loss of the rows seen, ``()``.
    noise
        Estimated total variance of ``gradient`` over minibatches, ``()``; NaN where not measured.
    log_likelihood
        Of every training row, ``(row,)`` or ``(row, token)``, where the estimate saw them all.
    """

    gradient: dict[str, Array]
    loss: Array
    noise: Array
    log_likelihood: Array | None = None


class GradientEstimator(Protocol):
    """What kernels ask of an estimator."""

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        ...

    def rows(self, total: int) -> int:
        """Return of how many of all rows a call takes gradients."""
        ...

    def prepare(self, model: LocalizedModel, data: Data) -> Any:
        """Return what is stored from w*, arrays in a tree."""
        ...

    def __call__(
        self,
        model: LocalizedModel,
        stored: Any,
        key: Array,
        weights: Weights,
        data: Data,
        *,
        measure: bool,
    ) -> Estimate:
        """Estimate the gradient; its noise too if ``measure``."""
        ...


class FullBatch(NamedTuple):
    """The exact gradient, accumulated over consecutive batches; gives the rows' log-likelihoods.

    Attributes
    ----------
    batch_size
        Rows held at once, which bounds memory and changes nothing else; at most 2,048 by default.
    """

    batch_size: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        return {"gradient": "full", "batch_size": self.batch_size}

    def rows(self, total: int) -> int:
        """Return of how many of all rows a call takes gradients."""
        return total

    def prepare(self, model: LocalizedModel, data: Data) -> Any:
        """Store nothing."""
        return ()

    def __call__(
        self,
        model: LocalizedModel,
        stored: Any,
        key: Array,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Compute the gradient."""
        size = min(self.batch_size or 2048, data.rows)
        if size == data.rows:
            gradient, values = _gradient(model, weights, data)
        else:
            gradient, values = _accumulate(model, weights, data, size)
        zero = jnp.zeros((), values.dtype)
        return Estimate(gradient, -_per_row(values).mean(), zero, values)


class Minibatch(NamedTuple):
    """The gradient of a fresh minibatch, drawn without replacement (Welling & Teh 2011).

    Attributes
    ----------
    batch_size
        m.
    """

    batch_size: int

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        return {"gradient": "minibatch", "batch_size": self.batch_size}

    def rows(self, total: int) -> int:
        """Return of how many of all rows a call takes gradients."""
        return min(self.batch_size, total)

    def prepare(self, model: LocalizedModel, data: Data) -> Any:
        """Store nothing; refuse a batch larger than the data."""
        check_batch_size(self.batch_size, data.rows)
        return ()

    def __call__(
        self,
        model: LocalizedModel,
        stored: Any,
        key: Array,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Estimate the gradient from rows of their own at every call."""
        if self.batch_size == data.rows:
            return FullBatch()(model, stored, key, weights, data)
        rows = _draw(key, data.rows, self.batch_size)

        def part(rows: Array) -> tuple[dict[str, Array], Array]:
            gradient, values = _gradient(model, weights, data, rows)
            return gradient, -_per_row(values).mean()

        return _measured(part, rows, data.rows, measure)


class ControlVariates(NamedTuple):
    """Minibatch differences from w*, added to the full gradient there (Baker et al. 2019).

    The noise falls with the distance from w*, at twice the cost of a minibatch.

    Attributes
    ----------
    batch_size
        m.
    """

    batch_size: int

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        return {"gradient": "control_variates", "batch_size": self.batch_size}

    def rows(self, total: int) -> int:
        """Return of how many of all rows a call takes gradients."""
        return min(2 * self.batch_size, total)

    def prepare(self, model: LocalizedModel, data: Data) -> Any:
        """Store the full gradient at w*."""
        check_batch_size(self.batch_size, data.rows)
        return FullBatch()(model, (), jax.random.key(0), model.mode, data).gradient

    def __call__(
        self,
        model: LocalizedModel,
        stored: Any,
        key: Array,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Estimate the gradient as g(w*) + g_B(w) - g_B(w*)."""
        rows = _draw(key, data.rows, self.batch_size)

        def part(rows: Array) -> tuple[dict[str, Array], Array]:
            here, values = _gradient(model, weights, data, rows)
            there, _ = _gradient(model, model.mode, data, rows)
            moved = {name: stored[name] + here[name] - there[name] for name in here}
            return moved, -_per_row(values).mean()

        return _measured(part, rows, data.rows, measure)


class _Stored(NamedTuple):
    """Rows ``(batch, m)`` of a fixed partition, which of them count, and their gradients at w*."""

    rows: Array
    counted: Array
    gradients: dict[str, Array]
    total: dict[str, Array]


class Partition(NamedTuple):
    """Minibatches of a fixed partition, each centred by its own stored gradient at w*.

    A control variate that costs no second gradient: memory n/m times the weights instead. With
    K batches, the estimate is G(w*) + K [g_b(w) - g_b(w*)] + gamma (w - w*), b drawn uniformly.

    Attributes
    ----------
    batch_size
        m, rows in a batch; n/m gradients are stored.
    recentre
        Leave out G(w*), the full gradient at the trained weights. w* is then the mode even where
        training stopped short of one: the posterior of the loss without its slope at w*.
    """

    batch_size: int
    recentre: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        return {
            "gradient": "partition",
            "batch_size": self.batch_size,
            "recentre": self.recentre,
        }

    def rows(self, total: int) -> int:
        """Return of how many of all rows a call takes gradients."""
        return min(self.batch_size, total)

    def prepare(self, model: LocalizedModel, data: Data) -> _Stored:
        """Cut the rows into batches and store the gradient of each at w*."""
        check_batch_size(whole("batch_size", self.batch_size), data.rows)
        batches = -(-data.rows // self.batch_size)
        order = jax.random.permutation(jax.random.key(0), data.rows)
        # The last batch is filled up with rows that do not count.
        padded = jnp.resize(order, (batches * self.batch_size,)).reshape(batches, -1)
        counted = (jnp.arange(padded.size) < data.rows).reshape(padded.shape)

        def one(batch: tuple[Array, Array]) -> dict[str, Array]:
            return _sum_gradient(model, model.mode, data, *batch)[0]

        gradients = jax.lax.map(one, (padded, counted))
        total = {name: g.sum(0) * (not self.recentre) for name, g in gradients.items()}
        return _Stored(padded, counted, gradients, total)

    def __call__(
        self,
        model: LocalizedModel,
        stored: _Stored,
        key: Array,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Estimate the gradient from one batch of the partition; from two if ``measure``."""
        batches = len(stored.rows)
        first, step = jax.random.randint(
            key, (2,), jnp.array([0, 1]), jnp.array([batches, batches])
        )

        def change(b: Array) -> tuple[dict[str, Array], Array]:
            gradient, loss = _sum_gradient(model, weights, data, stored.rows[b], stored.counted[b])
            return {n: batches * (g - stored.gradients[n][b]) for n, g in gradient.items()}, loss

        found, loss = change(first)
        noise = jnp.full((), jnp.nan, loss.dtype)
        if measure and batches > 1:
            other, _ = change((first + step) % batches)
            # Half the squared difference of two batches, drawn without replacement.
            squares = sum(jnp.sum((found[n] - other[n]) ** 2) for n in found)
            noise = squares / 2 * (1 - 1 / batches)
        gamma = model.precision
        gradient = {
            n: stored.total[n] + g + gamma * (weights[n] - model.mode[n]) for n, g in found.items()
        }
        return Estimate(gradient, loss, noise)


def _gradient(
    model: LocalizedModel, weights: Weights, data: Data, rows: Array | None = None
) -> tuple[dict[str, Array], Array]:
    """Gradient of the potential and the log-likelihoods of the rows seen."""

    def energy(values: Weights) -> tuple[Array, Array]:
        return potential(model, values, *data, rows)

    return jax.grad(energy, has_aux=True)(dict(weights))


def _accumulate(
    model: LocalizedModel, weights: Weights, data: Data, size: int
) -> tuple[dict[str, Array], Array]:
    whole_batches = data.rows // size
    rows = jnp.arange(whole_batches * size).reshape(whole_batches, size)

    # Each estimate is rescaled by n/m and holds the prior: weighted by m/n they add up.
    def add(total: Any, rows: Array) -> Any:
        gradient, values = _gradient(model, weights, data, rows)
        return {n: total[n] + len(rows) / data.rows * g for n, g in gradient.items()}, values

    total, values = jax.lax.scan(add, {n: jnp.zeros_like(w) for n, w in weights.items()}, rows)
    values = values.reshape(-1, *values.shape[2:])
    if rows.size < data.rows:
        total, last = add(total, jnp.arange(rows.size, data.rows))
        values = jnp.concatenate([values, last])
    return total, values


def _sum_gradient(
    model: LocalizedModel, weights: Weights, data: Data, rows: Array, counted: Array
) -> tuple[dict[str, Array], Array]:
    """Gradient of beta times the summed loss of some rows, and their mean loss."""

    def energy(values: Weights) -> tuple[Array, Array]:
        losses = -_per_row(model.log_likelihood(values, data.take(rows)))
        total = jnp.where(counted, losses, 0.0).sum()
        return model.inverse_temperature * total, total / counted.sum()

    return jax.grad(energy, has_aux=True)(dict(weights))


def _measured(part: Any, rows: Array, num_rows: int, measure: bool) -> Estimate:
    """Estimate from some rows; the noise, if asked for, from their two halves.

    The halves g1, g2 of sizes m1, m2 give Var(g) = (1 - m/n) m1 m2 / m^2 E||g1 - g2||^2, at the
    price of the one gradient.
    """
    size = len(rows)
    if not measure or size == 1:
        gradient, loss = part(rows)
        return Estimate(gradient, loss, jnp.full((), jnp.nan, loss.dtype))
    first = size // 2
    share = first / size
    (g1, loss1), (g2, loss2) = part(rows[:first]), part(rows[first:])
    squares = sum(jnp.sum((g1[name] - g2[name]) ** 2) for name in g1)
    return Estimate(
        {name: share * g1[name] + (1 - share) * g2[name] for name in g1},
        share * loss1 + (1 - share) * loss2,
        (1 - size / num_rows) * share * (1 - share) * squares,
    )


def _per_row(values: Array) -> Array:
    return values.reshape(len(values), -1).sum(1)


def _draw(key: Array, num_rows: int, batch_size: int) -> Array:
    # The largest of n uniforms are a uniform subset, several times quicker than a permutation.
    return jax.lax.top_k(jax.random.uniform(key, (num_rows,)), batch_size)[1]
