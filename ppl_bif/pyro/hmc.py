"""Hamiltonian Monte Carlo with full gradients, as a Pyro kernel: the unbiased reference."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl_bif.checks import whole
from ppl_bif.kernel import JITTER, STEP_TIMES_FREQUENCY, choose_gradient
from ppl_bif.pyro.gradients import Data, FullBatch
from ppl_bif.pyro.langevin import Langevin, Measured, Shared, State, lifted, normal, plus
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.preconditioners import scaled

__all__ = ["HMC"]


class Moving(NamedTuple):
    """Energy, gradient in the preconditioner's coordinates, and log-likelihoods at the weights."""

    energy: Tensor
    gradient: dict[str, Tensor]
    log_likelihood: Tensor


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
        S S: ``"low_rank"``, ``"rmsprop"``, a record of :mod:`ppl_bif.pyro.preconditioners`, or
        None; fitted in warm-up, then fixed.

    Examples
    --------
    >>> import torch
    >>> from pyro.infer import MCMC
    >>> from ppl_bif.pyro import HMC, localize
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    >>> model = localize(net, likelihood="normal", localization=100.0)
    >>> mcmc = MCMC(HMC(model), num_samples=20, warmup_steps=10, disable_progbar=True)
    >>> mcmc.run(torch.ones(16, 3), torch.ones(16))
    >>> mcmc.get_samples()["0.weight"].shape
    torch.Size([20, 1, 3])
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

    def train_log_likelihood(self, state: State) -> Tensor:
        """Return the training log-likelihoods at the draw."""
        return state.moving.log_likelihood

    def _begin(
        self, generator: torch.Generator | None, weights: Any, shared: Shared, data: Data
    ) -> Moving:
        return self._at(weights, shared, data)

    def _at(self, weights: Any, shared: Shared, data: Data) -> Moving:
        model = self.model
        found = self.gradient(self._gradients, (), None, weights, data, measure=False)
        values = found.log_likelihood
        assert values is not None
        away = _squares({name: w - model.mode[name] for name, w in weights.items()})
        energy = -model.inverse_temperature * values.flatten(1).sum(1) + model.precision / 2 * away
        return Moving(energy, scaled(shared.root, found.gradient), values)

    def _step(
        self, state: State, data: Data, *, measure: bool
    ) -> tuple[dict[str, Tensor], Moving, Measured]:
        h, shared, moving = state.step_size, state.shared, state.moving
        shake = 2 * torch.rand(len(h), generator=state.generator, device=h.device) - 1
        h = h * (1 + JITTER * shake)
        weights, momentum = state.z, normal(state.generator, state.z)
        begun = moving.energy + _squares(momentum) / 2
        for _ in range(self.leapfrog_steps):
            half = plus(momentum, -h / 2, moving.gradient)
            weights = plus(weights, h, scaled(shared.root, half))
            moving = self._at(weights, shared, data)
            momentum = plus(half, -h / 2, moving.gradient)
        rise = moving.energy + _squares(momentum) / 2 - begun
        accept = torch.where(rise.isfinite(), (-rise).exp().clamp_max(1.0), 0.0)
        taken = torch.rand(len(h), generator=state.generator, device=h.device) < accept
        weights, moving = pytree.tree_map(
            lambda new, old: torch.where(lifted(taken, new), new, old),
            (weights, moving),
            (state.z, state.moving),
        )
        values = moving.log_likelihood
        loss = -values.flatten(1).sum(1) / values.shape[1]
        return weights, moving, Measured(loss, torch.zeros_like(h), accept)


def _squares(vectors: dict[str, Tensor]) -> Tensor:
    return torch.stack([v.square().reshape(len(v), -1).sum(1) for v in vectors.values()]).sum(0)
