"""Gradient estimators: unbiased estimates of the gradient of the potential, with their noise.

Each is a small record that a kernel is built with. ``prepare`` computes what is stored once, at
the trained weights; calling it gives an :class:`Estimate` at others.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.checks import whole
from ppl_bif.data import Batch, map_arrays, num_rows
from ppl_bif.kernel import ROWS_OF_A_GRADIENT, check_batch_size, fewer_rows
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.noise import noise_of_halves, sketch, squared_distance
from ppl_bif.numpyro.precision import in_dtype
from ppl_bif.numpyro.rows import draw_rows

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
Found = tuple[dict[str, Array], Array]


class Data(NamedTuple):
    """All of the training data, as the model takes it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, batch: Batch) -> "Data":
        """Take a batch of all rows, by position or by name."""
        return cls((), batch) if isinstance(batch, dict) else cls(batch, {})

    @property
    def batch(self) -> Any:
        """All rows as one batch."""
        return self.kwargs or self.args

    @property
    def rows(self) -> int:
        """Number of rows, n."""
        return num_rows(self.batch)

    def take(self, rows: Array) -> Any:
        """Return some rows as a batch."""
        return map_arrays(lambda a: jnp.asarray(a)[rows], self.batch)


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
        """Return of how many of all rows a call takes gradients; refuse too few."""
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
        measure: Any,
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
        measure: Any = False,
    ) -> Estimate:
        """Compute the gradient."""
        size = self.batch_size or model.rows_at_once
        size = size or fewer_rows(ROWS_OF_A_GRADIENT, model.logits_per_row(data.batch))
        found, values = _slope(model, weights, data, size=size)
        zero = jnp.zeros((), values.dtype)
        gradient = _with_prior(model, weights, found)
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
        check_batch_size(self.batch_size, total)
        return self.batch_size

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
        measure: Any = False,
    ) -> Estimate:
        """Estimate the gradient from rows of their own at every call."""
        if self.batch_size == data.rows:
            return FullBatch()(model, stored, key, weights, data)
        rows = draw_rows(key, data.rows, self.batch_size)

        def part(rows: Array) -> Found:
            return _slope(model, weights, data, rows)

        estimate = _from_rows(part, weights, rows, data.rows, measure)
        times = data.rows / self.batch_size
        return estimate._replace(gradient=_with_prior(model, weights, estimate.gradient, times))


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
        check_batch_size(self.batch_size, total)
        return min(2 * self.batch_size, total)

    def prepare(self, model: LocalizedModel, data: Data) -> Any:
        """Store the full gradient at w*."""
        # At w* the prior has no slope.
        return FullBatch()(model, (), jax.random.key(0), model.mode, data).gradient

    def __call__(
        self,
        model: LocalizedModel,
        stored: Any,
        key: Array,
        weights: Weights,
        data: Data,
        *,
        measure: Any = False,
    ) -> Estimate:
        """Estimate the gradient as $g(w^*) + g_B(w) - g_B(w^*)$."""
        rows = draw_rows(key, data.rows, self.batch_size)

        def part(rows: Array) -> Found:
            here, values = _slope(model, weights, data, rows)
            there, _ = _slope(model, model.mode, data, rows)
            return {name: g - there[name] for name, g in here.items()}, values

        estimate = _from_rows(part, weights, rows, data.rows, measure)
        times = data.rows / self.batch_size
        moved = _with_prior(model, weights, estimate.gradient, times)
        return estimate._replace(gradient={n: g + stored[n] for n, g in moved.items()})


class _Stored(NamedTuple):
    """Rows ``(batch, m)`` of a fixed partition, which of them count, and their gradients at w*."""

    rows: Array
    counted: Array
    gradients: dict[str, Array]
    total: dict[str, Array]


