"""Coaching in eight schools (Rubin 1981): estimated effects, and the hierarchical NumPyro model."""

from typing import Any

import numpy as np

__all__ = ["ERRORS", "ESTIMATES", "SCHOOLS", "model"]

NAMES = "Choate, Deerfield, Andover, Exeter, Hotchkiss, Lawrenceville, St. Paul's, Mt. Hermon"
SCHOOLS = np.array(NAMES.split(", "))
ESTIMATES = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model(weight: Any = 1.0) -> None:
    """State the model, not centred.

    Parameters
    ----------
    weight
        Of each school's log-likelihood.
    """
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    # NumPyro takes no 0.
    scale = jnp.maximum(weight, 1e-9)

    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(ESTIMATES)):
        offset = numpyro.sample("offset", dist.Normal(0, 1))
    theta = numpyro.deterministic("theta", mu + tau * offset)
    with numpyro.plate("school", len(ESTIMATES)), numpyro.handlers.scale(scale=scale):
        numpyro.sample("effect", dist.Normal(theta, ERRORS), obs=ESTIMATES)
