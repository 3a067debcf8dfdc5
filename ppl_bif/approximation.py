"""Draws from an approximation of a posterior: their record, and what each of them weighs."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.errors import BIFError
from ppl_bif.schema import group, inference_data, pareto_smoothed

__all__ = [
    "LOG_RATIO",
    "Weights",
    "approximation",
    "importance_weights",
    "is_weighted",
    "refuse_some_rows",
]

LOG_RATIO = "log_importance_ratio"
# Means are trusted up to 0.7 (Vehtari et al. 2024); covariances, which hang more on the tails, were
# 39% too small at 0.69 and 8,000 draws.
TRUSTED_K = 0.5


class Weights(NamedTuple):
    """What draws weigh.

    Attributes
    ----------
    values
        Pareto-smoothed, of mean 1, ``(chain, draw)``.
    log_ratios
        As they were, ``(chain, draw)``.
    k
        Pareto's shape.
    """

    values: np.ndarray
    log_ratios: np.ndarray
    k: float

    @property
    def effective(self) -> float:
        """As many draws of weight 1 as they are worth."""
        return float(self.values.sum() ** 2 / (self.values**2).sum())


def approximation(
    posterior: Mapping[str, np.ndarray],
    likelihood: Mapping[str, np.ndarray],
    observed: Mapping[str, np.ndarray],
    log_ratios: np.ndarray,
    *,
    weighted: bool,
    attrs: Mapping[str, Any],
) -> Any:
    """Make InferenceData of draws from an approximation.

    Parameters
    ----------
    posterior, likelihood
        Draws and pointwise log-likelihoods by variable, ``(chain, draw, ...)``.
    observed
        Data by variable.
    log_ratios
        log p(draw, data) - log q(draw), ``(chain, draw)``.
    weighted
        Whether the ratios are kept, as weights.
    attrs
        To which ``pareto_k`` and ``effective_draws`` are added.

    Raises
    ------
    ValueError
        If all draws are the same, or there are no data.
    """
    if not likelihood:
        raise ValueError("the model observes nothing: pass its data by args= or kwargs=")
    if all((draws == draws[:1, :1]).all() for draws in posterior.values()):
        raise ValueError(
            "all draws of the guide are the same, as of a point estimate: take a guide that has a "
            "spread, such as AutoLaplaceApproximation or AutoMultivariateNormal"
        )
    weights = _weights(log_ratios)
    chains, draws = (np.arange(n) for n in log_ratios.shape)
    coords = {"chain": chains, "draw": draws}
    groups = {
        "posterior": _dataset(posterior, ("chain", "draw"), coords),
        "log_likelihood": _dataset(likelihood, ("chain", "draw"), coords),
        "observed_data": _dataset(observed, (), {}),
    }
    if weighted:
        stats = {LOG_RATIO: (("chain", "draw"), log_ratios)}
        groups["sample_stats"] = xr.Dataset(stats, coords)
    known = {"pareto_k": weights.k, "effective_draws": weights.effective}
    return inference_data(groups, {**attrs, **known})


def _dataset(
    values: Mapping[str, np.ndarray], leading: tuple[str, ...], coords: Mapping[str, Any]
) -> xr.Dataset:
    return xr.Dataset(
        {
            name: ((*leading, *(f"{name}_dim_{i}" for i in range(a.ndim - len(leading)))), a)
            for name, a in values.items()
        },
        coords,
    )


def refuse_some_rows(plate: str, seen: int | None, total: int) -> None:
    """Raise ValueError where a plate of the model sees only some of its rows."""
    if seen not in (None, total):
        raise ValueError(
            f"plate {plate!r} sees {seen} of {total} rows at a time: pass a model, or arguments, "
            "that see all of them"
        )


def is_weighted(idata: Any) -> bool:
    """Say whether the draws of a run carry importance ratios."""
    stats = group(idata, "sample_stats")
    return stats is not None and LOG_RATIO in stats


def importance_weights(idata: Any, chains: list[int]) -> Weights | None:
    """Return what the draws of some chains weigh, None of draws from the posterior itself.

    Raises
    ------
    BIFError
        If a ratio is not a number.
    """
    stats = group(idata, "sample_stats")
    if stats is None or LOG_RATIO not in stats:
        return None
    weights = _weights(stats[LOG_RATIO].transpose("chain", "draw").values[chains])
    if not weights.k <= TRUSTED_K:
        warnings.warn(
            f"the draws are far off the posterior: pareto_k is {weights.k:.2f}, above {TRUSTED_K}, "
            f"and they weigh as much as {weights.effective:.0f}: take a richer guide or NUTS, or "
            "weighted=False for what the guide itself says",
            stacklevel=3,
        )
    return weights


def _weights(log_ratios: np.ndarray) -> Weights:
    if np.isnan(log_ratios).any() or np.isposinf(log_ratios).any():
        raise BIFError("some importance ratios are not finite: does the guide fit the model?")
    smooth, k = pareto_smoothed(log_ratios.ravel().astype(float))
    return Weights(log_ratios.size * np.exp(smooth).reshape(log_ratios.shape), log_ratios, k)
