"""What the kernels share: a state, the draws between steps, and their life as Pyro kernels."""

from collections import OrderedDict
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from ppl_bif.checks import positive, whole
from ppl_bif.data import Batch
from ppl_bif.kernel import MEASURE_EVERY, check_temperature
from ppl_bif.pyro.chainwise import flatten, unflatten
from ppl_bif.pyro.curvature import hessian_product, spread_rows, top_curvature
from ppl_bif.pyro.engine import Engine
from ppl_bif.pyro.gradients import Data, GradientEstimator, Gradients
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.preconditioners import Root, as_preconditioner, scaled

__all__ = ["Langevin", "Measured", "Shared", "State", "lifted", "normal", "plus"]

Weights = Mapping[str, Tensor]


class Shared(NamedTuple):
    """What chains share: what the gradient estimator stored at w*, and the preconditioner."""

    stored: Any
    root: Root


class Measured(NamedTuple):
    """What a step saw, each ``(chain,)``; NaN where not measured.

    ``noise`` is the variance that minibatches add to a step over that of the injected noise.
    """

    loss: Tensor
    noise: Tensor
    acceptance: Tensor


class State(NamedTuple):
    """State of some chains after a draw.

    Attributes
    ----------
    i
        Draws made.
    z
        Weights by site, ``(chain, ...)``.
    moving
        What the integrator carries beside the weights, such as a momentum.
    minibatch_loss
        Mean loss of the rows of the last gradient, ``(chain,)``.
    gradient_noise
        Variance that minibatches add to a step, over the variance of the injected noise,
        ``(chain,)``; NaN where not measured, which is at every eighth draw.
    acceptance
        Mean probability of acceptance over the draw's steps, ``(chain,)``; NaN for kernels that
        accept all.
    step_size
        As the kernel defines it, ``(chain,)``.
    shared
        What all chains share; it has no chain axis.
    generator
        Source of the draws to come; None is PyTorch's global one.
    """

    i: int
    z: dict[str, Tensor]
    moving: Any
    minibatch_loss: Tensor
    gradient_noise: Tensor
    acceptance: Tensor
    step_size: Tensor
    shared: Shared
    generator: torch.Generator | None


