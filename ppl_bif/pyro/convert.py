"""From a run of pyro.infer.MCMC to InferenceData, which ArviZ 1.x no longer does itself."""

from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from pyro import poutine
from torch import Tensor

from ppl_bif.schema import inference_data

__all__ = ["from_pyro"]


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
        Groups ``posterior`` (chain, draw, ...), ``sample_stats`` with ``diverging``,
        ``observed_data``, and ``log_likelihood`` by observed site, in nats, not tempered.

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
    groups = {
        "posterior": _dataset(samples, 2, coords),
        "sample_stats": xr.Dataset({"diverging": _diverging(mcmc, chains, draws)}, coords),
        "observed_data": _dataset(_observed(mcmc), 0, {}),
    }
    if log_likelihood and groups["observed_data"].data_vars:
        flat = {name: value.flatten(0, 1) for name, value in samples.items()}
        with pyro.validation_enabled(False):
            values = torch.func.vmap(
                lambda weights: _pointwise(mcmc, weights),
                chunk_size=chunk_size,
                randomness="different",
            )(flat)
        grouped = {name: v.unflatten(0, (chains, draws)) for name, v in values.items()}
        groups["log_likelihood"] = _dataset(grouped, 2, coords)
    return inference_data(
        groups,
        {"inference_library": "pyro", "inference_library_version": pyro.__version__},
    )


def _trace(mcmc: Any, values: dict[str, Tensor]) -> Any:
    conditioned = poutine.condition(mcmc.kernel.model, data=values)
    return poutine.trace(conditioned).get_trace(*mcmc._args, **mcmc._kwargs)


def _observed(mcmc: Any) -> dict[str, Tensor]:
    trace = poutine.trace(mcmc.kernel.model).get_trace(*mcmc._args, **mcmc._kwargs)
    return {name: trace.nodes[name]["value"] for name in trace.observation_nodes}


def _pointwise(mcmc: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
    nodes = _trace(mcmc, values).nodes
    observed = [
        name
        for name, site in nodes.items()
        if site["type"] == "sample"
        and site["is_observed"]
        and name not in values
        and type(site["fn"]).__name__ != "_Subsample"
    ]
    return {name: nodes[name]["fn"].log_prob(nodes[name]["value"]) for name in observed}


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
