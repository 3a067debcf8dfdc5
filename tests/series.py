"""Series with known laws: AR(1) chains, and runs made of them."""

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from ppl_bif.schema import inference_data


def ar1(rng, shape, rho):
    """Draw stationary AR(1) chains of unit variance, ``(chain, draw, ...)``."""
    noise = np.sqrt(1 - rho**2) * rng.normal(size=shape)
    noise[:, 0] /= np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=1)


def correlated(rng, shape, rho, correlation):
    """Draw pairs of AR(1) series whose stationary correlation is as given."""
    a, b = ar1(rng, shape, rho), ar1(rng, shape, rho)
    return a, correlation * a + np.sqrt(1 - correlation**2) * b


def factors(rng, draws, *, scale=0.5, rho=0.3, chains=4, train=40, query=12):
    """Draw train and query series that share three factors, and their true covariances."""
    fixed = np.random.default_rng(7)
    a, b = scale * fixed.normal(size=(3, train)), scale * fixed.normal(size=(3, query))
    shared = ar1(rng, (chains, draws, 3), rho)
    own = [ar1(rng, (chains, draws, rows), rho) for rows in (train, query)]
    return shared @ a + own[0], shared @ b + own[1], b.T @ a


def run_of(train, query, *, stats=None, posterior=None, constant=None, attrs=None, coords=None):
    """Make a run of log-likelihoods ``(chain, draw, row)``."""
    first = ("chain", "draw")
    likelihood = {"train_obs": ((*first, "train"), train), "query_obs": ((*first, "query"), query)}
    groups = {"log_likelihood": xr.Dataset(likelihood, coords=coords)}
    for name, given in (("sample_stats", stats), ("posterior", posterior)):
        if given is not None:
            groups[name] = xr.Dataset({key: (first, value) for key, value in given.items()})
    if constant is not None:
        groups["constant_data"] = xr.Dataset(constant)
    return inference_data(groups, attrs or {})
