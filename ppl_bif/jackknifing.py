"""The sampling covariance of posterior means, from one run: the infinitesimal jackknife."""

from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.approximation import Weights, importance_weights
from ppl_bif.schema import group, inverse_temperature
from ppl_bif.traces import Parts, refuse_unsampled, traces
from ppl_bif.weighted import covariance_under

__all__ = ["jackknife"]


def jackknife(
    idata: Any, *, observable: Any = None, groups: Any = None, train: Any = "train_obs"
) -> xr.Dataset:
    r"""Estimate how posterior means would vary from one sample of data to the next.

    The Bayesian infinitesimal jackknife (Giordano & Broderick 2023): the covariance over resampled
    data of $\E[\phi]$ is, to first order, $\sum_i (I_i - \bar I)(I_i - \bar I)'$, with the
    influences $I_i = \beta \Cov(\log p_i, \phi)$. Right also where the model is wrong, which the
    posterior's own standard deviation is not; neither new data nor a second fit is needed.

    Monte Carlo noise of the influences would add to it. So the sum is of products of influences
    from different parts of the run, halves of its chains, which have no noise in common.

    Parameters
    ----------
    idata
        Any InferenceData or DataTree with a posterior and pointwise log-likelihoods.
    observable
        As in :func:`ppl_bif.influence`; by default all variables of the posterior.
    groups
        Groups that are sampled whole, as in :func:`ppl_bif.influence`. A group that has a
        parameter of its own, such as a school with its effect, is another matter: more weight on it
        is more rows of the same school, not another school like it. Give the log-likelihood of the
        group with that parameter integrated out.
    train
        Variable of ``log_likelihood``, or several. A group of one variable needs none.

    Returns
    -------
    xarray.Dataset
        Dims (query, other), in units of the observables: ``covariance`` and ``covariance_mcse``;
        by query ``mean``, ``sd`` (NaN where the estimated variance is below 0, which noise does),
        ``sd_mcse``, and the posterior's own ``posterior_sd``.

    Raises
    ------
    ValueError
        If there are no log-likelihoods, no posterior, or fewer than three rows or groups.
    BIFError
        As :func:`ppl_bif.influence`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = 3 * rng.normal(size=100)  # the model says sd 1
    >>> theta = y.mean() + rng.normal(size=(4, 1000)) / 10
    >>> loglik = xr.Dataset({"y": (("chain", "draw", "row"), -((y - theta[..., None]) ** 2) / 2)})
    >>> posterior = xr.Dataset({"theta": (("chain", "draw"), theta)})
    >>> run = xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": loglik})
    >>> found = jackknife(run)
    >>> bool(found["posterior_sd"].item() < 0.11), bool(0.25 < found["sd"].item() < 0.35)
    (True, True)
    """
    refuse_unsampled(idata)
    posterior = group(idata, "posterior")
    if observable is None and posterior is not None:
        rows_too = [train] if isinstance(train, str) else train
        observable = [str(name) for name in posterior if name not in rows_too]
    rows, explained = traces(
        idata, train, "", [] if observable is None else observable, Parts(groups=groups)
    )
    if len(rows.ids) < 3:
        raise ValueError(f"a jackknife takes at least three rows or groups; got {len(rows.ids)}")
    phi = explained.read(slice(0, len(explained.ids))).astype(float)
    loglik = rows.read(slice(0, len(rows.ids)))
    beta, weights = inverse_temperature(idata), importance_weights(idata, rows.chains)
    parts = zip(_weights_of(weights, phi), _halves(loglik), _halves(phi), strict=True)
    influences = beta * np.stack([covariance_under(*part).value for part in parts])
    influences -= influences.mean(axis=2, keepdims=True)
    covariance, mcse = _across(influences, len(rows.ids))
    sd = np.sqrt(np.where(np.diag(covariance) > 0, np.diag(covariance), np.nan))
    mean, variance = _moments(weights, phi)
    of = {
        "mean": mean,
        "sd": sd,
        "sd_mcse": np.diag(mcse) / (2 * sd),
        "posterior_sd": np.sqrt(variance),
    }
    pairs = {"covariance": covariance, "covariance_mcse": mcse}
    return xr.Dataset(
        {name: (("query", "other"), values) for name, values in pairs.items()}
        | {name: ("query", values) for name, values in of.items()},
        coords={"query": explained.ids, "other": explained.ids},
        attrs={"inverse_temperature": beta, "chains_used": rows.chains},
    )


def _halves(series: np.ndarray) -> list[np.ndarray]:
    """Cut each chain in two, ``(1, draw, row)`` each."""
    middle = series.shape[1] // 2
    return [half for one in series for half in (one[None, :middle], one[None, middle:])]


def _weights_of(weights: Weights | None, phi: np.ndarray) -> list[np.ndarray | None]:
    """Cut weights as the chains are cut, ``(1, draw)`` each."""
    if weights is None:
        return [None] * (2 * len(phi))
    return [half[..., 0] for half in _halves(weights.values[..., None])]


def _moments(weights: Weights | None, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each observable."""
    share = None if weights is None else weights.values.ravel()
    flat = phi.reshape(-1, phi.shape[2])
    mean = np.average(flat, axis=0, weights=share)
    return mean, np.average((flat - mean) ** 2, axis=0, weights=share)


def _across(influences: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum products over rows, of different parts only; the error by leaving out each part."""

    def estimate(parts: np.ndarray) -> np.ndarray:
        total, count = parts.sum(axis=0), len(parts)
        own = np.einsum("pqi,pri->qr", parts, parts)
        return (total @ total.T - own) / (count * (count - 1)) * rows / (rows - 1)

    count = len(influences)
    if count < 3:
        return estimate(influences), np.full((influences.shape[1],) * 2, np.nan)
    without = [estimate(np.delete(influences, p, axis=0)) for p in range(count)]
    spread = np.var(without, axis=0) * (count - 1)
    return estimate(influences), np.sqrt(spread)
