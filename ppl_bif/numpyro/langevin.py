"""What the kernels share: a state, the draws between steps, and their life as NumPyro kernels."""

from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ppl_bif.checks import positive, whole
from ppl_bif.data import Batch
from ppl_bif.kernel import MEASURE_EVERY, check_temperature
from ppl_bif.numpyro.curvature import hessian_product, spread_rows, top_curvature
from ppl_bif.numpyro.engine import Engine
from ppl_bif.numpyro.gradients import Data, GradientEstimator
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.preconditioners import Root, as_preconditioner, scaled

__all__ = ["Langevin", "Measured", "Shared", "State"]

Weights = Mapping[str, Array]


class Shared(NamedTuple):
    """What chains share: what the gradient estimator stored at w*, and the preconditioner."""

    stored: Any
    root: Root


class Measured(NamedTuple):
    """What a step saw, each ``()``; NaN where not measured.

    ``noise`` is the variance that minibatches add to a step over that of the injected noise.
    """

    loss: Array
    noise: Array
    acceptance: Array


class State(NamedTuple):
    """State of a chain after a draw; with a leading chain axis where chains are vectorized.

    Attributes
    ----------
    i
        Draws made.
    z
        Weights by site.
    moving
        What the integrator carries beside the weights, such as a momentum.
    minibatch_loss
        Mean loss of the rows of the last gradient.
    gradient_noise
        Variance that minibatches add to a step, over the variance of the injected noise; NaN where
        not measured, which is at every eighth draw.
    acceptance
        Mean probability of acceptance over the draw's steps; NaN for kernels that accept all.
    step_size
        As the kernel defines it.
    diverging
        Whether a weight is NaN or infinite.
    shared
        What all chains share; it has no chain axis.
    rng_key
        Key of the draws to come.
    """

    i: Array
    z: dict[str, Array]
    moving: Any
    minibatch_loss: Array
    gradient_noise: Array
    acceptance: Array
    step_size: Array
    diverging: Array
    shared: Shared
    rng_key: Array

    def moved_as(self, start: "State") -> "State":
        """Return the same draw, moved on as a start at its weights and with its keys is."""
        return self._replace(moving=start.moving, shared=start.shared, rng_key=start.rng_key)


# Axes of vmap: chains lie along the first of everything but what they share.
AXES = State(0, 0, 0, 0, 0, 0, 0, 0, None, 0)  # type: ignore[arg-type]


