"""Hamiltonian Monte Carlo with full gradients, as a NumPyro kernel: the unbiased reference."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from ppl_bif.checks import whole
from ppl_bif.kernel import JITTER, STEP_TIMES_FREQUENCY, choose_gradient
from ppl_bif.numpyro.gradients import Data, FullBatch
from ppl_bif.numpyro.langevin import Langevin, Measured, Shared, State
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.preconditioners import scaled

__all__ = ["HMC"]


class Moving(NamedTuple):
    """Energy, gradient in the preconditioner's coordinates, and log-likelihoods at the weights."""

    energy: Array
    gradient: dict[str, Array]
    log_likelihood: Array


class HMC(Langevin):
    """Draw from the local posterior by Metropolis-adjusted trajectories.

    One step draws a momentum, makes ``leapfrog_steps`` leapfrog steps of one size, and accepts the
    end with the probability that keeps the posterior exact (Duane et al. 1987). The size is drawn
    anew within 20% of h, so that no direction comes back to where it began each time (Neal 2011,
    section 3.2). One leapfrog step is MALA (Besag 1994), whose eps is h^2. Full gradients only: its
    cost in many dimensions makes it a reference rather than a default.

    Parameters
    ----------
    model
        What :func:`localize` made.
    step_size
        h, in units of the weights. By default found in warm-up: where ``sample`` tunes, 80% of
        steps are accepted; elsewhere 1.2 d^(-1/4) over the root of the top curvature.
    leapfrog_steps
        Leapfrog steps of a trajectory.
    batch_size
        Rows of the gradient held at once, 2,048 by default.
    steps_per_draw
        Trajectories between two draws. By default what ``sample`` measures to be enough.
    preconditioner
        S S: ``"low_rank"``, ``"rmsprop"``, a record of :mod:`ppl_bif.numpyro.preconditioners`, or
        None; fitted in warm-up, then fixed.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from ppl_bif.numpyro import HMC, localize
    >>> network = lambda p, x: x @ p["w"]
    >>> params = {"w": jnp.zeros(3)}
    >>> model = localize(network, params, likelihood="normal", localization=100.0)
    >>> mcmc = MCMC(HMC(model), num_warmup=10, num_samples=20, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones((16, 3)), jnp.ones(16))
    >>> mcmc.get_samples()["w"].shape
    (20, 3)
    """

    name = "HMC"
    stats = ("minibatch_loss", "step_size", "acceptance")

    def __init__(
        self,
        model: LocalizedModel,
        *,
        step_size: float | None = None,
        leapfrog_steps: int = 8,
        batch_size: int | None = None,
        steps_per_draw: int | None = None,
        preconditioner: Any = None,
    ) -> None:
        self.leapfrog_steps = whole("leapfrog_steps", leapfrog_steps)
        super().__init__(
            model,
            gradient=choose_gradient("full", {"full": FullBatch}, batch_size),
            preconditioner=preconditioner,
            step_size=step_size,
            steps_per_draw=steps_per_draw,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the kernel beside its model, for the record."""
        return {**super().settings, "leapfrog_steps": self.leapfrog_steps}

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step at a curvature."""
        return STEP_TIMES_FREQUENCY * self.model.num_weights**-0.25 / curvature**0.5

    def train_log_likelihood(self, state: State) -> Array:
        """Return the training log-likelihoods at the draw."""
        return state.moving.log_likelihood

    def _begin(self, key: Array, weights: Any, shared: Shared, data: Data) -> Moving:
        return self._at(weights, shared, data)

    def _at(self, weights: Any, shared: Shared, data: Data) -> Moving:
        model = self.model
        found = self.gradient(model, (), jax.random.key(0), weights, data, measure=False)
        values = found.log_likelihood
        assert values is not None
        away = sum(jnp.sum((w - model.mode[n]) ** 2) for n, w in weights.items())
        energy = -model.inverse_temperature * values.sum() + model.precision / 2 * away
        return Moving(energy, scaled(shared.root, found.gradient), values)

    def _step(
        self, key: Array, state: State, data: Data, *, measure: Array
    ) -> tuple[dict[str, Array], Moving, Measured]:
        draw, decide, shake = jax.random.split(key, 3)
        flat, unravel = ravel_pytree(state.z)
        momentum = unravel(jax.random.normal(draw, flat.shape, flat.dtype))
        h = state.step_size * (1 + JITTER * jax.random.uniform(shake, minval=-1.0))
        shared = state.shared

        def leap(_: int, at: Any) -> Any:
            w, v, moving = at
            half = {n: p - h / 2 * moving.gradient[n] for n, p in v.items()}
            drift = scaled(shared.root, half)
            w = {n: x + h * drift[n] for n, x in w.items()}
            moving = self._at(w, shared, data)
            return w, {n: p - h / 2 * moving.gradient[n] for n, p in half.items()}, moving

        start = (state.z, momentum, state.moving)
        end = jax.lax.fori_loop(0, self.leapfrog_steps, leap, start)
        rise = end[2].energy - state.moving.energy + _kinetic(end[1]) - _kinetic(momentum)
        accept = jnp.where(jnp.isfinite(rise), jnp.minimum(1.0, jnp.exp(-rise)), 0.0)
        taken = jax.random.uniform(decide) < accept
        weights, moving = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old), (end[0], end[2]), (state.z, state.moving)
        )
        loss = -moving.log_likelihood.sum() / len(moving.log_likelihood)
        return weights, moving, Measured(loss, jnp.zeros_like(h), accept)


def _kinetic(momentum: dict[str, Array]) -> Array:
    return sum(jnp.sum(v**2) for v in momentum.values()) / 2
