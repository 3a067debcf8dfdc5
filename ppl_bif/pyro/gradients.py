"""Gradient estimators: unbiased estimates of the gradient of the potential, with their noise.

Each is a small record that a kernel is built with. ``prepare`` computes what is stored once, at
the trained weights; calling it gives an :class:`Estimate` at others. All chains move at once:
weights are ``(chain, ...)`` by site.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ppl_bif.checks import whole
from ppl_bif.data import Batch, map_arrays, num_rows
from ppl_bif.kernel import ROWS_OF_A_GRADIENT, check_batch_size, fewer_rows
from ppl_bif.pyro.chainwise import Chainwise
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.noise import noise_of_halves, sketch, squared_distance
from ppl_bif.pyro.precision import in_dtype
from ppl_bif.pyro.rows import draw_rows

__all__ = [
    "ControlVariates",
    "Data",
    "Estimate",
    "FullBatch",
    "GradientEstimator",
    "Gradients",
    "Minibatch",
    "Partition",
    "at_mode",
]

Weights = Mapping[str, Tensor]
Found = tuple[dict[str, Tensor], Tensor]
Function = Callable[[dict[str, Tensor]], Tensor]
Pull = Callable[[Tensor], Tensor]


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

    def take(self, rows: Tensor) -> Any:
        """Return some rows as a batch."""
        return map_arrays(lambda a: a[rows], self.batch)


class Estimate(NamedTuple):
    """An estimate of the gradient of the potential, for each chain.

    Attributes
    ----------
    gradient
        By site, ``(chain, ...)``.
    loss
        Mean loss of the rows seen, ``(chain,)``.
    noise
        Estimated total variance of ``gradient`` over minibatches, ``(chain,)``; NaN where not
        measured.
    log_likelihood
        Of every training row, ``(chain, row)`` or ``(chain, row, token)``, where the estimate saw
        them all.
    """

    gradient: dict[str, Tensor]
    loss: Tensor
    noise: Tensor
    log_likelihood: Tensor | None = None


class Gradients:
    """Gradients of a model, of all chains at once; made once, because it keeps what it traced."""

    def __init__(self, model: LocalizedModel) -> None:
        self.model = model
        self._slope = Chainwise(
            partial(_slope, model, _differentiated), one_by_one=model.convolves_on_cpu
        )
        self._of_one = Chainwise(partial(_slope, model, partial(_differentiated_alone, model)))

    def __call__(
        self,
        weights: Weights,
        data: Data,
        rows: Tensor | None = None,
        counted: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Found:
        """Gradient of beta times the summed loss of some rows, and their log-likelihoods.

        Rows are ``(m,)``, the same for all chains, or ``(chain, m)``; all if None. Of those of a
        chain, only the ``counted`` ones are summed, and ``size`` are held at once.
        """
        size = size or self.model.rows_at_once
        total = data.rows if rows is None else rows.shape[-1]
        if size is None or total <= size:
            return self._at_once(weights, data, rows, counted)
        if rows is None:
            rows = torch.arange(total, device=next(iter(weights.values())).device)
        return self._accumulated(weights, data, rows, counted, size)

    def _accumulated(
        self, weights: Weights, data: Data, rows: Tensor, counted: Tensor | None, size: int
    ) -> Found:
        parts = rows.split(size, dim=-1)
        which = [None] * len(parts) if counted is None else counted.split(size, dim=-1)
        total = {name: torch.zeros_like(w) for name, w in weights.items()}
        values = []
        for some in zip(parts, which, strict=True):
            slope, seen = self._at_once(weights, data, *some)
            for name, g in slope.items():
                total[name] += g
            values.append(seen)
        return total, torch.cat(values, dim=1)

    def _at_once(
        self, weights: Weights, data: Data, rows: Tensor | None, counted: Tensor | None
    ) -> Found:
        chosen = tuple(given for given in (rows, counted) if given is not None)
        own, common = (chosen, ()) if rows is not None and rows.ndim == 2 else ((), chosen)
        slope = self._of_one if len(next(iter(weights.values()))) == 1 else self._slope
        return slope((dict(weights), own), (data, common))

    def with_prior(
        self, weights: Weights, slope: dict[str, Tensor], times: float = 1.0
    ) -> dict[str, Tensor]:
        """Return ``times`` a slope, which is used up, plus that of the prior, gamma (w - w*)."""
        gamma, mode = self.model.precision, self.model.mode
        return {
            name: (weights[name] - mode[name]).mul_(gamma).add_(slope.pop(name), alpha=times)
            for name in list(slope)
        }


class GradientEstimator(Protocol):
    """What kernels ask of an estimator."""

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        ...

    def rows(self, total: int) -> int:
        """Return of how many of all rows a call takes gradients; refuse too few."""
        ...

    def prepare(self, gradients: Gradients, data: Data) -> Any:
        """Return what is stored from w*, tensors in a tree."""
        ...

    def __call__(
        self,
        gradients: Gradients,
        stored: Any,
        generator: torch.Generator | None,
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

    def prepare(self, gradients: Gradients, data: Data) -> Any:
        """Store nothing."""
        return ()

    def __call__(
        self,
        gradients: Gradients,
        stored: Any,
        generator: torch.Generator | None,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Compute the gradient."""
        model = gradients.model
        size = self.batch_size or model.rows_at_once
        size = size or fewer_rows(ROWS_OF_A_GRADIENT, model.logits_per_row(data.batch))
        found, values = gradients(weights, data, size=size)
        loss = _loss(values)
        gradient = gradients.with_prior(weights, found)
        return Estimate(gradient, loss, torch.zeros_like(loss), values)


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

    def prepare(self, gradients: Gradients, data: Data) -> Any:
        """Store nothing."""
        return ()

    def __call__(
        self,
        gradients: Gradients,
        stored: Any,
        generator: torch.Generator | None,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Estimate the gradient from rows of their own at every call."""
        if self.batch_size == data.rows:
            return FullBatch()(gradients, stored, generator, weights, data)
        rows = _draw(generator, weights, data.rows, self.batch_size)

        def part(rows: Tensor) -> Found:
            return gradients(weights, data, rows)

        estimate = _from_rows(gradients, part, rows, data.rows, measure)
        times = data.rows / self.batch_size
        gradient = gradients.with_prior(weights, estimate.gradient, times)
        return estimate._replace(gradient=gradient)


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

    def prepare(self, gradients: Gradients, data: Data) -> Any:
        """Store the full gradient at w*."""
        # At w* the prior has no slope.
        return FullBatch()(gradients, (), None, at_mode(gradients.model), data).gradient

    def __call__(
        self,
        gradients: Gradients,
        stored: Any,
        generator: torch.Generator | None,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Estimate the gradient as $g(w^*) + g_B(w) - g_B(w^*)$."""
        rows = _draw(generator, weights, data.rows, self.batch_size)
        mode = at_mode(gradients.model, len(rows))

        def part(rows: Tensor) -> Found:
            here, values = gradients(weights, data, rows)
            there, _ = gradients(mode, data, rows)
            return {name: g - there[name] for name, g in here.items()}, values

        estimate = _from_rows(gradients, part, rows, data.rows, measure)
        times = data.rows / self.batch_size
        moved = gradients.with_prior(weights, estimate.gradient, times)
        return estimate._replace(gradient={n: g.add_(stored[n]) for n, g in moved.items()})


class _Stored(NamedTuple):
    """Rows ``(batch, m)`` of a fixed partition, which of them count, and their gradients at w*."""

    rows: Tensor
    counted: Tensor
    gradients: dict[str, Tensor]
    total: dict[str, Tensor]


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

    def prepare(self, gradients: Gradients, data: Data) -> _Stored:
        """Cut the rows into batches and store the gradient of each at w*."""
        mode = at_mode(gradients.model)
        device = next(iter(mode.values())).device
        order = torch.randperm(data.rows, generator=torch.Generator().manual_seed(0)).to(device)
        # The last batch is filled up with rows that do not count.
        places = torch.arange(-(-data.rows // self.batch_size) * self.batch_size, device=device)
        padded = order[places % data.rows].view(-1, self.batch_size)
        counted = (places < data.rows).view(-1, self.batch_size)
        found = [
            gradients(mode, data, *batch)[0]
            for batch in zip(padded.split(1), counted.split(1), strict=True)
        ]
        stored = {name: torch.cat([g[name] for g in found]) for name in mode}
        total = {name: g.sum(0) * (not self.recentre) for name, g in stored.items()}
        return _Stored(padded, counted, stored, total)

    def __call__(
        self,
        gradients: Gradients,
        stored: _Stored,
        generator: torch.Generator | None,
        weights: Weights,
        data: Data,
        *,
        measure: bool = False,
    ) -> Estimate:
        """Estimate the gradient from one batch of the partition; from two if ``measure``."""
        batches = len(stored.rows)

        def draw(below: int) -> Tensor:
            chains, device = len(next(iter(weights.values()))), stored.rows.device
            return torch.randint(below, (chains,), generator=generator, device=device)

        def change(b: Tensor) -> Found:
            counted = stored.counted[b]
            found, values = gradients(weights, data, stored.rows[b], counted)
            moved = {n: batches * (g - stored.gradients[n][b]) for n, g in found.items()}
            losses = torch.where(counted, -_per_row(values), 0.0)
            return moved, losses.sum(1) / counted.sum(1)

        first = draw(batches)
        measure = measure and batches > 1
        other = (first + 1 + draw(batches - 1)) % batches if measure else None
        beside = None if other is None else sketch(change(other)[0])
        found, loss = change(first)
        noise = torch.full_like(loss, torch.nan)
        if beside is not None:
            # Half the squared difference of two batches, drawn without replacement.
            noise = gradients.model.total(squared_distance(sketch(found), beside))
            noise = noise / 2 * (1 - 1 / batches)
        moved = {n: stored.total[n] + g for n, g in found.items()}
        return Estimate(gradients.with_prior(weights, moved), loss, noise)


def _slope(
    model: LocalizedModel,
    differentiated: Callable[..., Found],
    weights: Weights,
    own: tuple[Tensor, ...],
    data: Data,
    common: tuple[Tensor, ...],
) -> Found:
    """Do as :class:`Gradients` for one chain, whose rows are its own, common to all, or none."""
    rows, counted = (*own, *common, None, None)[:2]
    batch = data.batch if rows is None else data.take(rows)

    def pull(found: Tensor) -> Tensor:
        each = torch.full_like(found, -model.inverse_temperature)
        if counted is None:
            return each
        return torch.where(counted.view(-1, *(1,) * (found.ndim - 1)), each, 0.0)

    # By the casts, whose gradients are half as large until all activations are gone.
    slope, found = differentiated(
        lambda values: model.log_likelihood(values, batch), pull, model.cast(weights)
    )
    return {name: in_dtype(slope.pop(name), model.dtype) for name in list(slope)}, found


def _differentiated(function: Function, pull: Pull, weights: dict[str, Tensor]) -> Found:
    """Return the sum of slopes of what a function gives, times ``pull``, and what it gives."""
    found, back = torch.func.vjp(function, weights)
    return dict(back(pull(found))[0]), found


def _differentiated_alone(
    model: LocalizedModel, function: Function, pull: Pull, weights: dict[str, Tensor]
) -> Found:
    """Do the same for one chain, and let activations go on the way, which ``vjp`` keeps."""
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}

    def there_and_back() -> tuple[tuple[Tensor, ...], Tensor]:
        with torch.enable_grad():
            found = function(leaves)
        slope = torch.autograd.grad(
            found, list(leaves.values()), pull(found.detach()), materialize_grads=True
        )
        return slope, found.detach()

    slope, found = model.network.while_held({**model.frozen, **leaves}, there_and_back)
    return dict(zip(leaves, slope, strict=True)), found


def _from_rows(
    gradients: Gradients,
    part: Callable[[Tensor], Found],
    rows: Tensor,
    num_rows: int,
    measure: bool,
) -> Estimate:
    """Sum over some rows; measure the noise of n/m times it, if asked for, by their first half."""
    size = rows.shape[1]
    measure = measure and size > 1
    first = sketch(part(rows[:, : size // 2])[0]) if measure else None
    found, values = part(rows)
    loss = _loss(values)
    if first is None:
        return Estimate(found, loss, torch.full_like(loss, torch.nan))
    noise = noise_of_halves(first, sketch(found), size=size, num_rows=num_rows)
    return Estimate(found, loss, gradients.model.total(noise))


def _loss(values: Tensor) -> Tensor:
    """Mean loss of rows ``(chain, m)`` or ``(chain, m, token)``, summed over tokens."""
    return -values.flatten(1).sum(1) / values.shape[1]


def _per_row(values: Tensor, rows: int = 2) -> Tensor:
    """Sum over what lies beyond the first axes."""
    return values.flatten(rows).sum(rows) if values.ndim > rows else values


def at_mode(model: LocalizedModel, chains: int = 1) -> dict[str, Tensor]:
    """Return w* as the weights of so many chains, ``(chain, ...)``, which share its memory."""
    return {name: w.expand(chains, *w.shape) for name, w in model.mode.items()}


def _draw(
    generator: torch.Generator | None, weights: Weights, num_rows: int, batch_size: int
) -> Tensor:
    example = next(iter(weights.values()))
    return draw_rows(generator, len(example), num_rows, batch_size, example.device)