class Langevin(MCMCKernel):
    """A kernel made of a gradient estimator, a preconditioner and an integrator.

    A subclass is the integrator: it says how to begin at some weights (``_begin``) and how to make
    one step (``_step``), and which step is stable at a curvature (``stable_step``).
    """

    name: str
    stats: tuple[str, ...]
    # Whether, beside the gradient, ``_step`` may run in Python: site by site, in place.
    by_site = False

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
        self._model = model
        self.gradient = gradient
        self.preconditioner = as_preconditioner(preconditioner)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.steps_per_draw = (
            None if steps_per_draw is None else whole("steps_per_draw", steps_per_draw)
        )
        self.temperature = check_temperature(temperature)

    @property
    def model(self) -> LocalizedModel:
        """The localized model."""
        return self._model

    def on(self, model: LocalizedModel) -> Any:
        """Return the same kernel on another model."""
        other = copy(self)
        other._model = model
        return other

    def by(self, gradient: GradientEstimator) -> Any:
        """Return the same kernel by another gradient estimator."""
        other = copy(self)
        other.gradient = gradient
        return other

    @property
    def program(self) -> tuple[Any, ...]:
        """What compiled functions of the kernel depend on beside what its model holds."""
        own = {name: value for name, value in vars(self).items() if name != "_model"}
        # Records of two classes are equal where their fields are.
        return (type(self), self.model.program, *((n, type(v), v) for n, v in own.items()))

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

    @property
    def sample_field(self) -> str:
        """Field of the state that holds the sites."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, str]:
        """Fields that ``MCMC`` collects."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: State) -> str:
        """Describe a state in the progress bar."""
        return f"step size {state.step_size:.2e}, minibatch loss {state.minibatch_loss:.3g}"

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step size at a curvature."""
        raise NotImplementedError

    def rows_per_step(self, rows: int) -> int:
        """Return how many of so many training rows one step takes gradients of."""
        return self.gradient.rows(rows)

    def _begin(self, key: Array, weights: Weights, shared: Shared, data: Data) -> Any:
        """Return what the integrator carries, at rest at some weights."""
        return ()

    def _step(
        self, key: Array, state: State, data: Data, *, measure: Array
    ) -> tuple[dict[str, Array], Any, Measured]:
        """Make one step: weights, what is carried, and what was seen."""
        raise NotImplementedError

    def train_log_likelihood(self, state: State) -> Array | None:
        """Return the training log-likelihoods at the draw if the kernel has them already."""
        return None

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Weights | None,
        model_args: tuple[Any, ...],
        model_kwargs: Mapping[str, Any],
    ) -> State:
        """Start at the trained weights, or at ``init_params``; one chain, or one for each key.

        The step size, where none was given, and the preconditioner are those of the start.
        """
        data = Data(tuple(model_args), dict(model_kwargs))
        single = is_prng_key(rng_key)
        keys = rng_key[None] if single else rng_key
        weights = init_params
        if single and init_params is not None:
            weights = {name: jnp.asarray(w)[None] for name, w in init_params.items()}
        state = self.start(keys, weights, self.share(data), data)
        first = {name: w[:1] for name, w in state.z.items()}
        if self.preconditioner is not None:
            shared = state.shared._replace(root=self.fit(state.i[0], data, first))
            state = state.moved_as(self.start(state.rng_key, state.z, shared, data))
        if self.step_size is None:
            alone = {name: w[0] for name, w in first.items()}
            top = self.curvature(alone, state.shared.root, data)
            step = jnp.full_like(state.step_size, self.stable_step(top))
            state = state._replace(step_size=step)
        return _first_chain(state) if single else state

    def share(self, data: Data) -> Shared:
        """Return what chains share before the preconditioner is fitted."""
        self.gradient.rows(data.rows)  # It refuses too few.
        return Shared(self.gradient.prepare(self.model, data), self.identity())

    def identity(self) -> Root:
        """Return the root of before the preconditioner, if there is one, is fitted."""
        known = self.preconditioner
        return Root() if known is None else known.identity(self.model)

    def start(self, keys: Array, weights: Weights | None, shared: Shared, data: Data) -> State:
        """Return chains at rest at weights ``(chain, ...)``, by default the trained ones.

        The step size is NaN where the kernel was given none.
        """
        weights = weights or {
            name: jnp.broadcast_to(w, (keys.shape[0], *w.shape))
            for name, w in self.model.mode.items()
        }

        def one(key: Array, weights: dict[str, Array]) -> State:
            unknown = jnp.full((), jnp.nan, next(iter(weights.values())).dtype)
            step = unknown if self.step_size is None else jnp.full_like(unknown, self.step_size)
            key, begin = jax.random.split(key)
            moving = self._begin(begin, weights, shared, data)
            seen = (unknown, unknown, unknown)
            count, diverging = jnp.zeros((), int), jnp.zeros((), bool)
            return State(count, weights, moving, *seen, step, diverging, shared, key)

        return jax.vmap(one, out_axes=AXES)(keys, self.model.constrained(dict(weights)))

    def fit(self, draw: Array, data: Data, weights: Weights) -> Root:
        """Fit the preconditioner to some weights ``(chain, ...)``, seen after so many draws."""
        assert self.preconditioner is not None
        key = jax.random.fold_in(jax.random.key(0), draw)
        return self.preconditioner.fit(self.model, weights, data, key)

    def sample(
        self, state: State, model_args: tuple[Any, ...], model_kwargs: Mapping[str, Any]
    ) -> State:
        """Make one draw, ``steps_per_draw`` steps on; all chains where the state has several."""
        data = Data(tuple(model_args), dict(model_kwargs))
        return self.advance(state, data, self.steps_per_draw or DEFAULT_STEPS)

    def advance(self, state: State, data: Data, steps: Any) -> State:
        """Make one draw, so many steps on."""
        first = state.i if is_prng_key(state.rng_key) else state.i[0]

        def step(i: Array, at: State) -> State:
            return self.step(at, data, self.measures(first, i, steps))

        state = state._replace(acceptance=jnp.zeros_like(state.acceptance))
        return self.end(jax.lax.fori_loop(0, steps, step, state), steps)

    def measures(self, draw: Any, i: Any, steps: Any) -> Any:
        """Say whether step i of a draw measures the noise of minibatches.

        The same for all chains, so that what is not measured is not computed.
        """
        return (draw % MEASURE_EVERY == 0) & (i == steps - 1)

    def step(self, state: State, data: Data, measure: Any) -> State:
        """Make one step; all chains where the state has several."""
        one = partial(self._next, data=data, measure=measure)
        if is_prng_key(state.rng_key):
            return one(state)
        moved = jax.vmap(one, in_axes=(AXES,), out_axes=AXES)(state)
        return moved._replace(z=self.model.constrained(moved.z))

    def end(self, state: State, steps: Any) -> State:
        """Make a draw of what so many steps have led to."""
        chain = int(not is_prng_key(state.rng_key))
        finite = [jnp.isfinite(w).all(axis=range(chain, w.ndim)) for w in state.z.values()]
        return state._replace(
            i=state.i + 1,
            acceptance=state.acceptance / steps,
            diverging=~jnp.stack(finite).all(0),
        )

    def _next(self, state: State, *, data: Data, measure: Array) -> State:
        """Make one step of one chain."""
        key, now = jax.random.split(state.rng_key)
        z, moving, seen = self._step(now, state, data, measure=measure)
        return state._replace(
            z=z,
            moving=moving,
            minibatch_loss=seen.loss,
            gradient_noise=seen.noise,
            acceptance=state.acceptance + seen.acceptance,
            rng_key=key,
        )

    def curvature(self, weights: Weights, root: Root, data: Data) -> Array:
        """Largest curvature at some weights, in the coordinates of the preconditioner, ``()``."""
        flat, unravel = ravel_pytree(dict(weights))
        product = hessian_product(self.model, data, weights, spread_rows(self.model, data))

        def through(vector: Array) -> Array:
            inside = ravel_pytree(scaled(root, unravel(vector)))[0]
            return ravel_pytree(scaled(root, unravel(product(inside))))[0]

        return top_curvature(through, flat.size, flat.dtype)

    def bind(self, data: Mapping[str, Batch], *, evaluation_batch_size: int | None) -> Engine:
        """Make ready to be driven by :func:`ppl_bif.sample` over ``train`` and ``query``."""
        return Engine(self, data, evaluation_batch_size=evaluation_batch_size)


def _first_chain(state: State) -> State:
    alone = jax.tree.map(lambda a: a[0], state._replace(shared=None))  # type: ignore[arg-type]
    return alone._replace(shared=state.shared)


# Steps of a draw where neither the user nor warm-up has set them.
DEFAULT_STEPS = 5
