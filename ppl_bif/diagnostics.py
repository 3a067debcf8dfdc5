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
from scipy.stats import rankdata

from ppl_bif.covariance import block_covariance, choose_blocks, product_time
from ppl_bif.errors import BIFError
from ppl_bif.schema import arviz, group, refuse_unmarked, root_attrs, usable_chains

__all__ = ["diagnose", "table"]

POINTS, QUERIES, TRAIN_ROWS, TOP = 200, 64, 2048, 10
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
        ``query_obs``; what cannot be measured is NaN and not judged.
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
        ``distance_ratio`` (to the prior's sqrt(d / gamma)), ``energy_ratio``,
        ``gradient_noise_share``, ``resolved_share``, ``draws_needed`` (per chain, until the
        typical top-10 score passes two errors; infinite if no multiple within 100 would do),
        ``rhat_high``, ``ess_low``, ``drift_share``, ``chains_lost``. Attributes ``verdict``
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
    needed = _text(float(check["draws_needed"]))
    return [*rows, (f"draws per chain to resolve the top {TOP}", needed, "", "for information")]


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
        _read(likelihood["train_obs"], used, TRAIN_ROWS),
        _read(likelihood["query_obs"], used, POINTS),
    )


def _read(array: xr.DataArray, chains: list[int], most: int) -> np.ndarray:
    dim = str(array.dims[2])
    part = array.isel({"chain": chains, dim: _spread(array.sizes[dim], most)})
    values = part.values if part.ndim == 3 else part.sum(part.dims[3:]).values
    refuse_unmarked(values, array.name, chains)
    return values


def _spread(rows: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(int))


def _points(train: np.ndarray, query: np.ndarray) -> xr.Dataset:
    rows = train[:, :, _spread(train.shape[2], POINTS)]
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
    query = query[:, :, _spread(query.shape[2], QUERIES)]
    chains, draws = train.shape[:2]
    time = product_time(train, query, seed=seed)
    blocks = choose_blocks(chains, draws, time)
    whole = block_covariance(train, query, blocks=blocks, time=time)
    with np.errstate(invalid="ignore"):
        resolved = np.abs(whole.value) > 2 * whole.mcse
    by_chain = [_covariance(train[c : c + 1], query[c : c + 1]) for c in range(chains)]
    agreement = np.mean(
        [_agreement(a, b) for i, a in enumerate(by_chain) for b in by_chain[:i]], axis=0
    )
    half = draws // 2
    halves = _agreement(
        _covariance(train[:, :half], query[:, :half]), _covariance(train[:, half:], query[:, half:])
    )
    middle = _mean(halves)
    return xr.Dataset(
        {
            "rank_agreement_chains": ("query", agreement),
            "rank_agreement_halves": ("query", halves),
            "rank_agreement": _mean(agreement),
            "rank_reliability": 2 * middle / (1 + middle) if middle > -1 else np.nan,
            "resolved_share": float(resolved.mean()),
            "draws_needed": _draws_needed(train, query, blocks, time),
        }
    )


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _covariance(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    return block_covariance(train, query, blocks=2).value


def _agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman correlation of two tables of scores, row by row."""
    x, y = rankdata(a, axis=1), rankdata(b, axis=1)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))


def _draws_needed(train: np.ndarray, query: np.ndarray, blocks: int, time: float) -> float:
    """Draws per chain until the typical top score passes two errors.

    The top rows are chosen on half of the chains and their errors counted on the other half, as
    the largest of many noisy scores would otherwise look resolved.
    """
    chains, draws = train.shape[:2]
    half = chains // 2
    k = min(TOP, train.shape[2])
    chosen = np.argsort(-np.abs(_covariance(train[:half], query[:half])), axis=1)[:, :k]
    sign = np.sign(np.take_along_axis(_covariance(train[:half], query[:half]), chosen, axis=1))
    other = block_covariance(train[half:], query[half:], blocks=blocks, time=time)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = sign * np.take_along_axis(other.value / other.mcse, chosen, axis=1)
    typical = float(np.nanmedian(errors)) if np.isfinite(errors).any() else math.nan
    if not typical > 2 / math.sqrt(100):
        return math.inf if math.isfinite(typical) else math.nan
    return draws * (chains - half) / chains * (2 / typical) ** 2


def _state(idata: Any) -> xr.Dataset:
    """Compare the draws with the trained weights: loss, distance, energy, noise."""
    used, excluded = usable_chains(idata)
    stats, constant = group(idata, "sample_stats"), group(idata, "constant_data")
    settings = root_attrs(idata)
    mean = dict.fromkeys(("train_loss", "distance", "gradient_noise"), math.nan)
    if stats is not None:
        kept = stats.isel(chain=used)
        mean |= {n: float(kept[n].mean()) for n in mean if n in kept}
    at_mode, rows = math.nan, 0
    if constant is not None and "train_loss_at_mode" in constant:
        losses = constant["train_loss_at_mode"]
        rows = losses.sizes["train"]
        at_mode = float(losses.sum()) / rows
    rise = mean["train_loss"] - at_mode
    weights, gamma = settings.get("num_weights", math.nan), settings.get("localization", math.nan)
    energy = settings.get("inverse_temperature", math.nan) * rows * rise
    if stats is not None and "distance" in stats:
        energy += gamma / 2 * float((stats["distance"].isel(chain=used) ** 2).mean())
    noise = mean["gradient_noise"]
    return xr.Dataset(
        {
            "chains_lost": len(excluded) / (len(used) + len(excluded)),
            "loss_rise": rise,
            "distance": mean["distance"],
            "distance_ratio": mean["distance"] / math.sqrt(weights / gamma),
            "energy_ratio": energy / (weights / 2),
            "gradient_noise_share": noise / (1 + noise),
        }
    )
