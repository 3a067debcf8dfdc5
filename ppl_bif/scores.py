"""Bayesian influence of training rows on queries: the covariance of their log-likelihoods."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr

from ppl_bif.approximation import importance_weights
from ppl_bif.blocks import RESOLVED_ERRORS, Blocks, blocks_against, choose_blocks, product_time
from ppl_bif.calibration import widening
from ppl_bif.copula import copula_covariance, normal_scores
from ppl_bif.correlation import block_correlation
from ppl_bif.covariance import block_covariance, covariance_with_errors
from ppl_bif.schema import inverse_temperature, usable_chains
from ppl_bif.shrinkage import Shrunk
from ppl_bif.streaming import find_sums, is_streamed
from ppl_bif.tiles import Estimate, cut
from ppl_bif.traces import STRETCH, Parts, Traces, refuse_unsampled, traces
from ppl_bif.weighted import weighted_correlation, weighted_covariance

__all__ = ["attributes", "influence", "shrinks"]

BLOCK_PAIRS = 2**24
# A sign that is wrong this often, the tail of a score two errors from 0, counts as known.
RESOLVED_FALSE_SIGN = 0.025
SHRINK_ROWS = 200
KINDS = ("covariance", "correlation")
SHRINK = ("auto", "eb", None)


class _Copula(NamedTuple):
    """Blocks and time of normal scores, and the factor on the errors of what is shrunk."""

    blocks: int
    time: float
    wider: float = 1.0


class _Estimator(NamedTuple):
    """What is computed of each pair: a kind, shrunk where there is a copula."""

    kind: str
    scale: float
    plain: Blocks
    copula: _Copula | None
    weights: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Variables of the result, in order."""
        more = ("covariance", "covariance_mcse", "false_sign")
        return ("influence", "mcse", *(more if self.copula else ()))

    def __call__(self, train: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the variables of a block of pairs, each ``(query, train)``."""
        correlate = self.kind == "correlation"
        if self.weights is not None:
            of_draws = weighted_correlation if correlate else weighted_covariance
            return self.scaled(of_draws(train, query, self.weights))
        estimate = block_correlation if correlate else block_covariance
        raw = estimate(train, query, **self.plain._asdict())
        if self.copula is None:
            return self.scaled(raw)
        mean, sd, false_sign = copula_covariance(train, query, raw, **self.copula._asdict())
        return *self.scaled((mean, sd, *raw)), false_sign

    def scaled(self, layers: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Put values and errors into their units."""
        return tuple(np.multiply(layer, self.scale, out=layer) for layer in layers)


def influence(
    idata: Any,
    *,
    train: Any = "train_obs",
    query: Any = "query_obs",
    observable: Any = None,
    groups: Any = None,
    kind: str = "covariance",
    shrink: str | None = "auto",
    by: Any = "sequence",
    spans: Any = None,
    reduce: str = "sum",
    block_pairs: int = BLOCK_PAIRS,
) -> xr.Dataset:
    r"""Estimate how much each training row moves what is explained, with errors.

    The influence of row i on query q, under the local posterior (Kreer et al. 2025, Eq. 5), is

    $$I(i, q) = d\E[\log p_q] / dv_i = \beta \Cov(\log p_i, \log p_q)$$

    where $v_i$ is the weight of the row, here 1. **Positive: more weight on row i raises the
    log-likelihood of q**; in nats per unit of weight, so -I is the first-order effect of
    removing i.

    Parameters
    ----------
    idata
        A run of :func:`ppl_bif.sample`, or any InferenceData or DataTree with pointwise
        log-likelihoods, such as NUTS gives. Draws of ``from_guide`` are weighted towards the
        posterior: then covariances are weighted ones, errors are those of independent draws, and
        attributes ``pareto_k`` and ``effective_draws`` say how far to trust them.
    train, query
        Variables of ``log_likelihood``: one, whose elements are the rows, or a list, whose rows
        follow one another with ids that name the variable, such as ``y2[3]``. A group of one
        variable needs neither: it is both. Rows of several dims have the coordinates of each as
        ids, ``"Choate,1999"``. Log-likelihoods that lie in the posterior, as CmdStan's
        ``log_lik``, are named too.
    observable
        What is explained in place of ``query``, element by element: a variable of ``posterior`` or
        ``posterior_predictive``, a list of them, or a function of the posterior's Dataset that
        gives a DataArray with dims chain and draw.
    groups
        Score groups of training rows, whose log-likelihoods are summed: the name of a coordinate
        of the rows or of a variable of ``constant_data`` or ``observed_data``, or an array with
        the group of each row. Of several dims, one of them, or what is known along it; of several
        variables, ``"variable"``.
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
    by
        What is scored of rows that hold tokens (``likelihood="tokens"``): ``"sequence"``, a row;
        ``"token"``, each token that is predicted; ``"document"``, all rows of a document;
        ``"span"``, the tokens that lie, at least in part, in some characters. Or a mapping of
        ``"train"`` and ``"query"`` to two of these, such as ``{"query": "token"}`` for the
        documents that taught a token.
    spans
        For ``by="span"``, by side: ``{"query": [(document, start, stop), ...]}`` in characters of
        the document, with a name as a fourth entry if need be.
    reduce
        ``"sum"`` of the log-likelihoods of the tokens of a row, document or span, or their
        ``"mean"``. Sums of scores of tokens are the score of the sum, as covariances are linear
        (shrunk ones are not: ``shrink=None``).
    block_pairs
        Pairs (query, train) formed at once. Up to so many are computed now; more stay lazy, as
        dask arrays that compute the blocks that are asked for. ``scores.to_zarr(path)`` then
        writes the whole matrix block by block: each pair is formed once and, with up to 1,024
        queries, each row read once; memory is that of a block per thread of dask, about 55 bytes
        a pair. Shrinking takes all training rows of a query at once: with very many, pass
        ``shrink=None``.

    Returns
    -------
    xarray.Dataset
        Dims (query, train): ``influence``; ``mcse``, its Monte Carlo standard error, from
        blocks of the within-chain-centred products, long against their autocorrelation (the
        posterior standard deviation where shrunk); ``resolved``, whether the sign is known:
        abs(influence) > 2 mcse or, where shrunk, ``false_sign``, the probability that the sign is
        not that of ``influence`` (the local false sign rate), below 0.025. Where shrunk,
        ``covariance`` and ``covariance_mcse``, times beta, are the plain estimate.
        For correlations ``undefined``, where a row does not vary (the correlation is then 0).
        Parts of rows have more coordinates: of tokens ``train_row``, ``train_document``,
        ``train_position`` and, of text that was made by :func:`ppl_bif.text.encode`,
        ``train_token`` with ``train_start`` and ``train_stop``; of queries alike.
        Attributes say which chains were used, which diverged and were left out, and the blocks.

    Raises
    ------
    ValueError
        If there are no log-likelihoods, a variable, kind or way to shrink is unknown, or parts are
        asked for of rows without tokens.
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
    refuse_unsampled(idata)
    if groups is not None and is_streamed(idata):
        raise ValueError("a run with stream=True keeps no traces to sum: sample with stream=False")
    rows, explained = traces(idata, train, query, observable, Parts(by, spans, reduce, groups))
    sums = find_sums(idata, explained, kind=kind, shrink=shrink)
    train_ids = rows.ids if sums is None else sums.ids
    weights = importance_weights(idata, rows.chains)
    if weights is not None and shrink == "eb":
        raise ValueError("covariances of weighted draws are not shrunk: leave shrink out")
    plainly = sums is not None or weights is not None
    shrunk = not plainly and shrinks(shrink, kind, len(rows.ids))
    some = rows.some(), explained.some()
    plain = blocks_against(*some)
    if sums is not None:
        plain = sums.fitting(plain)
    copula = _copula(*some, plain)._replace(wider=_widening(*some)) if shrunk else None
    attrs = attributes(idata, rows, explained, plain, kind=kind, shrunk=shrunk)
    scale = attrs["inverse_temperature"] if kind == "covariance" else 1.0
    if weights is not None:
        # Draws of an approximation are independent: no blocks, but so many that count.
        counted = max(2, int(weights.effective))
        attrs |= {"pareto_k": weights.k, "effective_draws": weights.effective, "blocks": counted}
    estimator = _Estimator(kind, scale, plain, copula, None if weights is None else weights.values)

    def pairs(query_rows: slice, train_rows: slice) -> tuple[np.ndarray, ...]:
        if sums is not None:
            return estimator.scaled(sums.covariance(query_rows, train_rows, plain))
        return estimator(rows.read(train_rows), explained.read(query_rows))

    size = (len(estimator.names), len(explained.ids), len(train_ids))
    layers = _evaluate(pairs, *size, block_pairs, whole_queries=shrunk)
    scores = xr.Dataset(
        {name: (("query", "train"), layers[i]) for i, name in enumerate(estimator.names)},
        coords={"query": explained.ids, "train": train_ids}
        | {f"query_{name}": ("query", known) for name, known in explained.coords.items()}
        | {f"train_{name}": ("train", known) for name, known in rows.coords.items()},
        attrs=attrs,
    )
    if copula:
        scores.attrs["mcse_widened"] = copula.wider
        scores["resolved"] = scores["false_sign"] < RESOLVED_FALSE_SIGN
    else:
        scores["resolved"] = xr.apply_ufunc(
            _beyond, scores["influence"], scores["mcse"], dask="parallelized", output_dtypes=[bool]
        )
    if kind == "correlation":
        # A perfect correlation has no error either.
        scores["undefined"] = (scores["influence"] == 0) & (scores["mcse"] == 0)
    return scores


def attributes(
    idata: Any, rows: Traces, explained: Traces, blocks: Blocks, *, kind: str, shrunk: bool
) -> dict[str, Any]:
    """Say how scores were made."""
    return {
        "kind": kind,
        "train_variable": str(rows.array.name),
        "query_variable": str(explained.array.name),
        "shrink": "eb" if shrunk else "none",
        "inverse_temperature": inverse_temperature(idata),
        "chains_used": rows.chains,
        "chains_excluded": usable_chains(idata)[1],
        "draws": rows.array.sizes["draw"],
        "product_time": blocks.time,
        "blocks": blocks.blocks * len(rows.chains),
    }


def shrinks(shrink: str | None, kind: str, rows: int) -> bool:
    """Decide whether scores of so many training rows are shrunk, by what was asked for."""
    _check_estimator(kind, shrink)
    enough = kind == "covariance" and rows >= SHRINK_ROWS
    return shrink == "eb" or (shrink == "auto" and enough)


def _check_estimator(kind: str, shrink: str | None) -> None:
    """Check what is asked for."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}; got {kind!r}")
    if shrink not in SHRINK:
        raise ValueError(f"shrink must be one of {SHRINK}; got {shrink!r}")
    if kind == "correlation" and shrink == "eb":
        raise ValueError('a correlation is not shrunk: leave shrink out, or take kind="covariance"')


