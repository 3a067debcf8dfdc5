"""Bayesian influence of training rows on queries: the covariance of their log-likelihoods."""

from collections.abc import Callable
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr

from ppl_bif.blocks import choose_blocks, product_time
from ppl_bif.calibration import widening
from ppl_bif.copula import copula_covariance, normal_scores
from ppl_bif.correlation import block_correlation
from ppl_bif.covariance import block_covariance
from ppl_bif.errors import BIFError
from ppl_bif.schema import group, refuse_unmarked, root_attrs, usable_chains
from ppl_bif.shrinkage import Shrunk
from ppl_bif.tiles import Estimate

__all__ = ["influence"]

BLOCK_PAIRS = 2**24
RESOLVED_ERRORS = 2.0
# A sign that is wrong this often, the tail of a score two errors from 0, counts as known.
RESOLVED_FALSE_SIGN = 0.025
SHRINK_ROWS = 200
KINDS = ("covariance", "correlation")
SHRINK = ("auto", "eb", None)


class _Blocks(NamedTuple):
    """Blocks per chain from which errors come, and the autocorrelation time they stand against."""

    blocks: int
    time: float


class _Copula(NamedTuple):
    """Blocks and time of normal scores, and the factor on the errors of what is shrunk."""

    blocks: int
    time: float
    wider: float = 1.0


