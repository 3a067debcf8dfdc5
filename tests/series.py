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


def run_of(train, query, *, stats=None, posterior=None, attrs=None, ids=None):
    """Make a run of log-likelihoods ``(chain, draw, row)``."""
    dims = ("chain", "draw")
    likelihood = xr.Dataset(
        {"train_obs": ((*dims, "train"), train), "query_obs": ((*dims, "query"), query)},
        coords=ids or {},
    )
    more = {"sample_stats": stats, "posterior": posterior}
    groups = {name: xr.Dataset({k: (dims, v) for k, v in g.items()}) for name, g in more.items() if g}
    return inference_data({"log_likelihood": likelihood, **groups}, attrs or {})
