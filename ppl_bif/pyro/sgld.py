"""Stochastic gradient Langevin dynamics as a Pyro kernel (Welling & Teh 2011)."""

from typing import Any

import torch
from torch import Tensor

from ppl_bif.checks import whole
from ppl_bif.kernel import STEP_OVER_CURVATURE, choose_gradient
from ppl_bif.pyro.gradients import ControlVariates, Data, Minibatch, Partition
from ppl_bif.pyro.langevin import Langevin, Measured, State, lifted
from ppl_bif.pyro.model import LocalizedModel
from ppl_bif.pyro.preconditioners import scaled

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
        ``MCMC`` of Pyro.
    temperature
        T, which scales the injected noise; 1 samples the posterior, 0 descends.
    gradient
        ``"minibatch"``, ``"control_variates"`` (Baker et al. 2019), ``"partition"``, or one of the
        records of :mod:`ppl_bif.pyro.gradients`.
    preconditioner
        P: None for the identity, ``"rmsprop"``, ``"low_rank"``, or a record of
        :mod:`ppl_bif.pyro.preconditioners`; fitted in warm-up, then fixed.

    Examples
    --------
    >>> import torch
    >>> from pyro.infer import MCMC
    >>> from ppl_bif.pyro import SGLD, localize
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    >>> model = localize(net, likelihood="normal", localization=100.0)
    >>> kernel = SGLD(model, batch_size=8)
    >>> mcmc = MCMC(kernel, num_samples=20, warmup_steps=10, disable_progbar=True)
    >>> mcmc.run(torch.ones(16, 3), torch.ones(16))
    >>> mcmc.get_samples()["0.weight"].shape
    torch.Size([20, 1, 3])
    """

    name = "SGLD"
    stats = ("minibatch_loss", "gradient_noise", "step_size")

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
        self, state: State, data: Data, *, measure: bool
    ) -> tuple[dict[str, Tensor], Any, Measured]:
        (stored, root), generator, eps = state.shared, state.generator, state.step_size
        estimate = self.gradient(self._gradients, stored, generator, state.z, data, measure=measure)
        heat, half = (eps * self.temperature).sqrt(), -eps / 2
        slope = scaled(root, estimate.gradient)

        def change(name: str) -> Tensor:
            """Return -eps/2 S g + N(0, eps T) of a site; the step is S times that."""
            w = state.z[name]
            noise = self.model.noise(name, w, generator)
            return noise.mul_(lifted(heat, w)).addcmul_(lifted(half, w), slope[name])

        if root.identity:
            # Site by site, so that no second copy of the weights is held.
            for name, w in state.z.items():
                w.add_(change(name))
        else:
            moved = scaled(root, {name: change(name) for name in state.z})
            for name, w in state.z.items():
                w.add_(moved[name])
        injected = self.model.num_weights * self.temperature
        share = eps * estimate.noise / (4 * injected) if injected else estimate.noise
        return state.z, (), Measured(estimate.loss, share, torch.full_like(eps, torch.nan))