class _Estimator(NamedTuple):
    """What is computed of each pair: a kind, shrunk where there is a copula."""

    kind: str
    scale: float
    plain: _Blocks
    copula: _Copula | None

    @property
    def names(self) -> tuple[str, ...]:
        """Variables of the result, in order."""
        more = ("covariance", "covariance_mcse", "false_sign")
        return ("influence", "mcse", *(more if self.copula else ()))

    def __call__(self, train: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Compute the variables of a block of pairs, ``(name, query, train)``."""
        estimate = block_correlation if self.kind == "correlation" else block_covariance
        raw = estimate(train, query, **self.plain._asdict())
        if self.copula is None:
            return self.scale * np.stack(raw)
        mean, sd, false_sign = copula_covariance(train, query, raw, **self.copula._asdict())
        return np.stack([*(self.scale * layer for layer in (mean, sd, *raw)), false_sign])


class _Series(NamedTuple):
    """Traces ``(chain, draw, row)`` that are read piece by piece, and the ids of the rows."""

    array: xr.DataArray
    ids: np.ndarray
    dim: str
    chains: list[int]

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        part = self.array.isel({self.dim: rows, "chain": self.chains})
        others = [d for d in part.dims if d not in ("chain", "draw", self.dim)]
        values = (part.sum(others) if others else part).transpose("chain", "draw", self.dim).values
        refuse_unmarked(values, self.array.name, self.chains)
        return values if values.dtype in (np.float32, np.float64) else values.astype(float)


def influence(
    idata: Any,
    *,
    train: str = "train_obs",
    query: str = "query_obs",
    observable: str | None = None,
    kind: str = "covariance",
    shrink: str | None = "auto",
    block_pairs: int = BLOCK_PAIRS,
) -> xr.Dataset:
    r"""Estimate how much each training row moves what is explained, with errors.

    The influence I(i, q) = dE[log p_q] / dweight_i = beta Cov(log p_i, log p_q) under the local
    posterior (Kreer et al. 2025, Eq. 5). **Positive: more weight on row i raises the
    log-likelihood of q**; in nats per unit of weight, so -I is the first-order effect of
    removing i.

    Parameters
    ----------
    idata
        A run of :func:`ppl_bif.sample`, or any InferenceData or DataTree with pointwise
        log-likelihoods, such as NUTS gives.
    train, query
        Variables of ``log_likelihood``. A group of one variable needs neither: it is both.
        Tokens are summed.
    observable
        A variable of ``posterior`` to explain in place of ``query``, element by element.
    kind
        ``"covariance"`` (the influence) or ``"correlation"`` (the normalized BIF, without beta,
        within -1 ... 1).
    shrink
        ``"eb"``: each covariance is split into what a Gaussian copula of the two rows' losses
        explains and the rest, and both parts are replaced by their posterior means under the law
        of all those of the query, fitted to them (adaptive shrinkage, Stephens 2017). It has far
        less noise at few draws, as it does not hang on a few large losses; it is biased towards 0
        and consistent: with many draws it is the plain covariance. Its errors are held against
        chains it has not seen, and widened where too small (attribute ``mcse_widened``); they are
        right on average over pairs, not for the largest when draws are few (Concepts has the
        numbers). None: the plain covariance.
        ``"auto"``: ``"eb"`` for covariances with at least 200 training rows, from which the law is
        known well enough; else None.
    block_pairs
        Pairs (query, train) formed at once. Up to so many are computed now; more stay lazy, as
        dask arrays that compute the blocks that are asked for. Shrinking takes all training rows
        of a query at once: with very many, pass ``shrink=None``.

    Returns
    -------
    xarray.Dataset
        Dims (query, train): ``influence``; ``mcse``, its Monte Carlo standard error, from
        blocks of the within-chain-centred products, long against their autocorrelation (the
        posterior standard deviation where shrunk); ``resolved``, whether the sign is known:
        \|influence\| > 2 mcse or, where shrunk, ``false_sign``, the probability that the sign is
        not that of ``influence`` (the local false sign rate), below 0.025. Where shrunk,
        ``covariance`` and ``covariance_mcse``, times beta, are the plain estimate.
        For correlations ``undefined``, where a row does not vary (the correlation is then 0).
        Attributes say which chains were used, which diverged and were left out, and the blocks.

    Raises
    ------
    ValueError
        If there are no log-likelihoods, or a variable, kind or way to shrink is unknown.
    BIFError
        If no chain is left, a chain holds NaN that was not marked as diverging, or the run was
        found not to have sampled its posterior (its attribute ``refused`` says why).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> w = rng.normal(size=(4, 200, 1))
    >>> loglik = xr.Dataset({"y": (("chain", "draw", "row"), -w * np.array([1.0, 2.0]))})
    >>> run = xr.DataTree.from_dict({"log_likelihood": loglik})
    >>> influence(run, shrink=None)["influence"].round(0).values
    array([[1., 2.],
           [2., 4.]])
    """
    _check_estimator(kind, shrink)
    _refuse_unsampled(idata)
    rows, explained = _series(idata, train, query, observable)
    enough = kind == "covariance" and len(rows.ids) >= SHRINK_ROWS
    shrunk = shrink == "eb" or (shrink == "auto" and enough)
    chains, draws = len(rows.chains), rows.array.sizes["draw"]
    beta = float(root_attrs(idata).get("inverse_temperature", 1.0))
    scale = beta if kind == "covariance" else 1.0
    some = _some(rows), _some(explained)
    plain = _blocks(*some)
    copula = _copula(*some, plain)._replace(wider=_widening(*some)) if shrunk else None
    estimator = _Estimator(kind, scale, plain, copula)

    def pairs(query_rows: slice, train_rows: slice) -> np.ndarray:
        return estimator(rows.read(train_rows), explained.read(query_rows))

    size = (len(estimator.names), len(explained.ids), len(rows.ids))
    layers = _evaluate(pairs, *size, block_pairs, whole_queries=shrunk)
    scores = xr.Dataset(
        {name: (("query", "train"), layers[i]) for i, name in enumerate(estimator.names)},
        coords={"query": explained.ids, "train": rows.ids},
        attrs={
            "kind": kind,
            "shrink": "eb" if shrunk else "none",
            "inverse_temperature": beta,
            "chains_used": rows.chains,
            "chains_excluded": usable_chains(idata)[1],
            "draws": draws,
            "product_time": plain.time,
            "blocks": plain.blocks * chains,
        },
    )
    if copula:
        scores.attrs["mcse_widened"] = copula.wider
        scores["resolved"] = scores["false_sign"] < RESOLVED_FALSE_SIGN
    else:
        scores["resolved"] = np.abs(scores["influence"]) > RESOLVED_ERRORS * scores["mcse"]
    if kind == "correlation":
        # A perfect correlation has no error either.
        scores["undefined"] = (scores["influence"] == 0) & (scores["mcse"] == 0)
    return scores


def _check_estimator(kind: str, shrink: str | None) -> None:
    """Check what is asked for."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}; got {kind!r}")
    if shrink not in SHRINK:
        raise ValueError(f"shrink must be one of {SHRINK}; got {shrink!r}")
    if kind == "correlation" and shrink == "eb":
        raise ValueError('a correlation is not shrunk: leave shrink out, or take kind="covariance"')


def _blocks(train: np.ndarray, query: np.ndarray) -> _Blocks:
    """Choose blocks for products, by some of the series."""
    time = product_time(train, query)
    return _Blocks(choose_blocks(len(train), train.shape[1], time), time)


