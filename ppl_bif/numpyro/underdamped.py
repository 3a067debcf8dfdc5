"""Underdamped Langevin dynamics by the BAOAB splitting, as a NumPyro kernel."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.checks import positive
from ppl_bif.kernel import (
    FRICTION_OVER_SLOWEST,
    STEP_TIMES_FREQUENCY,
    choose_gradient,
)
from ppl_bif.numpyro.gradients import (
    ControlVariates,
    Data,
    Estimate,
    FullBatch,
    Minibatch,
    Partition,
)
from ppl_bif.numpyro.langevin import Langevin, Measured, Shared, State
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.moves import added, kicked, with_noise
from ppl_bif.numpyro.preconditioners import scaled

__all__ = ["UnderdampedLangevin"]

GRADIENTS = {
    "full": FullBatch,
    "minibatch": Minibatch,
    "control_variates": ControlVariates,
    "partition": Partition,
}


class Moving(NamedTuple):
    """Momentum in the preconditioner's coordinates, and what the last gradient saw."""

    momentum: dict[str, Array]
    gradient: dict[str, Array]
    log_likelihood: Array | None


class UnderdampedLangevin(Langevin):
    r"""Draw from the local posterior by Langevin dynamics with momentum.

    One step of size h and friction c is BAOAB (Leimkuhler & Matthews 2013): half a kick
    $v \leftarrow v - h/2\, S\, \nabla U$, half a drift $w \leftarrow w + h/2\, S v$,
    $v \leftarrow a v + N(0, (1 - a^2)\, T)$ with $a = \exp(-c h)$, half a drift, half a kick,
    where $\exp(-U)$ is the local posterior and $S S = P$, the preconditioner. The draws' law is
    exact for a Gaussian posterior at any stable h ($h^2$ times curvature below 4), and off by order
    $h^2$ beside it. With the full gradient, each step also gives the training log-likelihoods, so
    that nothing is computed twice.

    Parameters
    ----------
    model
        What :func:`localize` made.
    step_size
        h, in units of the weights. By default 1.2 over the root of the top curvature, at w* and,
        where ``sample`` tunes, at the draws.
    friction
        c, per unit of time. By default 0.8 sqrt(gamma): critical for the flattest directions.
    batch_size
        With the full gradient, rows held at once (2,048 by default); else rows of a minibatch.
    steps_per_draw
        Steps between two draws. By default what ``sample`` measures to be enough, 5 in an ``MCMC``
        of NumPyro.
    temperature
        T; 1 samples the posterior.
    gradient
        ``"full"``, or ``"partition"``, ``"control_variates"``, ``"minibatch"``, whose noise heats
        the chain, as ``gradient_noise`` and the energy in :func:`ppl_bif.diagnose` show.
    preconditioner
        S S: ``"low_rank"``, ``"rmsprop"``, a record of :mod:`ppl_bif.numpyro.preconditioners`, or
        None; fitted in warm-up, then fixed.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from ppl_bif.numpyro import UnderdampedLangevin, localize
    >>> network = lambda p, x: x @ p["w"]
    >>> params = {"w": jnp.zeros(3)}
    >>> model = localize(network, params, likelihood="normal", localization=100.0)
    >>> mcmc = MCMC(UnderdampedLangevin(model), num_warmup=10, num_samples=20, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones((16, 3)), jnp.ones(16))
    >>> mcmc.get_samples()["w"].shape
    (20, 3)
    """

    name = "UnderdampedLangevin"
    stats = ("minibatch_loss", "gradient_noise", "step_size")
    by_site = True

    def __init__(
        self,
        model: LocalizedModel,
        *,
        step_size: float | None = None,
        friction: float | None = None,
        batch_size: int | None = None,
        steps_per_draw: int | None = None,
        temperature: float = 1.0,
        gradient: Any = "full",
        preconditioner: Any = "low_rank",
    ) -> None:
        self.friction = None if friction is None else positive("friction", friction)
        super().__init__(
            model,
            gradient=choose_gradient(gradient, GRADIENTS, batch_size),
            preconditioner=preconditioner,
            step_size=step_size,
            steps_per_draw=steps_per_draw,
            temperature=temperature,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the kernel beside its model, for the record."""
        return {**super().settings, "friction": self._friction}

    @property
    def _friction(self) -> float:
        if self.friction is not None:
            return self.friction
        return FRICTION_OVER_SLOWEST * self.model.precision**0.5

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step at a curvature: 1.2 over its root."""
        return STEP_TIMES_FREQUENCY / curvature**0.5

    def train_log_likelihood(self, state: State) -> Array | None:
        """Return the training log-likelihoods at the draw, which a full gradient gives."""
        return state.moving.log_likelihood

    def _begin(self, key: Array, weights: Any, shared: Shared, data: Data) -> Moving:
        noise, rows = jax.random.split(key)
        still = {name: jnp.zeros_like(w) for name, w in weights.items()}
        momentum = with_noise(noise, still, 1.0, self.temperature**0.5)
        estimate = self.gradient(self.model, shared.stored, rows, weights, data, measure=False)
        return _moving(momentum, estimate, shared)

    def _step(
        self, key: Array, state: State, data: Data, *, measure: Array
    ) -> tuple[dict[str, Array], Moving, Measured]:
        noise, rows = jax.random.split(key)
        h, shared = state.step_size, state.shared
        kept = jnp.exp(-self._friction * h)
        heat = jnp.sqrt((1 - kept**2) * self.temperature)
        weights, momentum = _drifted(noise, state, kept, heat)
        estimate = self.gradient(self.model, shared.stored, rows, weights, data, measure=measure)
        moving = _moving(momentum, estimate, shared)
        moving = moving._replace(momentum=added(momentum, moving.gradient, -h / 2))
        # A kick of size h adds h^2 Var(g) to the momentum, where the thermostat adds 1 - a^2.
        injected = self.model.num_weights * heat**2
        share = jnp.where(injected > 0, h**2 * estimate.noise / injected, estimate.noise)
        return weights, moving, Measured(estimate.loss, share, jnp.full_like(h, jnp.nan))


def _drifted(
    noise: Array, state: State, kept: Array, heat: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return weights and momentum before the last half kick."""
    last, h = state.moving, state.step_size
    momentum, drift = kicked(noise, last.momentum, last.gradient, h, kept, heat)
    return added(state.z, scaled(state.shared.root, drift)), momentum


def _moving(momentum: dict[str, Array], estimate: Estimate, shared: Shared) -> Moving:
    return Moving(momentum, scaled(shared.root, estimate.gradient), estimate.log_likelihood)