class Partition(NamedTuple):
    r"""Minibatches of a fixed partition, each centred by its own stored gradient at w*.

    A control variate that costs no second gradient: memory n/m times the weights instead. With
    K batches, the estimate is $G(w^*) + K\, [g_b(w) - g_b(w^*)] + \gamma (w - w^*)$, b drawn
    uniformly.

    Attributes
    ----------
    batch_size
        m, rows in a batch; n/m gradients are stored.
    recentre
        Leave out $G(w^*)$, the full gradient at the trained weights, which are then the mode even
        where training stopped short of one: the posterior of the loss without its slope there.
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
        check_batch_size(whole("batch_size", self.batch_size), total)
        return self.batch_size

    def prepare(self, model: LocalizedModel, data: Data) -> _Stored:
        """Cut the rows into batches and store the gradient of each at w*."""
        batches = -(-data.rows // self.batch_size)
        order = jax.random.permutation(jax.random.key(0), data.rows)
        # The last batch is filled up with rows that do not count.
        padded = jnp.resize(order, (batches * self.batch_size,)).reshape(batches, -1)
        counted = (jnp.arange(padded.size) < data.rows).reshape(padded.shape)

        def one(batch: tuple[Array, Array]) -> dict[str, Array]:
            rows, counted = batch
            return _slope(model, model.mode, data, rows, counted)[0]

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
        measure: Any = False,
    ) -> Estimate:
        """Estimate the gradient from one batch of the partition; from two if ``measure``."""
        batches = len(stored.rows)
        first, step = jax.random.randint(
            key, (2,), jnp.array([0, 1]), jnp.array([batches, batches])
        )

        def change(b: Array) -> Found:
            counted = stored.counted[b]
            found, values = _slope(model, weights, data, stored.rows[b], counted)
            moved = {n: batches * (g - stored.gradients[n][b]) for n, g in found.items()}
            return moved, -_counted(values, counted).sum() / counted.sum()

        found, loss = change(first)

        def noise() -> Array:
            other, _ = change((first + step) % batches)
            # Half the squared difference of two batches, drawn without replacement.
            apart = squared_distance(sketch(found), sketch(other))
            return apart / 2 * (1 - 1 / batches)

        measured = _if(measure, noise, loss) if batches > 1 else loss * jnp.nan
        moved = {n: stored.total[n] + g for n, g in found.items()}
        return Estimate(_with_prior(model, weights, moved), loss, measured)


def _slope(
    model: LocalizedModel,
    weights: Weights,
    data: Data,
    rows: Array | None = None,
    counted: Array | None = None,
    *,
    size: int | None = None,
) -> Found:
    """Gradient of beta times the summed loss of some rows, and their log-likelihoods.

    All rows if None; of them only the ``counted`` ones are summed, and ``size`` are held at once.
    """
    size, total = size or model.rows_at_once, data.rows if rows is None else len(rows)
    if size is None or total <= size:
        batch = data.batch if rows is None else data.take(rows)
        return _at_once(model, weights, batch, counted)
    rows = jnp.arange(total) if rows is None else rows
    return _accumulate(model, weights, data, rows, counted, size)


def _at_once(
    model: LocalizedModel, weights: Weights, batch: Any, counted: Array | None = None
) -> Found:
    def energy(values: Weights) -> tuple[Array, Array]:
        found = model.log_likelihood(values, batch)
        return -model.inverse_temperature * _counted(found, counted).sum(), found

    # By the casts, whose gradients are half as large.
    slope, found = jax.grad(energy, has_aux=True)(model.cast(weights))
    return in_dtype(slope, model.dtype), found


def _with_prior(
    model: LocalizedModel, weights: Weights, slope: Weights, times: float = 1.0
) -> dict[str, Array]:
    """Return ``times`` a slope plus that of the prior, gamma (w - w*)."""
    gamma, mode = model.precision, model.mode
    return {n: times * g + gamma * (weights[n] - mode[n]) for n, g in slope.items()}


def _accumulate(
    model: LocalizedModel,
    weights: Weights,
    data: Data,
    rows: Array,
    counted: Array | None,
    size: int,
) -> Found:
    even = len(rows) // size * size
    given = (rows,) if counted is None else (rows, counted)
    parts = tuple(one[:even].reshape(-1, size) for one in given)

    def add(total: Any, part: tuple[Array, ...]) -> Any:
        slope, values = _at_once(model, weights, data.take(part[0]), *part[1:])
        return {n: total[n] + g for n, g in slope.items()}, values

    total, values = jax.lax.scan(add, {n: jnp.zeros_like(w) for n, w in weights.items()}, parts)
    values = values.reshape(-1, *values.shape[2:])
    if even < len(rows):
        total, last = add(total, tuple(one[even:] for one in given))
        values = jnp.concatenate([values, last])
    return total, values


def _from_rows(
    part: Callable[[Array], Found], weights: Weights, rows: Array, num_rows: int, measure: Any
) -> Estimate:
    """Sum over some rows; measure the noise of n/m times it, if asked for, by their first half."""
    size = len(rows)
    first = sketch(weights)
    if size > 1:
        first = _if(measure, lambda: sketch(part(rows[: size // 2])[0]), first)
    # One gradient at a time: the whole one waits for what is kept of that of the first half.
    rows, first = jax.lax.optimization_barrier((rows, first))
    found, values = part(rows)
    loss = -_per_row(values).mean()

    def noise() -> Array:
        return noise_of_halves(first, sketch(found), size=size, num_rows=num_rows)

    return Estimate(found, loss, _if(measure, noise, loss) if size > 1 else loss * jnp.nan)


def _if(measure: Any, found: Callable[[], Any], like: Any) -> Any:
    """Measure something, or give NaN."""
    unknown = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), like)
    # Weights are copied into a branch of a compiled program: there is none where it is known.
    if isinstance(measure, bool):
        return found() if measure else unknown
    return jax.lax.cond(measure, found, lambda: unknown)


def _counted(values: Array, counted: Array | None) -> Array:
    """Log-likelihoods per row, 0 for rows that do not count."""
    rows = _per_row(values)
    return rows if counted is None else jnp.where(counted, rows, 0.0)


def _per_row(values: Array) -> Array:
    return values.reshape(len(values), -1).sum(1)