def _copula(train: np.ndarray, query: np.ndarray, plain: _Blocks) -> _Copula:
    """Choose blocks that also suit products of normal scores."""
    time = max(plain.time, product_time(normal_scores(train), normal_scores(query)))
    return _Copula(choose_blocks(len(train), train.shape[1], time), time)


def _widening(train: np.ndarray, query: np.ndarray) -> float:
    """Measure how much too small the errors of shrunk scores are, on some of the series."""

    def plain(train: np.ndarray, query: np.ndarray) -> Estimate:
        return block_covariance(train, query, **_blocks(train, query)._asdict())

    def posterior(train: np.ndarray, query: np.ndarray, raw: Estimate) -> Shrunk:
        how = _copula(train, query, _blocks(train, query))
        return copula_covariance(train, query, raw, **how._asdict())

    return widening(plain, posterior, train, query)


def _refuse_unsampled(idata: Any) -> None:
    """Raise BIFError for a run that was found not to have sampled its posterior."""
    refused = root_attrs(idata).get("refused", [])
    reasons = [refused] if isinstance(refused, str) else list(refused)
    if reasons:
        raise BIFError(
            f"this run did not sample its posterior and is not scored: {'; '.join(reasons)}. "
            "Sample again with step_size left out, or a larger localization"
        )


def _series(idata: Any, train: str, query: str, observable: str | None) -> tuple[_Series, _Series]:
    likelihood = group(idata, "log_likelihood")
    if likelihood is None or not likelihood.data_vars:
        raise ValueError(
            "influence needs pointwise log-likelihoods: the InferenceData has no log_likelihood "
            "group; make it with ppl_bif.sample, or compute it (numpyro.infer.log_likelihood)"
        )
    used, excluded = usable_chains(idata)
    if not used:
        raise BIFError(f"every chain diverged ({excluded}): sample again with a smaller step")
    only = str(next(iter(likelihood))) if len(likelihood) == 1 else None
    rows = _named(likelihood, train, only, "train", used)
    if observable is None:
        return rows, _named(likelihood, query, only, "query", used)
    posterior = group(idata, "posterior")
    if posterior is None:
        raise ValueError(f"observable {observable!r} needs a posterior group, and there is none")
    return rows, _named(posterior, observable, None, "query", used)


def _named(
    dataset: xr.Dataset, name: str, only: str | None, role: str, chains: list[int]
) -> _Series:
    if name not in dataset.data_vars and only is not None:
        name = only
    if name not in dataset.data_vars:
        raise ValueError(f"{role} variable {name!r} is not there; there are {list(dataset)}")
    array = dataset[name]
    missing = {"chain", "draw"} - set(array.dims)
    if missing:
        raise ValueError(f"{name!r} must have dims chain and draw; it has {array.dims}")
    dims = [d for d in array.dims if d not in ("chain", "draw")]
    own = [d for d in dims if not str(d).endswith("_token")]
    if not own:
        return _Series(array.expand_dims({role: [name]}), np.array([name]), role, chains)
    if len(own) == 1:
        return _Series(array, array[own[0]].values, str(own[0]), chains)
    flat = array.stack({role: own}, create_index=False)
    index = np.ndindex(*(array.sizes[d] for d in own))
    return _Series(flat, np.array([",".join(map(str, i)) for i in index]), role, chains)


def _some(series: _Series, most: int = 256) -> np.ndarray:
    """Read rows spread over a series, to measure autocorrelation on."""
    rows = len(series.ids)
    return series.read(np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(int)))


def _evaluate(
    pairs: Callable[[slice, slice], np.ndarray],
    layers: int,
    query: int,
    train: int,
    block_pairs: int,
    *,
    whole_queries: bool,
) -> Any:
    """Evaluate all pairs now, ``(layer, query, train)``, or lazily by blocks if they are many."""
    if query * train <= block_pairs:
        return pairs(slice(0, query), slice(0, train))
    width = train if whole_queries else min(train, max(1, block_pairs // min(query, 256)))
    height = max(1, min(query, block_pairs // width))

    def block(block_info: Any) -> np.ndarray:
        _, rows, columns = block_info[None]["array-location"]
        return pairs(slice(*rows), slice(*columns))

    chunks = ((layers,), _cut(query, height), _cut(train, width))
    return da.map_blocks(block, chunks=chunks, dtype=float, meta=np.empty((0, 0, 0)))


def _cut(total: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, total - start) for start in range(0, total, size))
