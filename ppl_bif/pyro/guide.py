"""Draws from a guide of Pyro's SVI, weighted towards the posterior, as InferenceData."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoLaplaceApproximation
from torch import Tensor

from ppl_bif.approximation import approximation, refuse_some_rows
from ppl_bif.pyro.convert import is_subsample, made_and_seen

__all__ = ["from_guide"]


def from_guide(
    model: Any,
    guide: Any,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    chains: int = 4,
    draws: int = 1000,
    seed: int = 0,
    weighted: bool = True,
    chunk_size: int = 256,
) -> Any:
    r"""Draw from a fitted guide, and say what each draw weighs under the posterior.

    A draw z of the guide q stands for the posterior with weight p(z, data) / q(z), Pareto-smoothed
    (Yao et al. 2018; Vehtari et al. 2024). :func:`ppl_bif.influence`, :func:`ppl_bif.reweight` and
    :func:`ppl_bif.jackknife` take these weights; ArviZ's functions do not.

    Parameters
    ----------
    model, guide
        As they were given to ``SVI``: any guide, such as an AutoGuide. An
        ``AutoLaplaceApproximation`` is drawn from at its mode with the Hessian there.
    args, kwargs
        Of the model: its data, all rows of it.
    chains, draws
        Independent draws, laid out as so many chains.
    seed
        Of the draws.
    weighted
        Whether to weight the draws. False leaves them as the guide's own, in which a mean-field
        guide's covariances are those of its factors.
    chunk_size
        Draws evaluated at once.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups ``posterior``, ``log_likelihood`` by observed site, ``observed_data`` and, where
        weighted, ``sample_stats`` with ``log_importance_ratio``. Attributes ``pareto_k``, the k-hat
        that says whether the guide is near enough (below 0.5: covariances hang on the tails), and
        ``effective_draws``.

    Raises
    ------
    ValueError
        If the guide has no spread, or the model sees only some of its rows.
    BIFError
        If a weight is not finite.

    Examples
    --------
    >>> from pyro.infer import SVI, Trace_ELBO
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(y):
    ...     mean = pyro.sample("mean", pyro.distributions.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", pyro.distributions.Normal(mean, 1.0), obs=y)
    >>> y, guide = torch.tensor([0.5, 1.0, 2.0]), AutoNormal(model)
    >>> pyro.clear_param_store()
    >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    >>> losses = [svi.step(y) for _ in range(300)]
    >>> run = from_guide(model, guide, args=(y,))
    >>> run.attrs["pareto_k"] < 0.5
    True
    """
    kwargs = dict(kwargs or {})
    if isinstance(guide, AutoLaplaceApproximation):
        guide = guide.laplace_approximation(*args, **kwargs)

    def one(values: dict[str, Tensor]) -> tuple[Any, ...]:
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(*args, **kwargs)
        return *made_and_seen(trace, values), trace.log_prob_sum()

    trace = poutine.trace(model).get_trace(*args, **kwargs)
    _refuse_some_rows(trace)
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        # One by one: torch.func.vmap does not take what Pyro's distributions draw by.
        drawn, log_q = zip(
            *(_draw(guide, args, kwargs) for _ in range(chains * draws)), strict=True
        )
        latent = {name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}
        made, likelihood, log_p = torch.func.vmap(
            one, randomness="different", chunk_size=chunk_size
        )(latent)
        log_ratios = log_p - torch.stack(log_q)

    def by_chain(values: Tensor) -> Any:
        return values.unflatten(0, (chains, draws)).cpu().numpy()

    return approximation(
        {name: by_chain(values) for name, values in (latent | made).items()},
        {name: by_chain(values) for name, values in likelihood.items()},
        {name: trace.nodes[name]["value"].detach().cpu().numpy() for name in likelihood},
        by_chain(log_ratios),
        weighted=weighted,
        attrs={
            "inference_library": "pyro",
            "inference_library_version": pyro.__version__,
            "guide": type(guide).__name__,
            "inverse_temperature": float(getattr(model, "inverse_temperature", 1.0)),
        },
    )


def _refuse_some_rows(trace: Any) -> None:
    for name, site in trace.nodes.items():
        if is_subsample(site):
            refuse_some_rows(name, site["fn"].subsample_size, site["fn"].size)


def _draw(guide: Any, args: Any, kwargs: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Return what the guide says of the model's sites, and its log density there."""
    trace = poutine.trace(guide).get_trace(*args, **kwargs)
    sites = trace.nodes.items()
    values = {
        name: site["value"]
        for name, site in sites
        if site["type"] == "sample"
        and not site["is_observed"]
        and not site["infer"].get("is_auxiliary")
        and not is_subsample(site)
    }
    return values, trace.log_prob_sum()
