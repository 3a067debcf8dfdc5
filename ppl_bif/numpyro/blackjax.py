"""Any BlackJAX sampler as a kernel: ``from ppl_bif.numpyro.blackjax import BlackJAX``."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppl_bif.kernel import STEP_TIMES_FREQUENCY
from ppl_bif.numpyro.gradients import Data, FullBatch
from ppl_bif.numpyro.langevin import Langevin, Measured, Shared, State
from ppl_bif.numpyro.model import LocalizedModel
from ppl_bif.numpyro.potential import potential

__all__ = ["BlackJAX"]


class BlackJAX(Langevin):
    """Draw from the local posterior by a sampler of BlackJAX (Cabezas et al. 2024).

    The sampler sees the log posterior of all training rows, and one sampler step is one step of
    this kernel. Everything else is as with the other kernels: :func:`ppl_bif.sample` runs chains
    side by side, scores, stores and diagnoses them.

    Parameters
    ----------
    model
        What :func:`localize` made.
    algorithm
        ``(logdensity, step_size) -> blackjax.SamplingAlgorithm``; the density takes weights by
        site. It may ignore the step size.
    name
        What the sampler is called in the record; it tells stores apart, so name its settings too.
    adjusted
        Whether the sampler reports an acceptance rate, by which warm-up may find the step.
    step_size
        In the sampler's own units. By default 1.2 d^(-1/4) over the root of the top curvature,
        which suits leapfrog steps; where ``adjusted``, 80% are accepted.
    steps_per_draw
        Sampler steps between two draws. By default what ``sample`` measures to be enough, 5 in an
        ``MCMC`` of NumPyro.

    Examples
    --------
    >>> import blackjax, jax.numpy as jnp, numpy as np
    >>> from ppl_bif import sample
    >>> from ppl_bif.numpyro import localize
    >>> params = {"w": jnp.zeros(3)}
    >>> model = localize(lambda p, x: x @ p["w"], params, likelihood="normal", localization=10.0)
    >>> def hmc(logdensity, step_size):
    ...     return blackjax.hmc(logdensity, step_size, jnp.ones(3), num_integration_steps=5)
    >>> rows = np.eye(3, dtype=np.float32), np.ones(3, np.float32)
    >>> run = sample(
    ...     BlackJAX(model, hmc, name="hmc, 5 steps", step_size=0.1, steps_per_draw=1),
    ...     train=rows, query=rows, chains=2, draws=10, progress=False,
    ... )
    >>> run["log_likelihood"]["query_obs"].shape
    (2, 10, 3)
    """

    def __init__(
        self,
        model: LocalizedModel,
        algorithm: Callable[[Callable[[Any], Array], Array], Any],
        *,
        name: str,
        adjusted: bool = True,
        step_size: float | None = None,
        steps_per_draw: int | None = None,
    ) -> None:
        self.algorithm, self.name = algorithm, f"BlackJAX {name}"
        self.stats = ("minibatch_loss", "step_size", *(("acceptance",) if adjusted else ()))
        super().__init__(
            model, gradient=FullBatch(), step_size=step_size, steps_per_draw=steps_per_draw
        )

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step at a curvature."""
        return STEP_TIMES_FREQUENCY * self.model.num_weights**-0.25 / curvature**0.5

    def _sampler(self, data: Data, step_size: Array) -> Any:
        def logdensity(weights: Mapping[str, Array]) -> Array:
            return -potential(self.model, weights, *data)[0]

        return self.algorithm(logdensity, step_size)

    def _begin(self, key: Array, weights: Mapping[str, Array], shared: Shared, data: Data) -> Any:
        return self._sampler(data, jnp.ones(())).init(dict(weights), key)

    def _step(
        self, key: Array, state: State, data: Data, *, measure: Array
    ) -> tuple[dict[str, Array], Any, Measured]:
        moved, info = self._sampler(data, state.step_size).step(key, state.moving)
        weights = dict(moved.position)
        unknown = jnp.full_like(state.step_size, jnp.nan)
        accepted = jnp.asarray(getattr(info, "acceptance_rate", unknown), unknown.dtype)

        def mean_loss() -> Array:
            values = potential(self.model, weights, *data)[1]
            return (-values.sum() / len(values)).astype(unknown.dtype)

        loss = jax.lax.cond(measure, mean_loss, lambda: unknown)
        return weights, moved, Measured(loss, jnp.zeros_like(unknown), accepted)
