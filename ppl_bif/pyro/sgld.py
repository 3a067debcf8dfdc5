"""Stochastic gradient Langevin dynamics as a Pyro kernel (Welling & Teh 2011)."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from ppl_bif.checks import positive, whole
from ppl_bif.data import Batch, num_rows
from ppl_bif.kernel import STEP_OVER_CURVATURE, check_batch_size, check_temperature
from ppl_bif.pyro.curvature import curvature
from ppl_bif.pyro.engine import Engine
from ppl_bif.pyro.gradients import energy_gradient, minibatch, minibatch_with_noise
from ppl_bif.pyro.model import LocalizedModel

__all__ = ["SGLD", "SGLDState"]


class SGLDState(NamedTuple):
    """State of some chains after a draw.

    Attributes
    ----------
    z
        Weights by site, ``(chain, ...)``.
    minibatch_loss
        Mean loss of the last minibatch, before the last step, ``(chain,)``.
    gradient_noise
        Variance that the minibatch adds to a step, over the variance eps T of the injected noise,
        ``(chain,)``.
    step_size
        eps, ``(chain,)``.
    generator
        Source of the draws to come; None is PyTorch's global one.
    """

    z: dict[str, Tensor]
    minibatch_loss: Tensor
    gradient_noise: Tensor
    step_size: Tensor
    generator: torch.Generator | None


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
    >>> import torch
    >>> from pyro.infer import MCMC
    >>> from ppl_bif.pyro import SGLD, localize
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    >>> kernel = SGLD(localize(net, likelihood="normal"), batch_size=8)
    >>> mcmc = MCMC(kernel, num_samples=20, warmup_steps=10, disable_progbar=True)
    >>> mcmc.run(torch.ones(16, 3), torch.ones(16))
    >>> mcmc.get_samples()["0.weight"].shape
    torch.Size([20, 1, 3])
    """

    # The fields of the state that ``sample`` records beside the distance.
    stats = ("minibatch_loss", "gradient_noise", "step_size")

    def __init__(
        self,
        model: LocalizedModel,
        *,
        step_size: float | None = None,
        batch_size: int = 64,
        steps_per_draw: int = 5,
        temperature: float = 1.0,
    ) -> None:
        self.model = model
        self._gradient = energy_gradient(model)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.batch_size = whole("batch_size", batch_size)
        self.steps_per_draw = whole("steps_per_draw", steps_per_draw)
        self.temperature = check_temperature(temperature)
        # Weights are unconstrained; MCMC asks for transforms by this name.
        self.transforms: dict[str, Any] = {}

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

    def suggest_step_size(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
        """Return the default step size for some data: 0.5 over the top curvature at w*."""
        return STEP_OVER_CURVATURE / curvature(self.model, args, kwargs)

    def init(
        self,
        generator: torch.Generator | None,
        weights: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> SGLDState:
        """Start chains at some weights, ``(chain, ...)`` by site."""
        check_batch_size(self.batch_size, num_rows(dict(kwargs) or args))
        step = self.step_size
        if step is None:
            step = self.suggest_step_size(args, kwargs)
        example = next(iter(weights.values()))
        unknown = example.new_full((len(example),), torch.nan)
        return SGLDState(dict(weights), unknown, unknown, torch.full_like(unknown, step), generator)

    def draw(self, state: SGLDState, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> SGLDState:
        """Make one draw of all chains, ``steps_per_draw`` steps on."""
        size = {
            "num_rows": num_rows(dict(kwargs) or args),
            "batch_size": self.batch_size,
        }
        weights, generator = state.z, state.generator
        for _ in range(self.steps_per_draw - 1):
            gradient = minibatch(self._gradient, generator, weights, args, kwargs, **size).gradient
            weights = self._move(weights, gradient, state)
        estimate = minibatch_with_noise(self._gradient, generator, weights, args, kwargs, **size)
        injected = self.model.num_weights * self.temperature
        noise = estimate.noise
        return state._replace(
            z=self._move(weights, estimate.gradient, state),
            minibatch_loss=estimate.loss,
            gradient_noise=state.step_size * noise / (4 * injected) if injected else noise,
        )

    def _move(
        self, weights: dict[str, Tensor], gradient: dict[str, Tensor], state: SGLDState
    ) -> dict[str, Tensor]:
        eps = state.step_size
        chains, sizes = len(eps), [w[0].numel() for w in weights.values()]
        flat = torch.randn(
            chains, sum(sizes), generator=state.generator, device=eps.device, dtype=eps.dtype
        )
        noises = (flat * (eps * self.temperature).sqrt()[:, None]).split(sizes, dim=1)
        return {
            name: w - (eps / 2).view(-1, *(1,) * (w.ndim - 1)) * gradient[name] + noise.view_as(w)
            for (name, w), noise in zip(weights.items(), noises, strict=True)
        }

    def bind(self, data: Mapping[str, Batch], *, evaluation_batch_size: int) -> Engine:
        """Make ready to be driven by :func:`ppl_bif.sample` over ``train`` and ``query``."""
        return Engine(self, data, evaluation_batch_size=evaluation_batch_size)

    # What pyro.infer.MCMC calls; it moves one chain, with PyTorch's global generator.

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Take the data of a run."""
        self._args, self._kwargs = args, kwargs
        self._warmup, self._draws = warmup_steps, 0
        self._divergences: list[int] = []
        start = {name: w.unsqueeze(0) for name, w in self.model.mode.items()}
        self._state = self.init(None, start, args, kwargs)
        self._initial_params: dict[str, Tensor] = dict(self.model.mode)

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """Weights to start at: the trained ones unless others were set."""
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._initial_params = params

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make one draw, ``steps_per_draw`` steps on from ``params``."""
        state = self._state._replace(z={name: w.unsqueeze(0) for name, w in params.items()})
        self._state = self.draw(state, self._args, self._kwargs)
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
