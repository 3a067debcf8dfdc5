"""Is a run what it claims to be? Energy, drift and loss of its chains against its posterior."""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.schema import arviz, group, root_attrs, usable_chains

__all__ = ["Health", "health", "reasons_to_refuse"]

# Beyond these a chain has not sampled its posterior, whatever its scores look like. There is no
# lower limit to the energy: a posterior may have its mode, and its mass, below w*.
HOTTEST, RHAT, DIVERGED = 2.0, 1.5, 0.5


class Health(NamedTuple):
    """State of the usable chains; NaN where a run does not say.

    Attributes
    ----------
    loss_rise
        Of the mean training loss over that at w*, nats.
    distance
        Mean of ||w - w*||.
    energy_ratio
        Mean rise of the potential over d/2, its value for a Gaussian posterior.
    wandering
        Split R-hat of the log posterior, or of the distance, whichever is larger.
    diverged
        Share of all chains that diverged, and are left out of the rest.
    """

    loss_rise: float
    distance: float
    energy_ratio: float
    wandering: float
    diverged: float


def health(idata: Any) -> Health:
    """Measure a run; any InferenceData may be asked, most say little."""
    used, excluded = usable_chains(idata)
    diverged = len(excluded) / (len(used) + len(excluded))
    stats, constant = group(idata, "sample_stats"), group(idata, "constant_data")
    settings = root_attrs(idata)
    if stats is None or constant is None or "train_loss" not in stats:
        return Health(math.nan, math.nan, math.nan, math.nan, diverged)
    kept = stats.isel(chain=used)
    at_mode = constant["train_loss_at_mode"]
    rows = at_mode.sizes["train"]
    rise = float(kept["train_loss"].mean()) - float(at_mode.sum()) / rows
    energy = settings.get("inverse_temperature", math.nan) * rows * rise
    energy += settings.get("localization", math.nan) / 2 * float((kept["distance"] ** 2).mean())
    injected = settings.get("temperature", 1.0) * settings.get("num_weights", math.nan) / 2
    return Health(
        rise,
        float(kept["distance"].mean()),
        energy / injected if injected else math.nan,
        float(np.fmax(_rhat(kept, "lp"), _rhat(kept, "distance"))),
        diverged,
    )


def _rhat(stats: xr.Dataset, name: str) -> float:
    if name not in stats or stats.sizes["draw"] < 4:
        return math.nan
    series = stats[name]
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(arviz().rhat(series.to_dataset(name="x"), method="split")["x"])


def reasons_to_refuse(found: Health) -> list[str]:
    """Say why the scores of a run would be wrong; empty if nothing tells against it."""
    reasons = []
    if found.energy_ratio > HOTTEST:
        reasons.append(
            f"its energy is {found.energy_ratio:.3g} times that of its posterior (wanted below "
            f"{HOTTEST:g}): the step, or minibatch noise, heats the chains"
        )
    if found.wandering > RHAT:
        reasons.append(
            f"its chains still wander (R-hat of their log posterior or distance is "
            f"{found.wandering:.3g}, wanted below {RHAT:g}): every pair of losses looks related"
        )
    if found.diverged > DIVERGED:
        reasons.append(
            f"{found.diverged:.0%} of its chains diverged (wanted at most {DIVERGED:.0%}): those "
            "left are what survived, not a sample"
        )
    if found.distance == 0:
        reasons.append("its chains never left the trained weights: every step was rejected")
    return reasons
