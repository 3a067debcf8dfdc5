"""From a run of pyro.infer.MCMC to InferenceData, which ArviZ 1.x no longer does itself."""

from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from pyro import poutine
from torch import Tensor

from ppl_bif.schema import inference_data

__all__ = ["from_pyro", "is_subsample", "made_and_seen"]


def from_pyro(mcmc: Any, *, log_likelihood: bool = True, chunk_size: int = 64) -> Any:
    """Convert a finished ``pyro.infer.MCMC`` of any model and kernel to InferenceData.

    Parameters
    ----------
    mcmc
        What ``mcmc.run(...)`` was called on.
    log_likelihood
        Whether to evaluate the pointwise log-likelihood of each observed site at each draw.
    chunk_size
        Draws evaluated at once.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups ``posterior`` (chain, draw, ...), what ``pyro.deterministic`` names included,
        ``sample_stats`` with ``diverging``, ``observed_data``, and ``log_likelihood`` by observed
        site, in nats, not tempered; the ``inverse_temperature`` of a localized model is an
        attribute.

    Examples
    --------
    >>> import pyro, torch
    >>> from pyro.infer import MCMC, NUTS
    >>> def model(y):
    ...     mean = pyro.sample("mean", pyro.distributions.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", pyro.distributions.Normal(mean, 1.0), obs=y)
    >>> mcmc = MCMC(NUTS(model), num_samples=10, warmup_steps=5, disable_progbar=True)
    >>> mcmc.run(torch.zeros(4))
    >>> dict(from_pyro(mcmc)["log_likelihood"].sizes)
    {'chain': 1, 'draw': 10, 'y_dim_0': 4}
    """
    samples = mcmc.get_samples(group_by_chain=True)
    chains, draws = next(iter(samples.values())).shape[:2]
    coords = {"chain": np.arange(chains), "draw": np.arange(draws)}
    trace = poutine.trace(mcmc.kernel.model).get_trace(*mcmc._args, **mcmc._kwargs)
    observed = {name: site["value"] for name, site in trace.nodes.items() if _is_data(site)}
    made = any(map(_is_deterministic, trace.nodes.values()))
    groups = {
        "posterior": _dataset(samples, 2, coords),
        "sample_stats": xr.Dataset({"diverging": _diverging(mcmc, chains, draws)}, coords),
        "observed_data": _dataset(observed, 0, {}),
    }
    if made or (log_likelihood and observed):
        flat = {name: value.flatten(0, 1) for name, value in samples.items()}

        def one(weights: dict[str, Tensor]) -> Any:
            given = poutine.condition(mcmc.kernel.model, data=weights)
            trace = poutine.trace(given).get_trace(*mcmc._args, **mcmc._kwargs)
            return made_and_seen(trace, weights)

        with pyro.validation_enabled(False):
            found = torch.func.vmap(one, chunk_size=chunk_size, randomness="different")(flat)
        more, values = (
            _dataset({n: v.unflatten(0, (chains, draws)) for n, v in of.items()}, 2, coords)
            for of in found
        )
        groups["posterior"] = groups["posterior"].merge(more)
        if log_likelihood:
            groups["log_likelihood"] = values
    attrs = {"inference_library": "pyro", "inference_library_version": pyro.__version__}
    beta = getattr(mcmc.kernel.model, "inverse_temperature", None)
    return inference_data(groups, attrs | ({} if beta is None else {"inverse_temperature": beta}))


def _is_data(site: Any) -> bool:
    """Say whether a site of a trace is an observation."""
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not _is_deterministic(site)
        and not is_subsample(site)
    )


def is_subsample(site: Any) -> bool:
    """Say whether a site of a trace is which rows a plate sees."""
    return type(site.get("fn")).__name__ == "_Subsample"


def _is_deterministic(site: Any) -> bool:
    """Say whether a site of a trace is what ``pyro.deterministic`` names."""
    return bool(site["type"] == "sample" and site["infer"].get("_deterministic"))


def made_and_seen(
    trace: Any, values: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what a model that is conditioned on values makes of them, and its data's likelihoods.

    These are log-likelihoods by site, pointwise.
    """
    nodes = trace.nodes
    made = {name: site["value"] for name, site in nodes.items() if _is_deterministic(site)}
    # Sites that a model is conditioned on are observed as well.
    data = {name: site for name, site in nodes.items() if _is_data(site) and name not in values}
    return made, {name: site["fn"].log_prob(site["value"]) for name, site in data.items()}


def _diverging(mcmc: Any, chains: int, draws: int) -> tuple[tuple[str, str], np.ndarray]:
    diverging = np.zeros((chains, draws), dtype=bool)
    for chain, found in enumerate(mcmc._diagnostics):
        diverging[chain, list((found or {}).get("divergences", []))] = True
    return ("chain", "draw"), diverging


def _dataset(values: dict[str, Tensor], leading: int, coords: dict[str, Any]) -> xr.Dataset:
    dims = {
        name: ("chain", "draw")[:leading]
        + tuple(f"{name}_dim_{i}" for i in range(value.ndim - leading))
        for name, value in values.items()
    }
    arrays = {name: (dims[name], value.detach().cpu().numpy()) for name, value in values.items()}
    return xr.Dataset(arrays, coords)
