"""Draws from a guide of NumPyro's SVI, weighted towards the posterior, as InferenceData."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro import handlers
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from numpyro.infer.util import log_density

from ppl_bif.approximation import approximation, refuse_some_rows

__all__ = ["from_guide"]


def from_guide(
    model: Any,
    guide: Any,
    params: Mapping[str, Any],
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
    params
        What SVI found: ``result.params``.
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
    >>> from numpyro import distributions as dist
    >>> from numpyro.infer import SVI, Trace_ELBO
    >>> from numpyro.infer.autoguide import AutoNormal
    >>> def model(y):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("data", len(y)):
    ...         numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> y, guide = jnp.array([0.5, 1.0, 2.0]), AutoNormal(model)
    >>> svi = SVI(model, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
    >>> params = svi.run(jax.random.key(0), 500, y, progress_bar=False).params
    >>> run = from_guide(model, guide, params, args=(y,))
    >>> run.attrs["pareto_k"] < 0.5
    True
    """
    kwargs = dict(kwargs or {})
    if isinstance(guide, AutoLaplaceApproximation):
        guide, params = _as_normal(guide, params, args, kwargs)

    def one(key: Array) -> tuple[Any, ...]:
        of_guide, of_model = jax.random.split(key)
        log_q, drawn = log_density(handlers.seed(guide, of_guide), args, kwargs, dict(params))
        joint = handlers.replay(handlers.seed(model, of_model), drawn)
        log_p, trace = log_density(joint, args, kwargs, dict(params))
        return *_sites(trace), log_p - log_q

    _refuse_some_rows(model, params, args, kwargs)
    keys = jax.random.split(jax.random.key(seed), chains * draws)
    found = jax.lax.map(one, keys, batch_size=min(chunk_size, len(keys)))
    posterior, likelihood, log_ratios = jax.tree.map(
        lambda a: np.asarray(a).reshape(chains, draws, *a.shape[1:]), found
    )
    observed = _trace(model, params, args, kwargs)
    return approximation(
        posterior,
        likelihood,
        {name: np.asarray(observed[name]["value"]) for name in likelihood},
        log_ratios,
        weighted=weighted,
        attrs={
            "inference_library": "numpyro",
            "inference_library_version": numpyro.__version__,
            "guide": type(guide).__name__,
            "inverse_temperature": float(getattr(model, "inverse_temperature", 1.0)),
        },
    )


def _as_normal(
    guide: AutoLaplaceApproximation, params: Mapping[str, Any], args: Any, kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """Return the normal guide that a Laplace approximation is, and its parameters."""
    found, normal = guide.get_transform(params), AutoMultivariateNormal(guide.model)
    with handlers.block(), handlers.seed(rng_seed=0):
        normal(*args, **kwargs)
    names = {"loc": found.loc, "scale_tril": found.scale_tril}
    return normal, {**params, **{f"{normal.prefix}_{name}": of for name, of in names.items()}}


def _trace(model: Any, params: Mapping[str, Any], args: Any, kwargs: Any) -> dict[str, Any]:
    seeded = handlers.seed(handlers.substitute(model, data=dict(params)), jax.random.key(0))
    return handlers.trace(seeded).get_trace(*args, **kwargs)


def _refuse_some_rows(model: Any, params: Mapping[str, Any], args: Any, kwargs: Any) -> None:
    for name, site in _trace(model, params, args, kwargs).items():
        if site["type"] == "plate":
            total, seen = site["args"]
            refuse_some_rows(name, seen, total)


def _sites(trace: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the values of what is not observed, and the log-likelihoods of what is."""
    values, likelihood = {}, {}
    for name, site in trace.items():
        if site["type"] == "sample" and site["is_observed"]:
            likelihood[name] = site["fn"].log_prob(site["value"])
        elif site["type"] in ("sample", "deterministic"):
            values[name] = jnp.asarray(site["value"])
    return values, likelihood
