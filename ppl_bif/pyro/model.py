"""The localized model: a trained network as a Pyro model, its prior centred on its weights."""

from collections.abc import Mapping
from copy import copy
from importlib import import_module
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ppl_bif.checks import (
    LIKELIHOODS,
    check_compute_dtype,
    check_finite_weights,
    check_outputs,
    positive,
    whole,
)
from ppl_bif.data import Batch, digest, inputs, logits, map_arrays, num_rows, target
from ppl_bif.kernel import ONE_DEVICE, as_localization, known_precision
from ppl_bif.memory import memory_per_row
from ppl_bif.pyro.likelihoods import as_likelihood
from ppl_bif.pyro.network import Network, as_network, is_sharded
from ppl_bif.pyro.precision import as_device, as_dtype, bytes_kept, free_memory, in_dtype, to_host
from ppl_bif.sites import Sites, select_sites

__all__ = ["LocalizedModel", "localize"]

PLATE, OBSERVED = "data", "obs"


class LocalizedModel:
    """A Pyro model ``model(*inputs, targets)`` of the weights near the trained ones.

    Made by :func:`localize`. Each sampled weight is a site of its own with prior
    ``Normal(w*, 1 / sqrt(localization))``; the targets are the site ``obs`` under a plate
    ``data`` over all rows, scaled by ``inverse_temperature``. NUTS, SVI, ``Predictive`` and
    ``log_likelihood`` of Pyro work on it unchanged.

    Attributes
    ----------
    mode : dict of str to Tensor
        The sampled weights at their trained values.
    sequential_only : bool
        Whether chains can only be moved one after another.
    """

    sequential_only = False

    def __init__(
        self,
        network: Network,
        *,
        likelihood: Any,
        localization: float | str,
        inverse_temperature: float,
        sites: Sites,
        rows_at_once: int | None = None,
    ) -> None:
        self.network = network
        self.likelihood = as_likelihood(likelihood)
        self.localization, self.localization_rule = as_localization(localization)
        self.inverse_temperature = positive("inverse_temperature", inverse_temperature)
        self.rows_at_once = None if rows_at_once is None else whole("rows_at_once", rows_at_once)
        chosen = select_sites(list(network.weights), sites)
        self.mode = {name: network.weights[name] for name in chosen}
        frozen = {n: w for n, w in network.weights.items() if n not in self.mode}
        self.frozen: dict[str, Tensor] = self.cast(frozen)
        held = {name: w.cpu().numpy() for name, w in network.weights.items()}
        check_finite_weights(held, self.mode)
        self._logits: dict[Any, int] = {}

    @property
    def num_weights(self) -> int:
        """Number of sampled weights, d."""
        return sum(w.numel() for w in self.mode.values())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the sampled weights, of their gradients and of log-likelihoods."""
        return next(iter(self.mode.values())).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.mode.values())).device

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the model beside its weights, for the record."""
        computed = self.network.compute_dtype
        return {
            "network": self.network.name,
            "likelihood": self.likelihood.name,
            "localization": self.localization or self.localization_rule,
            "inverse_temperature": self.inverse_temperature,
            **({"compute_dtype": str(computed).removeprefix("torch.")} if computed else {}),
        }

    @property
    def convolves_on_cpu(self) -> bool:
        """Whether the network is quickest with chains one by one and channels last."""
        return self.network.convolves and self.device.type == "cpu"

    def fingerprint(self) -> str:
        """Digest of all weights, sampled or not, and settings."""
        held = {**self.network.buffers, **self.network.weights}
        weights = {name: to_host(w) for name, w in held.items()}
        return digest(weights, list(self.mode), self.settings, self.network.structure)

    @property
    def precision(self) -> float:
        """The localization gamma; ValueError where it is not yet resolved."""
        return known_precision(self.localization)

    def make_kernel(self, name: str, **settings: Any) -> Any:
        """Return a kernel of this model by the name of its class."""
        # The kernels import this module.
        return getattr(import_module("ppl_bif.pyro"), name)(self, **settings)

    def make_slopes(self, data: Mapping[str, Batch]) -> Any:
        """Place data, and return the derivatives of their log-likelihoods."""
        if self.sequential_only:
            raise ValueError(ONE_DEVICE)
        return import_module("ppl_bif.pyro.slopes").Slopes(self, data)

    def resolve(self, localization: float) -> "LocalizedModel":
        """Return the same model with this localization."""
        other = copy(self)
        other.localization = positive("localization", localization)
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the model on all rows: ``model(x, y)``, or by name ``model(x=x, y=y)``."""
        batch: Batch = kwargs or args
        scale = self.precision**-0.5
        weights = {
            name: pyro.sample(name, dist.Normal(w, scale).to_event(w.ndim))
            for name, w in self.mode.items()
        }
        with (
            pyro.plate(PLATE, num_rows(batch)),
            poutine.scale(scale=self.inverse_temperature),
        ):
            # Leaves the data as it is where the plate sees all rows.
            seen = map_arrays(lambda a: pyro.subsample(a, event_dim=a.ndim - 1), batch)
            observed, value = self.likelihood.observe(self.outputs(weights, seen), seen)
            pyro.sample(OBSERVED, observed, obs=value)

    def cast(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights as the network computes with them; :meth:`outputs` takes either."""
        return in_dtype(dict(weights), self.network.compute_dtype)

    def outputs(self, weights: Mapping[str, Tensor], batch: Batch) -> Any:
        """Run the network at some weights on the inputs of a batch."""
        args, kwargs = inputs(batch)
        return self._run(weights, *args, **kwargs)

    def _run(self, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        computed = self.network.compute_dtype
        args, kwargs = in_dtype((args, kwargs), computed)
        found = self.network.apply({**self.frozen, **self.cast(weights)}, *args, **kwargs)
        found = logits(found) if self.likelihood.name in LIKELIHOODS else found
        return found if computed is None else in_dtype(found, self.dtype)

    def log_likelihood(self, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Pointwise log-likelihoods log p_i(w), not tempered, ``(row,)`` or ``(row, token)``."""
        return self.likelihood.pointwise(self.outputs(weights, batch), batch)

    def logits_per_row(self, batch: Batch) -> int:
        """Count the logits of a row of tokens, by running one; 0 of other likelihoods."""
        if self.likelihood.name != "tokens":
            return 0
        shape = target(batch).shape[1:]
        if shape not in self._logits:
            one = map_arrays(lambda a: torch.as_tensor(a[:1], device=self.device), batch)
            with torch.no_grad():
                self._logits[shape] = self.outputs(self.mode, one).numel()
        return self._logits[shape]

    def check(self, batch: Batch, name: str) -> None:
        """Raise ValueError where a batch does not fit the network and the likelihood."""

        def place(array: Any) -> Tensor:
            return torch.as_tensor(array, device=self.device)

        def outputs(*args: Any, **kwargs: Any) -> Any:
            named = {key: place(value) for key, value in kwargs.items()}
            return self._run(self.mode, *map(place, args), **named)

        def pointwise(out: Any, few: Batch) -> Tensor:
            with pyro.validation_enabled(False):
                return self.likelihood.pointwise(out, map_arrays(place, few))

        check_outputs(outputs, pointwise, self.likelihood.name, batch, name)

    def check_kernel(self, kernel: Any) -> None:
        """Raise ValueError for a kernel that this model cannot be sampled by."""

    def noise(self, name: str, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw standard normals for a site of all chains, ``(chain, ...)``."""
        return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)

    def total(self, part: Tensor) -> Tensor:
        """Return a sum over all weights, of which ``part`` is that over those held here."""
        return part

    def free_memory(self) -> int | None:
        """Bytes to be had on the GPU that holds the weights; None on other devices."""
        return free_memory(self.device)

    def memory_per_row(self, batch: Batch) -> int:
        """Bytes that a gradient keeps of each row, measured on two rows and on one."""
        return memory_per_row(self._kept, batch)

    def _kept(self, few: Batch) -> int:
        placed = map_arrays(lambda a: torch.as_tensor(a, device=self.device), few)
        leaves = {n: w.detach().requires_grad_() for n, w in self.cast(self.mode).items()}
        return bytes_kept(lambda: self.log_likelihood(leaves, placed))


def localize(
    network: Any,
    params: Any = None,
    *,
    likelihood: Any,
    localization: float | str = "auto",
    inverse_temperature: float = 1.0,
    sites: Sites = None,
    compute_dtype: str | None = None,
    rows_at_once: int | None = None,
    device: str = "auto",
) -> LocalizedModel:
    r"""Wrap a trained network as a Pyro model of the weights around it.

    The local posterior is
    $p(w) \propto \exp(-\beta \sum_i \ell_i(w) - \gamma/2\, \|w - w^*\|^2)$, with
    beta = ``inverse_temperature`` and gamma = ``localization`` (Kreer et al. 2025, Eq. 8).

    Parameters
    ----------
    network
        The trained ``torch.nn.Module``. It is left untouched: a copy in evaluation mode, with
        BatchNorm statistics and dropout frozen, is called with the weights of each draw. One under
        ``fully_shard`` is not copied: it is put into evaluation mode, and holds w* between passes.
    params
        Weights to centre on in place of the module's own, by name; all of them.
    likelihood
        ``"categorical"`` (outputs are logits ``(row, class)``), ``"bernoulli"`` (logits, shaped
        like the targets), ``"normal"`` (means, unit variance), ``"tokens"`` (logits
        ``(row, token, vocabulary)``, aligned with the targets, of which -100 is ignored), a
        callable from outputs to a Pyro distribution over ``(row,)``, or a callable
        ``(outputs, batch) -> log-likelihoods``, ``(row,)`` or ``(row, token)``.
    localization
        gamma, the precision of the prior $N(w^*, I/\gamma)$; positive. ``"auto"`` leaves it to
        :func:`ppl_bif.sample`, which takes 1/70 of the top eigenvalue of the Hessian of the
        tempered loss at w*, or more where weights outnumber rows and draws of that prior would
        raise the loss by over a nat, and records it; ``"weak"`` takes 1/200, for draws that
        :func:`ppl_bif.refine` scores. Everything else that uses the model needs a number.
    inverse_temperature
        beta, which multiplies the summed log-likelihood; positive; 1 is the true posterior.
    sites
        Which weights are sampled: names, glob patterns or a mask. The rest stay as trained.
    compute_dtype
        What the network computes with, such as ``"bfloat16"``: weights and floating-point inputs
        are cast to it in each pass, and outputs back. The sampled weights, prior, noise, steps and
        log-likelihoods stay float32, because a step is smaller than bfloat16 can tell. None leaves
        all as it is; weights that are of half precision are sampled in float32, and computed with
        as they were.
    rows_at_once
        Rows that a gradient holds at once: one of more rows is accumulated, which takes less memory
        and changes nothing else. None: all rows of a minibatch, and of the full gradient at most
        2,048, fewer where they have very many logits.
    device
        ``"auto"`` runs where the network is; ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` copy it there.

    Returns
    -------
    LocalizedModel
        A Pyro model, to be called with ``(*inputs, targets)``.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range, the likelihood or a site is unknown, or weights are not
        finite.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False), torch.nn.Flatten(0))
    >>> model = localize(net, likelihood="normal")
    >>> model.num_weights
    3
    """
    computed = as_dtype(check_compute_dtype(compute_dtype))
    settings = {
        "likelihood": likelihood,
        "localization": localization,
        "inverse_temperature": inverse_temperature,
        "sites": sites,
        "rows_at_once": rows_at_once,
    }
    if is_sharded(network):
        if params is not None or computed is not None or device != "auto":
            raise ValueError(
                "a sharded network is taken as it is: load params into it, pass fully_shard a "
                "mp_policy instead of compute_dtype, and leave device out"
            )
        # That module imports this one.
        return import_module("ppl_bif.pyro.sharded").ShardedModel(network, **settings)
    found = as_network(network, params, compute_dtype=computed, device=as_device(device))
    return LocalizedModel(found, **settings)
