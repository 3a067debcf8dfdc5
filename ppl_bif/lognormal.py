"""Covariances of positive series from those of their logarithms, as for lognormal losses.

NumPy only. If log l_i and log l_q are jointly Gaussian, then
Cov(l_i, l_q) = E[l_i] E[l_q] (exp Cov(log l_i, log l_q) - 1), and the right-hand side varies far
less than the sample covariance, which a few large losses make. Where they are not, it is biased,
however many draws there are.
"""

from typing import NamedTuple

import numpy as np

from ppl_bif.covariance import Estimate, block_covariance
from ppl_bif.shrinkage import shrink

__all__ = ["Lognormal", "lognormal_covariance"]


class Lognormal(NamedTuple):
    """Scores ``(query, train)``: value, standard error, local false sign rate if shrunk."""

    value: np.ndarray
    mcse: np.ndarray
    false_sign: np.ndarray | None


def lognormal_covariance(
    train: np.ndarray, query: np.ndarray, *, blocks: int, time: float, shrunk: bool
) -> Lognormal:
    """Covariances of log-likelihoods, by the lognormal form of their losses.

    Parameters
    ----------
    train, query
        Log-likelihoods ``(chain, draw, row)``, at most 0; losses below the resolution
        of 1 in their type, 1e-7 in single precision, count as that.
    blocks, time
        As for :func:`ppl_bif.covariance.block_covariance`.
    shrunk
        Whether to shrink the covariances of the logarithms.

    Returns
    -------
    Lognormal
        Errors by the delta method, from those of the covariances of the logarithms and of the
        mean losses, the two of a pair taken as moving together.

    Raises
    ------
    ValueError
        If a log-likelihood is positive.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> loss = np.exp(0.5 * rng.normal(size=(4, 5000, 1)))
    >>> found = lognormal_covariance(-loss, -loss, blocks=20, time=1.0, shrunk=False)
    >>> exact = np.exp(0.25) * (np.exp(0.25) - 1)
    >>> bool(abs(found.value[0, 0] - exact) < 3 * found.mcse[0, 0])
    True
    """
    (a, a_mean, a_error), (b, b_mean, b_error) = (_logs(x, blocks) for x in (train, query))
    log = block_covariance(a, b, blocks=blocks, time=time)
    false_sign = None
    if shrunk:
        mean, sd, false_sign = shrink(*log)
        log = Estimate(mean, sd)
    level, growth = np.outer(b_mean, a_mean), np.expm1(log.value)
    means = np.add.outer(b_error, a_error) ** 2
    error = level * np.sqrt(((growth + 1) * log.mcse) ** 2 + growth**2 * means)
    return Lognormal(level * growth, error, false_sign)


def _logs(values: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of losses, mean losses ``(row,)`` and the relative errors of these means."""
    if (values > 0).any():
        raise ValueError(
            "form='lognormal' needs losses that are not negative, but some log-likelihoods are "
            'above 0 (densities, or an observable): use form="covariance"'
        )
    loss = np.maximum(-values, np.finfo(values.dtype).eps)
    parts = np.array_split(loss, blocks, axis=1)
    means = np.stack([part.mean(axis=1, dtype=float) for part in parts])
    mean = means.mean(axis=(0, 1))
    error = means.std(axis=(0, 1), ddof=1) / np.sqrt(means[..., 0].size)
    return np.log(loss), mean, error / mean
