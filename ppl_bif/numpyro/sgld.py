"""Stochastic gradient Langevin dynamics as a NumPyro kernel (Welling & Teh 2011)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ppl_bif.checks import positive, whole
from ppl_bif.data import Batch, num_rows
from ppl_bif.kernel import STEP_OVER_CURVATURE, check_batch_size, check_temperature
from ppl_bif.numpyro.curvature import curvature
from ppl_bif.numpyro.engine import Engine
from ppl_bif.numpyro.gradients import energy_gradient, minibatch, minibatch_with_noise
from ppl_bif.numpyro.model import LocalizedModel

__all__ = ["SGLD", "SGLDState"]


class SGLDState(NamedTuple):
    """State of a chain after a draw; with a leading chain axis where chains are vectorized.

    Attributes
    ----------
    i
        Draws made.
    z
        Weights by site.
    minibatch_loss
        Mean loss of the last minibatch, before the last step.
    gradient_noise
        Variance that the minibatch adds to a step, over the variance eps T of the injected noise.
    step_size
        eps.
    diverging
        Whether a weight is NaN or infinite.
    rng_key
        Key of the draws to come.
    """

    i: Array
    z: dict[str, Array]
    minibatch_loss: Array
    gradient_noise: Array
    step_size: Array
    diverging: Array
    rng_key: Array


class SGLD(MCMCKernel):
    """Draw from the local posterior by minibatch Langevin steps.

    One step is w <- w - eps/2 [beta n/m sum_B grad l + gamma (w - w*)] + N(0, eps T), with a fresh
    minibatch B of m rows drawn without replacement (Welling & Teh 2011, Eq. 4, at a constant
    step). Its stationary law is that of the posterior up to a bias of order eps and the noise of
    the minibatches, which ``gradient_noise`` reports.

    Parameters
    ----------
    model
        What :func:`localize` made.
    step_size
        eps, in squared units of the weights. By default 0.5 over the top curvature at w*.
    batch_size
        m; all rows where there are fewer only if you say so.
    steps_per_draw
        SGLD steps between two draws.
    temperature
        T, which scales the injected noise; 1 samples the posterior, 0 descends.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from ppl_bif.numpyro import SGLD, localize
    >>> model = localize(lambda p, x: x @ p["w"], {"w": jnp.zeros(3)}, likelihood="normal")
    >>> kernel = SGLD(model, batch_size=8)
    >>> mcmc = MCMC(kernel, num_warmup=10, num_samples=20, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones((16, 3)), jnp.ones(16))
    >>> mcmc.get_samples()["w"].shape
    (20, 3)
    """

    def __init__(
        self,
        model: LocalizedModel,
        *,
        step_size: float | None = None,
        batch_size: int = 64,
        steps_per_draw: int = 5,
        temperature: float = 1.0,
    ) -> None:
        self._model = model
        self._gradient = energy_gradient(model)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.batch_size = whole("batch_size", batch_size)
        self.steps_per_draw = whole("steps_per_draw", steps_per_draw)
        self.temperature = check_temperature(temperature)

    @property
    def model(self) -> LocalizedModel:
        """The localized model."""
        return self._model

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the kernel beside its model, for the record."""
        return {
            "kernel": "SGLD",
            "step_size": self.step_size,
            "batch_size": self.batch_size,
            "steps_per_draw": self.steps_per_draw,
            "temperature": self.temperature,
        }

    @property
    def stats(self) -> tuple[str, ...]:
        """Fields of the state that ``sample`` records beside the distance."""
        return ("minibatch_loss", "gradient_noise", "step_size")

    @property
    def sample_field(self) -> str:
        """Field of the state that holds the sites."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, str]:
        """Fields that ``MCMC`` collects."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: SGLDState) -> str:
        """Describe a state in the progress bar."""
        return f"step size {state.step_size:.2e}, minibatch loss {state.minibatch_loss:.3g}"

    def suggest_step_size(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Array:
        """Return the default step size for some data: 0.5 over the top curvature at w*."""
        return STEP_OVER_CURVATURE / curvature(self._model, args, kwargs)

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Mapping[str, Array] | None,
        model_args: tuple[Any, ...],
        model_kwargs: Mapping[str, Any],
    ) -> SGLDState:
        """Start at the trained weights, or at ``init_params``; one chain, or one for each key."""
        rows = num_rows(dict(model_kwargs) or model_args)
        check_batch_size(self.batch_size, rows)
        step = self.step_size
        if step is None:
            step = self.suggest_step_size(model_args, model_kwargs)
        step = jnp.asarray(step, next(iter(self._model.mode.values())).dtype)
        if is_prng_key(rng_key):
            start = self._model.mode if init_params is None else init_params
            return self._initial_state(rng_key, dict(start), step)
        chains = rng_key.shape[0]
        start = init_params or {
            name: jnp.broadcast_to(w, (chains, *w.shape)) for name, w in self._model.mode.items()
        }
        return jax.vmap(self._initial_state, in_axes=(0, 0, None))(rng_key, dict(start), step)

    def _initial_state(self, key: Array, weights: dict[str, Array], step: Array) -> SGLDState:
        unknown = jnp.full((), jnp.nan, next(iter(weights.values())).dtype)
        return SGLDState(
            jnp.zeros((), int), weights, unknown, unknown, step, jnp.zeros((), bool), key
        )

    def sample(
        self, state: SGLDState, model_args: tuple[Any, ...], model_kwargs: Mapping[str, Any]
    ) -> SGLDState:
        """Make one draw, ``steps_per_draw`` steps on; all chains where the state has several."""
        draw = partial(self._draw, args=model_args, kwargs=dict(model_kwargs))
        return draw(state) if is_prng_key(state.rng_key) else jax.vmap(draw)(state)

    def _draw(
        self, state: SGLDState, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> SGLDState:
        key, *keys = jax.random.split(state.rng_key, self.steps_per_draw + 1)
        size = {
            "num_rows": num_rows(dict(kwargs) or args),
            "batch_size": self.batch_size,
        }

        def step(estimator: Any, weights: dict[str, Array], key: Array) -> Any:
            rows_key, noise_key = jax.random.split(key)
            estimate = estimator(self._gradient, rows_key, weights, args, kwargs, **size)
            moved = self._move(weights, estimate.gradient, noise_key, state.step_size)
            return moved, estimate

        before = jax.lax.scan(
            lambda w, k: (step(minibatch, w, k)[0], None), state.z, jnp.stack(keys)[:-1]
        )[0]
        weights, estimate = step(minibatch_with_noise, before, keys[-1])
        injected = self._model.num_weights * self.temperature
        finite = jnp.stack([jnp.isfinite(w).all() for w in weights.values()]).all()
        return SGLDState(
            state.i + 1,
            weights,
            estimate.loss,
            state.step_size * estimate.noise / (4 * injected) if injected else estimate.noise,
            state.step_size,
            ~finite,
            key,
        )

    def _move(
        self, weights: dict[str, Array], gradient: dict[str, Array], key: Array, eps: Array
    ) -> dict[str, Array]:
        flat, unravel = ravel_pytree(weights)
        noise = unravel(jax.random.normal(key, flat.shape, flat.dtype))
        spread = jnp.sqrt(eps * self.temperature)
        return {
            name: w - eps / 2 * gradient[name] + spread * noise[name] for name, w in weights.items()
        }

    def bind(self, data: Mapping[str, Batch], *, evaluation_batch_size: int) -> Engine:
        """Make ready to be driven by :func:`ppl_bif.sample` over ``train`` and ``query``."""
        return Engine(self, data, evaluation_batch_size=evaluation_batch_size)
