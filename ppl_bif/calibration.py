"""How much too small posterior errors are, seen from chains that the estimate has not seen.

NumPy only. A law that is fitted to the scores themselves gives errors that are right only if it
holds. Chains are independent, so it can be put to the test: for an estimate s of a covariance c
from some chains, and its sample covariances x and y in two others,

    E[(s - x) (s - y)] = E[(s - c)^2],

however noisy x and y are. Averaged over pairs, against the squared errors that s claims, this
says how much wider its intervals must be.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ppl_bif.shrinkage import Shrunk
from ppl_bif.tiles import Estimate

__all__ = ["widening"]

PARTS = 4
# Parts that an estimate is made of, and the two that it is held against.
WAYS = (((0, 1), 2, 3), ((2, 3), 0, 1), ((0, 2), 1, 3), ((1, 3), 0, 2))
# Shrinking takes many rows to learn their law from; queries are only averaged over.
QUERIES = 64

Plain = Callable[[np.ndarray, np.ndarray], Estimate]
Posterior = Callable[[np.ndarray, np.ndarray, Estimate], Shrunk]


def widening(plain: Plain, posterior: Posterior, train: np.ndarray, query: np.ndarray) -> float:
    """Return the factor, at least 1, by which posterior standard deviations are too small.

    It is measured at half of the draws and taken to hold for all of them.

    Parameters
    ----------
    plain
        Gives sample covariances with errors, of train and query series.
    posterior
        Gives the estimate in question, of the same and those covariances.
    train, query
        ``(chain, draw, train)`` and ``(chain, draw, query)``. Fewer than 4 chains are cut into
        pieces that count as such.

    Examples
    --------
    >>> from ppl_bif.covariance import block_covariance
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(4, 400, 1)) + 0.5 * rng.normal(size=(4, 400, 64))
    >>> plain = lambda a, b: block_covariance(a, b, blocks=20)
    >>> bold = lambda a, b, raw: Shrunk(raw.value, raw.mcse / 2, raw.value)
    >>> round(widening(plain, bold, x, x[..., :32]))
    2
    """
    seen = claimed = 0.0
    for (train_half, query_half), first, second in _ways(train, query[..., :QUERIES]):
        raw = plain(train_half, query_half)
        found = posterior(train_half, query_half, raw)
        # By the inverse variance of the product, about: noisy pairs tell little.
        weight = (found.sd / np.maximum(raw.mcse**2 + found.sd**2, np.finfo(float).tiny)) ** 2
        off = (found.mean - plain(*first).value) * (found.mean - plain(*second).value)
        seen += float((weight * off).sum())
        claimed += float((weight * found.sd**2).sum())
    return float(np.sqrt(max(1.0, seen / claimed))) if claimed > 0 else 1.0


def _ways(*series: np.ndarray) -> Iterator[tuple[list[np.ndarray], ...]]:
    """Divide the chains of all series in each of the ways: a half, and two quarters."""
    parts = [np.array_split(_pieces(s), PARTS) for s in series]
    for half, first, second in WAYS:
        yield (
            [np.concatenate([p[i] for i in half]) for p in parts],
            [p[first] for p in parts],
            [p[second] for p in parts],
        )


def _pieces(series: np.ndarray) -> np.ndarray:
    """Cut chains until there are at least four."""
    chains, draws, rows = series.shape
    cuts = -(-PARTS // chains)
    length = draws // cuts
    return series[:, : cuts * length].reshape(chains * cuts, length, rows)
