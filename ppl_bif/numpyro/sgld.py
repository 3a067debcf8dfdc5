"""Stochastic gradient Langevin dynamics as a NumPyro kernel (Welling & Teh 2011)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.checks import whole
from ppl_bif.kernel import STEP_OVER_CURVATURE, choose_gradient
from ppl_bif.numpyro.gradients import ControlVariates, Data, Minibatch, Partition
from ppl_bif.numpyro.langevin import Langevin, Measured, State
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.moves import added, with_noise
from ppl_bif.numpyro.preconditioners import scaled

__all__ = ["SGLD"]

GRADIENTS = {
    "minibatch": Minibatch,
    "control_variates": ControlVariates,
    "partition": Partition,
}


class SGLD(Langevin):
    r"""Draw from the local posterior by minibatch Langevin steps.

    One step is

    $$w \leftarrow w - \epsilon/2\; P\, [\beta\, n/m \sum_B \nabla\ell_i + \gamma (w - w^*)]
    + N(0, \epsilon T P)$$

    with a fresh minibatch B of m rows drawn without replacement (Welling & Teh 2011, Eq. 4, at a
    constant step). Its stationary law is that of the posterior up to a bias of order eps and the
    noise of the minibatches, which ``gradient_noise`` reports.

    Parameters
    ----------
    model
        What :func:`localize` made.
    step_size
        eps, in squared units of the weights. By default 0.5 over the top curvature, at w* and,
        where ``sample`` tunes, at the draws.
    batch_size
        m; all rows where there are fewer only if you say so.
    steps_per_draw
        SGLD steps between two draws. By default what ``sample`` measures to be enough, 5 in an
        ``MCMC`` of NumPyro.
    temperature
        T, which scales the injected noise; 1 samples the posterior, 0 descends.
    gradient
        ``"minibatch"``, ``"control_variates"`` (Baker et al. 2019), ``"partition"``, or one of the
        records of :mod:`ppl_bif.numpyro.gradients`.
    preconditioner
        P: None for the identity, ``"rmsprop"``, ``"low_rank"``, or a record of
        :mod:`ppl_bif.numpyro.preconditioners`; fitted in warm-up, then fixed.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from ppl_bif.numpyro import SGLD, localize
    >>> network = lambda p, x: x @ p["w"]
    >>> params = {"w": jnp.zeros(3)}
    >>> model = localize(network, params, likelihood="normal", localization=100.0)
    >>> kernel = SGLD(model, batch_size=8)
    >>> mcmc = MCMC(kernel, num_warmup=10, num_samples=20, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones((16, 3)), jnp.ones(16))
    >>> mcmc.get_samples()["w"].shape
    (20, 3)
    """

    name = "SGLD"
    stats = ("minibatch_loss", "gradient_noise", "step_size")
    by_site = True

    def __init__(
        self,
        model: LocalizedModel,
        *,
        step_size: float | None = None,
        batch_size: int = 64,
        steps_per_draw: int | None = None,
        temperature: float = 1.0,
        gradient: Any = "minibatch",
        preconditioner: Any = None,
    ) -> None:
        self.batch_size = whole("batch_size", batch_size)
        super().__init__(
            model,
            gradient=choose_gradient(gradient, GRADIENTS, self.batch_size),
            preconditioner=preconditioner,
            step_size=step_size,
            steps_per_draw=steps_per_draw,
            temperature=temperature,
        )

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step at a curvature: 0.5 over it."""
        return STEP_OVER_CURVATURE / curvature

    def _step(
        self, key: Array, state: State, data: Data, *, measure: Array
    ) -> tuple[dict[str, Array], Any, Measured]:
        rows, noise = jax.random.split(key)
        stored, root = state.shared
        estimate = self.gradient(self.model, stored, rows, state.z, data, measure=measure)
        eps = state.step_size
        heat, slope = jnp.sqrt(eps * self.temperature), scaled(root, estimate.gradient)
        # w - eps/2 S S g + S N(0, eps T), with one S outside.
        change = scaled(root, with_noise(noise, slope, -eps / 2, heat))
        injected = self.model.num_weights * self.temperature
        share = eps * estimate.noise / (4 * injected) if injected else estimate.noise
        return (
            added(state.z, change),
            (),
            Measured(estimate.loss, share, jnp.full_like(eps, jnp.nan)),
        )
