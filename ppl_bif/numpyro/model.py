"""The localized model: a trained network as a NumPyro model, its prior centred on its weights."""

from collections.abc import Mapping
from copy import copy
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers

from ppl_bif.checks import (
    LIKELIHOODS,
    check_compute_dtype,
    check_finite_weights,
    check_outputs,
    positive,
    whole,
)
from ppl_bif.data import Batch, digest, inputs, logits, map_arrays, num_rows
from ppl_bif.kernel import ONE_DEVICE, as_localization, known_precision
from ppl_bif.memory import memory_per_row
from ppl_bif.numpyro.likelihoods import as_likelihood
from ppl_bif.numpyro.network import Network, as_network
from ppl_bif.numpyro.precision import as_device, as_dtype, bytes_kept, free_memory, in_dtype
from ppl_bif.numpyro.sharded import constrained, everywhere, laid_out, shardings
from ppl_bif.sites import Sites, select_sites

__all__ = ["Held", "LocalizedModel", "localize"]

PLATE, OBSERVED = "data", "obs"

Held = tuple[dict[str, Array], dict[str, Array], Any]


class LocalizedModel:
    """A NumPyro model ``model(*inputs, targets)`` of the weights near the trained ones.

    Made by :func:`localize`. Each sampled weight is a site of its own with prior
    ``Normal(w*, 1 / sqrt(localization))``; the targets are the site ``obs`` under a plate
    ``data`` over all rows, scaled by ``inverse_temperature``. NUTS, SVI, ``Predictive`` and
    ``log_likelihood`` of NumPyro work on it unchanged.

    Attributes
    ----------
    mode : dict of str to Array
        The sampled weights at their trained values.
    sequential_only : bool
        Whether chains can only be moved one after another: never, in JAX.
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
        self.laid = shardings(network.weights)
        self.network = network = network._replace(weights=laid_out(network.weights, self.laid))
        self.likelihood = as_likelihood(likelihood)
        self.localization, self.localization_rule = as_localization(localization)
        self.inverse_temperature = positive("inverse_temperature", inverse_temperature)
        self.rows_at_once = None if rows_at_once is None else whole("rows_at_once", rows_at_once)
        chosen = select_sites(list(network.weights), sites)
        self.mode = {name: network.weights[name] for name in chosen}
        frozen = {n: w for n, w in network.weights.items() if n not in self.mode}
        self.frozen: dict[str, Array] = self.cast(frozen)
        held = {name: np.asarray(w) for name, w in network.weights.items()}
        check_finite_weights(held, self.mode)
        self._program = self._shared_program() if isinstance(likelihood, str) else (object(),)

    @property
    def num_weights(self) -> int:
        """Number of sampled weights, d."""
        return sum(w.size for w in self.mode.values())

    @property
    def dtype(self) -> Any:
        """Type of the sampled weights, of their gradients and of log-likelihoods."""
        return next(iter(self.mode.values())).dtype

    @property
    def device(self) -> jax.Device:
        """Where the weights are."""
        return next(iter(next(iter(self.mode.values())).devices()))

    @property
    def data_place(self) -> Any:
        """Where data go: to the device of the weights, or to all of their mesh."""
        return everywhere(next(iter(self.mode.values())).sharding)

    def constrained(self, weights: dict[str, Array]) -> dict[str, Array]:
        """Keep weights, with or without a chain axis, as the trained ones lie on a mesh."""
        return constrained(self.laid, weights)

    @property
    def settings(self) -> dict[str, Any]:
        """What defines the model beside its weights, for the record."""
        computed = self.network.compute_dtype
        return {
            "network": self.network.name,
            "likelihood": self.likelihood.name,
            "localization": self.localization or self.localization_rule,
            "inverse_temperature": self.inverse_temperature,
            **({"compute_dtype": str(computed)} if computed else {}),
        }

    def fingerprint(self) -> str:
        """Digest of all weights, sampled or not, and settings."""
        weights = {name: np.asarray(w) for name, w in self.network.weights.items()}
        return digest(weights, list(self.mode), self.settings, self.network.structure)

    @property
    def precision(self) -> float:
        """The localization gamma; ValueError where it is not yet resolved."""
        return known_precision(self.localization)

    def make_kernel(self, name: str, **settings: Any) -> Any:
        """Return a kernel of this model by the name of its class."""
        # The kernels import this module.
        return getattr(import_module("ppl_bif.numpyro"), name)(self, **settings)

    def make_slopes(self, data: Mapping[str, Batch]) -> Any:
        """Place data, and return the derivatives of their log-likelihoods."""
        if self.laid:
            raise ValueError(ONE_DEVICE)
        return import_module("ppl_bif.numpyro.slopes").Slopes(self, data)

    def resolve(self, localization: float) -> "LocalizedModel":
        """Return the same model with this localization."""
        other = copy(self)
        other.localization = positive("localization", localization)
        return other

    @property
    def program(self) -> tuple[Any, ...]:
        """What compiled functions of the model depend on beside what it holds."""
        return self._program

    def _shared_program(self) -> tuple[Any, ...]:
        network = self.network
        if network.program is None or self.laid:
            return (object(),)
        settings = self.likelihood.name, self.inverse_temperature, self.rows_at_once
        computed = str(network.compute_dtype)
        return (network.program, network.structure, computed, *settings, tuple(self.mode))

    @property
    def held(self) -> Held:
        """The weights at their trained values, those sampled and those not, and gamma if known."""
        return self.mode, self.frozen, self.localization

    def holding(self, held: Held) -> "LocalizedModel":
        """Return the same model around these arrays, as arguments of a compiled function."""
        other = copy(self)
        other.mode, other.frozen, other.localization = held
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the model on all rows: ``model(x, y)``, or by name ``model(x=x, y=y)``."""
        batch: Batch = map_arrays(jnp.asarray, kwargs or args)
        scale = self.precision**-0.5
        weights = {
            name: numpyro.sample(name, dist.Normal(w, scale).to_event(w.ndim))
            for name, w in self.mode.items()
        }
        with (
            numpyro.plate(PLATE, num_rows(batch)) as rows,
            handlers.scale(scale=self.inverse_temperature),
        ):
            seen = map_arrays(lambda a: a[rows], batch)
            observed, value = self.likelihood.observe(self.outputs(weights, seen), seen)
            numpyro.sample(OBSERVED, observed, obs=value)

    def cast(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Return weights as the network computes with them; :meth:`outputs` takes either."""
        return in_dtype(dict(weights), self.network.compute_dtype)

    def outputs(self, weights: Mapping[str, Array], batch: Batch) -> Any:
        """Run the network at some weights on the inputs of a batch."""
        args, kwargs = inputs(batch)
        return self._run(weights, *args, **kwargs)

    def _run(self, weights: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
        computed = self.network.compute_dtype
        args, kwargs = in_dtype((args, kwargs), computed)
        found = self.network.apply({**self.frozen, **self.cast(weights)}, *args, **kwargs)
        found = logits(found) if self.likelihood.name in LIKELIHOODS else found
        return found if computed is None else in_dtype(found, self.dtype)

    def logits_per_row(self, batch: Batch) -> int:
        """Count the logits of a row of tokens; 0 of other likelihoods."""
        if self.likelihood.name != "tokens":
            return 0
        one = map_arrays(lambda a: a[:1], batch)
        return jax.eval_shape(self.outputs, self.mode, one).size

    def log_likelihood(self, weights: Mapping[str, Array], batch: Batch) -> Array:
        """Pointwise log-likelihoods log p_i(w), not tempered, ``(row,)`` or ``(row, token)``."""
        return self.likelihood.pointwise(self.outputs(weights, batch), batch)

    def check(self, batch: Batch, name: str) -> None:
        """Raise ValueError where a batch does not fit the network and the likelihood."""

        def outputs(*args: Any, **kwargs: Any) -> Any:
            return self._run(self.mode, *args, **kwargs)

        check_outputs(outputs, self.likelihood.pointwise, self.likelihood.name, batch, name)

    def free_memory(self) -> int | None:
        """Bytes to be had on the GPU that holds the weights; None on other devices."""
        return free_memory(self.device)

    def memory_per_row(self, batch: Batch) -> int:
        """Bytes that a gradient keeps of each row, told from two rows and from one."""
        return memory_per_row(self._kept, batch)

    def _kept(self, few: Batch) -> int:
        return bytes_kept(self, self.cast(self.mode), few)


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
    r"""Wrap a trained network as a NumPyro model of the weights around it.

    The local posterior is
    $p(w) \propto \exp(-\beta \sum_i \ell_i(w) - \gamma/2\, \|w - w^*\|^2)$, with
    beta = ``inverse_temperature`` and gamma = ``localization`` (Kreer et al. 2025, Eq. 8).

    Parameters
    ----------
    network
        A pure function ``apply(params, *inputs)``, a flax (linen or nnx) module or an equinox
        module. Modules are used in evaluation mode, as copies.
    params
        Trained weights, a pytree; left out for nnx and equinox modules, which carry theirs.
    likelihood
        ``"categorical"`` (outputs are logits ``(row, class)``), ``"bernoulli"`` (logits, shaped
        like the targets), ``"normal"`` (means, unit variance), ``"tokens"`` (logits
        ``(row, token, vocabulary)``, aligned with the targets, of which -100 is ignored), a
        callable from outputs to a NumPyro distribution over ``(row,)``, or a callable
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
        ``"auto"`` runs where the weights are; ``"cpu"``, ``"cuda"``, ``"cuda:1"`` copy them there.

    Returns
    -------
    LocalizedModel
        A NumPyro model, to be called with ``(*inputs, targets)``.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range, the likelihood or a site is unknown, or weights are not
        finite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> model = localize(lambda p, x: x @ p["w"], {"w": jnp.zeros(3)}, likelihood="normal")
    >>> model.num_weights
    3
    """
    computed = as_dtype(check_compute_dtype(compute_dtype))
    return LocalizedModel(
        as_network(network, params, compute_dtype=computed, device=as_device(device)),
        likelihood=likelihood,
        localization=localization,
        inverse_temperature=inverse_temperature,
        sites=sites,
        rows_at_once=rows_at_once,
    )
