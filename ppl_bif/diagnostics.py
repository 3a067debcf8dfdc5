"""Can these scores be trusted? Convergence of a run, judged on what the scores are made of.

Scalar R-hat near 1 does not make rankings reproducible, so everything here is measured on the
log-likelihoods of single rows and on the scores themselves.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from ppl_bif.blocks import RESOLVED_ERRORS
from ppl_bif.convergence import (
    agreement,
    draws_for_resolved,
    mean_known,
    scores_of,
    stability,
    top_resolved,
)
from ppl_bif.covariance import covariance_with_errors
from ppl_bif.errors import BIFError
from ppl_bif.health import health
from ppl_bif.schema import arviz, group, refuse_unmarked, root_attrs, usable_chains
from ppl_bif.traces import DIAGNOSED_ROWS, DIAGNOSED_STRETCHES, spread

__all__ = ["diagnose", "table"]

POINTS, QUERIES, TOP = 200, 64, 10
# Of very many rows they come from so many stretches: not all of a run on disk is read.
STRETCHES = 32
TARGET = 0.9
FEWEST_DRAWS = 4


class _Criterion(NamedTuple):
    """What a value must stay within to pass, and beyond what it fails.

    ``low`` and ``high`` are pairs of limits (caution, fail); ``why`` is a reason to give.
    """

    name: str
    label: str
    why: str
    low: tuple[float, float] = (-math.inf, -math.inf)
    high: tuple[float, float] = (math.inf, math.inf)

    def judge(self, value: float) -> str:
        if not math.isfinite(value):
            return "not measured"
        if not self.low[1] <= value <= self.high[1]:
            return "fail"
        return "pass" if self.low[0] <= value <= self.high[0] else "caution"

    def limits(self) -> str:
        if math.isfinite(self.low[0]) and math.isfinite(self.high[0]):
            return f"{self.low[0]:g} ... {self.high[0]:g}"
        return f">= {self.low[0]:g}" if math.isfinite(self.low[0]) else f"<= {self.high[0]:g}"


# Why these limits: docs/concepts.md, "Diagnosis".
CRITERIA = (
    _Criterion("chains_lost", "diverged chains", "chains diverged", high=(0, 0.5)),
    _Criterion(
        "rhat_high",
        "R-hat of row losses, 95% quantile",
        "chains disagree on the losses of single rows: more warmup or more draws",
        high=(1.01, 1.1),
    ),
    _Criterion(
        "ess_low",
        "ESS of row losses, 5% quantile",
        "few effective draws: more draws, or more steps per draw",
        low=(400, 50),
    ),
    _Criterion(
        "drift_share",
        "share of variance that is a linear trend",
        "losses drift, which makes every pair look related: more warmup",
        high=(0.05, 0.2),
    ),
    _Criterion(
        "rank_reliability",
        "expected rank agreement with another such run",
        "rankings would not come out alike again: more draws",
        low=(0.5, 0.2),
    ),
    _Criterion(
        "rank_agreement",
        "rank agreement between single chains",
        "single chains rank rows differently: read resolved scores only",
        low=(0.2, 0.05),
    ),
    _Criterion(
        "loss_rise",
        "rise of the mean training loss over w* (nats)",
        "draws fit worse, or better, than the trained weights: they explain other networks; "
        "raise the localization, or train further",
        low=(-0.01, -0.1),
        high=(0.1, 1.0),
    ),
    _Criterion(
        "energy_ratio",
        "energy over d/2, its Gaussian value",
        "the chain is hotter or colder than its posterior: a smaller step, or a larger batch",
        low=(0.8, 0.5),
        high=(1.25, 2.0),
    ),
    _Criterion(
        "wandering",
        "R-hat of log posterior and distance",
        "the chains have not settled: more warmup",
        high=(1.05, 1.5),
    ),
    _Criterion(
        "gradient_noise_share",
        "share of noise that comes from minibatches",
        "minibatches heat the chain: a smaller step, or a larger batch",
        high=(0.1, 0.5),
    ),
    _Criterion(
        "resolved_share",
        "share of scores beyond 2 errors (5% by chance)",
        "hardly more scores than chance are resolved: more draws",
        low=(0.1, 0.06),
    ),
)


def diagnose(idata: Any, *, verbose: bool = True, seed: int = 0) -> xr.Dataset:
    """Judge whether the scores of a run can be trusted, with reasons.

    Parameters
    ----------
    idata
        A run of :func:`ppl_bif.sample`, or other InferenceData with ``train_obs`` and
        ``query_obs``; what cannot be measured is NaN and not judged. Measured are up to 2,048
        training rows and 200 queries from all over; of more than 65,536 rows, from 32 stretches,
        so that of a run on disk only these are read.
    verbose
        Whether to print verdict, reasons and a table.
    seed
        Of the choice of pairs on which autocorrelation is measured.

    Returns
    -------
    xarray.Dataset
        ``rhat``, ``ess``, ``drift`` (point), over up to 200 rows each of train and query, drift
        being the share of a row's variance that a linear trend explains;
        ``rank_agreement_chains`` and ``rank_agreement_halves`` (query): Spearman correlation of
        a query's scores between single chains and between halves of the draws; and the scalars
        ``rank_reliability`` (Spearman-Brown on the halves: agreement expected between this run
        and another), ``rank_agreement``, ``loss_rise``, ``distance`` (||w - w*||),
        ``distance_ratio`` (to the prior's sqrt(d / gamma)), ``energy_ratio``, ``wandering``
        (split R-hat of the log posterior or of the distance), ``gradient_noise_share``,
        ``resolved_share``, ``top_resolved`` (share of each query's 10 surest scores that are
        discoveries at a false discovery rate of 5%), ``draws_needed`` (per chain, for 90% of those;
        infinite if no multiple within 100 would do), ``rhat_high``, ``ess_low``, ``drift_share``,
        ``chains_lost``. Attributes ``verdict``
        (``pass``, ``caution`` or ``fail``) and ``reasons``.

    Raises
    ------
    ValueError
        If there are no log-likelihoods, fewer than 4 draws, or a single chain, which can be
        compared with none.
    BIFError
        If fewer than two chains are left after leaving out those that diverged, or the others
        hold NaN.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> w = rng.normal(size=(4, 500, 1))
    >>> loglik = xr.Dataset(
    ...     {
    ...         "train_obs": (("chain", "draw", "train"), -w * np.arange(1.0, 4.0)),
    ...         "query_obs": (("chain", "draw", "query"), -w * np.arange(1.0, 3.0)),
    ...     }
    ... )
    >>> tree = xr.DataTree.from_dict({"log_likelihood": loglik})
    >>> diagnose(tree, verbose=False).attrs["verdict"]
    'pass'
    """
    train, query = _traces(idata)
    check = xr.merge([_points(train, query), _scores(train, query, seed), _state(idata)])
    judged = {c: c.judge(float(check[c.name])) for c in CRITERIA}
    verdicts = set(judged.values())
    check.attrs = {
        "verdict": next((v for v in ("fail", "caution") if v in verdicts), "pass"),
        "reasons": [
            f"{c.label} is {_text(float(check[c.name]))} (wanted {c.limits()}): {c.why}"
            for c, verdict in judged.items()
            if verdict in ("fail", "caution")
        ],
    }
    if verbose:
        _print(check)
    return check


def table(check: xr.Dataset) -> list[tuple[str, str, str, str]]:
    """Return rows (what, value, limits, verdict) of a diagnosis, for printing.

    Parameters
    ----------
    check
        What :func:`diagnose` gave.
    """
    rows = [
        (c.label, _text(float(check[c.name])), c.limits(), c.judge(float(check[c.name])))
        for c in CRITERIA
    ]
    told = (
        (f"share of the {TOP} surest scores resolved", "top_resolved"),
        (f"draws per chain to resolve {TARGET:.0%} of them", "draws_needed"),
    )
    return [*rows, *((label, _text(float(check[n])), "", "for information") for label, n in told)]


def _text(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _print(check: xr.Dataset) -> None:
    console = Console()
    colour = {"pass": "green", "caution": "yellow", "fail": "red"}
    view = Table("diagnosis", "value", "wanted", "verdict", title_justify="left")
    for label, value, limits, verdict in table(check):
        view.add_row(label, value, limits, f"[{colour.get(verdict, 'dim')}]{verdict}[/]")
    console.print(view)
    verdict = check.attrs["verdict"]
    console.print(f"verdict: [bold {colour[verdict]}]{verdict}[/]")
    for reason in check.attrs["reasons"]:
        console.print(f"- {reason}", soft_wrap=True, highlight=False)


def _traces(idata: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read a spread of rows of the usable chains, ``(chain, draw, row)``."""
    likelihood = group(idata, "log_likelihood")
    if likelihood is None or not {"train_obs", "query_obs"} <= set(likelihood.data_vars):
        raise ValueError(
            "diagnose needs train_obs and query_obs in the log_likelihood group, as "
            f"ppl_bif.sample writes them; got {list(likelihood or [])}"
        )
    if likelihood.sizes["chain"] < 2:
        raise ValueError(
            "R-hat and rank agreement compare chains, and the run has one: sample with "
            "chains=2 or more"
        )
    if likelihood.sizes["draw"] < FEWEST_DRAWS:
        raise ValueError(
            f"diagnose needs at least {FEWEST_DRAWS} draws a chain; the run has "
            f"{likelihood.sizes['draw']}: sample more"
        )
    used, excluded = usable_chains(idata)
    if len(used) < 2:
        raise BIFError(
            f"chains {excluded} diverged and {len(used)} is left, too few to compare: sample "
            "again with a smaller step"
        )
    return (
        _read(likelihood["train_obs"], used, DIAGNOSED_ROWS),
        _read(likelihood["query_obs"], used, POINTS),
    )


def _read(array: xr.DataArray, chains: list[int], most: int) -> np.ndarray:
    dim = str(array.dims[2])
    part = array.isel({"chain": chains, dim: spread(array.sizes[dim], most, DIAGNOSED_STRETCHES)})
    values = part.values if part.ndim == 3 else part.sum(part.dims[3:]).values
    refuse_unmarked(values, array.name, chains)
    return values


def _points(train: np.ndarray, query: np.ndarray) -> xr.Dataset:
    rows = train[:, :, spread(train.shape[2], POINTS)]
    points = np.concatenate([rows, query], axis=2)
    series = xr.Dataset({"loss": (("chain", "draw", "point"), -points)})
    az = arviz()
    # A row that does not move has no R-hat.
    with np.errstate(invalid="ignore", divide="ignore"):
        rhat, ess = az.rhat(series)["loss"].values, az.ess(series)["loss"].values
    drift = _drift(points)
    group_of = ["train"] * rows.shape[2] + ["query"] * query.shape[2]
    return xr.Dataset(
        {
            "rhat": ("point", rhat),
            "ess": ("point", ess),
            "drift": ("point", drift),
            "rhat_high": np.nanquantile(rhat, 0.95) if np.isfinite(rhat).any() else np.nan,
            "ess_low": np.nanquantile(ess, 0.05) if np.isfinite(ess).any() else np.nan,
            "drift_share": np.nanmedian(drift) if np.isfinite(drift).any() else np.nan,
        },
        coords={"group": ("point", group_of)},
    )


def _drift(points: np.ndarray) -> np.ndarray:
    """Share of the variance within chains that a straight line explains, ``(point,)``.

    Of N independent draws it is 1/N, so 0.05 is what 20 effective draws a chain would show.
    """
    centred = points - points.mean(axis=1, keepdims=True, dtype=float)
    time = np.linspace(-1, 1, points.shape[1])
    time /= np.linalg.norm(time)
    slope = np.einsum("cdp,d->cp", centred, time)
    total = (centred**2).sum(axis=(0, 1))
    with np.errstate(invalid="ignore"):
        return (slope**2).sum(axis=0) / total


def _scores(train: np.ndarray, query: np.ndarray, seed: int) -> xr.Dataset:
    query = query[:, :, spread(query.shape[2], QUERIES)]
    chains = len(train)
    whole = covariance_with_errors(train, query, seed=seed)
    with np.errstate(invalid="ignore"):
        resolved = np.abs(whole.value) > RESOLVED_ERRORS * whole.mcse
    by_chain = [scores_of(train[c : c + 1], query[c : c + 1]) for c in range(chains)]
    between = np.mean(
        [agreement(a, b) for i, a in enumerate(by_chain) for b in by_chain[:i]], axis=0
    )
    expected, halves, _ = stability(train, query)
    return xr.Dataset(
        {
            "rank_agreement_chains": ("query", between),
            "rank_agreement_halves": ("query", halves),
            "rank_agreement": mean_known(between),
            "rank_reliability": expected,
            "resolved_share": float(resolved.mean()),
            "top_resolved": top_resolved(train, query, k=TOP),
            "draws_needed": draws_for_resolved(train, query, TARGET, k=TOP),
        }
    )


def _state(idata: Any) -> xr.Dataset:
    """Compare the draws with the trained weights: loss, distance, energy, noise."""
    used, excluded = usable_chains(idata)
    found, settings, stats = health(idata), root_attrs(idata), group(idata, "sample_stats")
    noise = math.nan
    if stats is not None and "gradient_noise" in stats:
        noise = float(stats["gradient_noise"].isel(chain=used).mean())
    prior = settings.get("num_weights", math.nan) / settings.get("localization", math.nan)
    return xr.Dataset(
        {
            "chains_lost": len(excluded) / (len(used) + len(excluded)),
            "loss_rise": found.loss_rise,
            "distance": found.distance,
            "distance_ratio": found.distance / math.sqrt(prior),
            "energy_ratio": found.energy_ratio,
            "wandering": found.wandering,
            "gradient_noise_share": noise / (1 + noise),
        }
    )
