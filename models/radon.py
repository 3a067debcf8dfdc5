"""Radon in 919 homes of Minnesota, and a hierarchical regression of it in NumPyro.

Measured by the EPA (Price, Nero & Gelman 1996), as in Gelman & Hill (2007): how much less radon
there is on the first floor than in the basement, in each of 85 counties.
"""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Radon", "load", "model"]

DATA = Path(__file__).parent / "radon_data" / "radon.csv"


class Radon(NamedTuple):
    """The homes.

    Attributes
    ----------
    log_radon
        Logarithm of pCi/L, ``(home,)``.
    first_floor
        1 where it was measured on the first floor, 0 in the basement, ``(home,)``.
    county
        Number of the county, ``(home,)``.
    names
        Of the counties, ``(county,)``.
    """

    log_radon: np.ndarray
    first_floor: np.ndarray
    county: np.ndarray
    names: np.ndarray


def load() -> Radon:
    """Read the homes."""
    with DATA.open() as file:
        homes = list(csv.DictReader(file))
    names, county = np.unique([home["county"] for home in homes], return_inverse=True)
    radon, floor = (
        np.array([float(home[key]) for home in homes]) for key in ("log_radon", "first_floor")
    )
    return Radon(radon, floor, county, names)


def model(data: Radon, weight: Any = 1.0) -> None:
    """State the NumPyro model: intercepts and slopes of counties, drawn from common laws.

    Parameters
    ----------
    data
        The homes.
    weight
        Of each home's log-likelihood.
    """
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    # NumPyro takes no 0.
    scale = jnp.maximum(weight, 1e-9)

    intercept = numpyro.sample("intercept", dist.Normal(0, 5))
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    spread = numpyro.sample("spread", dist.HalfNormal(1).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    with numpyro.plate("county", len(data.names)):
        offset = numpyro.sample("offset", dist.Normal(0, 1).expand([2]).to_event(1))
    of = spread * offset[data.county]
    mean = intercept + of[:, 0] + (slope + of[:, 1]) * data.first_floor
    with numpyro.plate("home", len(data.county)), numpyro.handlers.scale(scale=scale):
        numpyro.sample("log_radon", dist.Normal(mean, noise), obs=data.log_radon)