def _copula(train: np.ndarray, query: np.ndarray, plain: Blocks) -> _Copula:
    """Choose blocks that also suit products of normal scores."""
    time = max(plain.time, product_time(normal_scores(train), normal_scores(query)))
    return _Copula(choose_blocks(len(train), train.shape[1], time), time)


def _widening(train: np.ndarray, query: np.ndarray) -> float:
    """Measure how much too small the errors of shrunk scores are, on some of the series."""

    def posterior(train: np.ndarray, query: np.ndarray, raw: Estimate) -> Shrunk:
        how = _copula(train, query, blocks_against(train, query))
        return copula_covariance(train, query, raw, **how._asdict())

    return widening(covariance_with_errors, posterior, train, query)


def _beyond(value: np.ndarray, mcse: np.ndarray) -> np.ndarray:
    """Say which scores ``(query, train)`` are known to differ from 0."""
    found = np.empty(value.shape, bool)
    # Temporaries for all pairs at once would take longer to get than to fill.
    for q in cut(len(value), 16):
        np.greater(np.abs(value[q]), RESOLVED_ERRORS * mcse[q], out=found[q])
    return found


def _evaluate(
    pairs: Callable[[slice, slice], tuple[np.ndarray, ...]],
    layers: int,
    query: int,
    train: int,
    block_pairs: int,
    *,
    whole_queries: bool,
) -> Any:
    """Evaluate all pairs now, layers ``(query, train)``, or lazily by blocks if they are many."""
    if query * train <= block_pairs:
        return pairs(slice(0, query), slice(0, train))
    # Of training rows, which are many, each is read as few times as can be, and chunks whole.
    width = train if whole_queries else min(train, max(1, block_pairs // min(query, 1024)))
    if STRETCH < width < train:
        width -= width % STRETCH
    height = max(1, min(query, block_pairs // width))

    def block(block_info: Any) -> np.ndarray:
        _, rows, columns = block_info[None]["array-location"]
        return np.stack(pairs(slice(*rows), slice(*columns)))

    chunks = ((layers,), _cut(query, height), _cut(train, width))
    return da.map_blocks(block, chunks=chunks, dtype=float, meta=np.empty((0, 0, 0)))


def _cut(total: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, total - start) for start in range(0, total, size))