class Langevin(MCMCKernel):
    """A kernel made of a gradient estimator, a preconditioner and an integrator.

    A subclass is the integrator: it says how to begin at some weights (``_begin``) and how to make
    one step (``_step``), and which step is stable at a curvature (``stable_step``).
    """

    name: str
    stats: tuple[str, ...]

    def __init__(
        self,
        model: LocalizedModel,
        *,
        gradient: GradientEstimator,
        preconditioner: Any = None,
        step_size: float | None = None,
        steps_per_draw: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        self._gradients = Gradients(model)
        self.gradient = gradient
        self.preconditioner = as_preconditioner(preconditioner)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.steps_per_draw = (
            None if steps_per_draw is None else whole("steps_per_draw", steps_per_draw)
        )
        self.temperature = check_temperature(temperature)
        # Weights are unconstrained; MCMC asks for transforms by this name.
        self.transforms: dict[str, Any] = {}
        self._initial_params: dict[str, Tensor] | None = None

    @property
    def model(self) -> LocalizedModel:
        """The localized model."""
        return self._gradients.model

    def on(self, model: LocalizedModel) -> Any:
        """Return the same kernel on another model."""
        other = copy(self)
        other._gradients = Gradients(model)
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the kernel beside its model, for the record."""
        return {
            "kernel": self.name,
            **self.gradient.settings,
            "preconditioner": self.preconditioner.name if self.preconditioner else "none",
            "step_size": self.step_size,
            "steps_per_draw": self.steps_per_draw,
            "temperature": self.temperature,
        }

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step size at a curvature."""
        raise NotImplementedError

    def rows_per_step(self, rows: int) -> int:
        """Return how many of so many training rows one step takes gradients of."""
        return self.gradient.rows(rows)

    def _begin(
        self, generator: torch.Generator | None, weights: Weights, shared: Shared, data: Data
    ) -> Any:
        """Return what the integrator carries, at rest at some weights."""
        return ()

    def _step(
        self, state: State, data: Data, *, measure: bool
    ) -> tuple[dict[str, Tensor], Any, Measured]:
        """Make one step: weights, what is carried, and what was seen.

        The weights of ``state`` may be overwritten.
        """
        raise NotImplementedError

    def train_log_likelihood(self, state: State) -> Tensor | None:
        """Return the training log-likelihoods at the draw if the kernel has them already."""
        return None

    def share(self, data: Data) -> Shared:
        """Return what chains share before the preconditioner is fitted."""
        self.gradient.rows(data.rows)  # It refuses too few.
        return Shared(self.gradient.prepare(self._gradients, data), Root())

    def start(
        self, generator: torch.Generator | None, weights: Weights, shared: Shared, data: Data
    ) -> State:
        """Return chains at rest at weights ``(chain, ...)``.

        The step size is NaN where the kernel was given none.
        """
        example = next(iter(weights.values()))
        unknown = example.new_full((len(example),), torch.nan)
        step = unknown if self.step_size is None else torch.full_like(unknown, self.step_size)
        moving = self._begin(generator, weights, shared, data)
        seen = (unknown, unknown, unknown)
        return State(0, dict(weights), moving, *seen, step, shared, generator)

    def rest(self, state: State, data: Data) -> State:
        """Put chains at rest where they are, after a change of what they share."""
        return state._replace(moving=self._begin(state.generator, state.z, state.shared, data))

    def adapt(self, state: State, data: Data, weights: Weights) -> State:
        """Fit the preconditioner to some weights ``(chain, ...)``, and put the chains at rest."""
        assert self.preconditioner is not None
        root = self.preconditioner.fit(self._gradients, weights, data, state.generator)
        return self.rest(state._replace(shared=state.shared._replace(root=root)), data)

    def advance(self, state: State, data: Data, steps: int) -> State:
        """Make one draw, so many steps on; the weights of ``state`` are used up."""
        accepted, measured = torch.zeros_like(state.step_size), state.i % MEASURE_EVERY == 0
        for i in range(steps):
            z, moving, seen = self._step(state, data, measure=measured and i == steps - 1)
            state = state._replace(
                z=z, moving=moving, minibatch_loss=seen.loss, gradient_noise=seen.noise
            )
            accepted = accepted + seen.acceptance
        return state._replace(i=state.i + 1, acceptance=accepted / steps)

    def curvature(self, weights: Weights, shared: Shared, data: Data) -> Tensor:
        """Largest curvature of each chain, in the preconditioner's coordinates, ``(chain,)``."""
        flat, root = flatten(weights), partial(scaled, shared.root)
        rows = spread_rows(self.model, data).expand(len(flat), -1)
        product = hessian_product(self.model, data, weights, rows)

        def through(vector: Tensor) -> Tensor:
            inside = flatten(root(unflatten(vector, weights)))
            return flatten(root(unflatten(product(inside), weights)))

        return top_curvature(through, flat)

    def bind(self, data: Mapping[str, Batch], *, evaluation_batch_size: int | None) -> Engine:
        """Make ready to be driven by :func:`ppl_bif.sample` over ``train`` and ``query``."""
        return Engine(self, data, evaluation_batch_size=evaluation_batch_size)

    # What pyro.infer.MCMC calls; it moves one chain, with PyTorch's global generator.

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Take the data of a run; find the preconditioner and a step size, where none was given."""
        self._data = Data(args, kwargs)
        self._warmup, self._draws = warmup_steps, 0
        self._divergences: list[int] = []
        state = self.start(None, _one(self.initial_params), self.share(self._data), self._data)
        if self.preconditioner is not None:
            state = self.adapt(state, self._data, state.z)
        if self.step_size is None:
            top = self.curvature(state.z, state.shared, self._data)
            state = state._replace(step_size=self.stable_step(top))
        self._state = state

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """Weights to start at: the trained ones unless others were set."""
        return self._initial_params or dict(self.model.mode)

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._initial_params = params

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make one draw, ``steps_per_draw`` steps on from ``params``."""
        state, given = self._state, _one(params)
        if not all(torch.equal(w, state.z[name]) for name, w in given.items()):
            state = self.rest(state._replace(z=given), self._data)
        # What was returned before belongs to MCMC.
        state = state._replace(z={name: w.clone() for name, w in state.z.items()})
        self._state = self.advance(state, self._data, self.steps_per_draw or DEFAULT_STEPS)
        weights = {name: w[0] for name, w in self._state.z.items()}
        kept = self._draws - self._warmup
        if kept >= 0 and not all(w.isfinite().all() for w in weights.values()):
            self._divergences.append(kept)
        self._draws += 1
        return weights

    def logging(self) -> OrderedDict[str, str]:
        """Describe the last draw in the progress bar."""
        return OrderedDict(
            [
                ("step size", f"{self._state.step_size.item():.2e}"),
                ("minibatch loss", f"{self._state.minibatch_loss.item():.3g}"),
            ]
        )

    def diagnostics(self) -> dict[str, list[int]]:
        """Name the draws whose weights were NaN or infinite."""
        return {"divergences": self._divergences}


def normal(generator: torch.Generator | None, like: Weights) -> dict[str, Tensor]:
    """Draw standard normals shaped like weights ``(chain, ...)``."""
    example, size = next(iter(like.values())), sum(w[0].numel() for w in like.values())
    flat = torch.randn(
        len(example), size, generator=generator, device=example.device, dtype=example.dtype
    )
    return unflatten(flat, like)


def lifted(factor: Tensor, like: Tensor) -> Tensor:
    """Give a factor ``(chain,)`` the axes of a tensor ``(chain, ...)``."""
    return factor.view(-1, *(1,) * (like.ndim - 1))


def plus(vector: Weights, factor: Tensor, other: Weights) -> dict[str, Tensor]:
    """Return vector + factor other, with a factor ``(chain,)``."""
    return {n: torch.addcmul(v, lifted(factor, v), other[n]) for n, v in vector.items()}


def _one(weights: Weights) -> dict[str, Tensor]:
    return {name: w.unsqueeze(0) for name, w in weights.items()}


# Steps of a draw where neither the user nor warm-up has set them.
DEFAULT_STEPS = 5
