"""What a run records: its variables and coordinates, and what is known at the trained weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.data import Batch, target
from ppl_bif.kernel import Draws, Engine
from ppl_bif.layout import Trace
from ppl_bif.schema import SAMPLE_STATS

__all__ = [
    "Record",
    "content",
    "filled",
    "fixed_groups",
    "gather_constant",
    "lay",
    "rounding",
    "score_mode",
    "totals",
    "traces",
    "traces_of",
]


Room = dict[str, np.ndarray]
ALWAYS = ("lp", "train_loss", "distance", "diverging")


class Record(NamedTuple):
    """What is recorded of each draw, and what tells that a chain has diverged.

    Attributes
    ----------
    saved
        Names of weights to keep.
    inverse_temperature, localization
        beta and gamma.
    lowest_lp
        Log posterior, up to a constant, below which a chain has left.
    stream
        What is made of draws in place of traces of all training rows, if anything: a
        :class:`ppl_bif.streaming.Stream`.
    """

    saved: list[str]
    inverse_temperature: float
    localization: float
    lowest_lp: float
    stream: Any = None

    def observe(self, draws: Draws, diverged: np.ndarray) -> dict[str, np.ndarray]:
        """Record draws. A chain that diverged, before or among them, is NaN from there on."""
        rows = draws.likelihood["train"].shape[2]
        found = self.judge(totals(draws), draws.stats, rows, diverged)
        lost = found["sample_stats/diverging"]
        for name, value in traces_of(draws).items():
            hides = lost.any() and name.startswith("log_likelihood/")
            found[name] = _blanked(value, lost) if hides else value
        return found if self.stream is None else self.stream.fold(found)

    def lay(self, room: Room, burst: Mapping[str, np.ndarray], at: int, draws: int) -> None:
        """Lay what was recorded of some draws into the room for a block of them."""
        (self.stream.lay if self.stream else lay)(room, burst, at, draws)

    def judge(
        self,
        total: Mapping[str, np.ndarray],
        stats: Mapping[str, np.ndarray],
        rows: int,
        diverged: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Return the statistics of draws, and from which one on each chain is lost.

        Parameters
        ----------
        total
            Log-likelihoods of ``train`` and ``query``, summed over rows, ``(chain, draw)``.
        stats
            Of the kernel.
        rows
            Training rows.
        diverged
            Chains that are lost before, ``(chain,)``.
        """
        lp = self.log_posterior(total["train"], stats)
        with np.errstate(invalid="ignore"):
            bad = ~np.isfinite(lp + total["query"]) | (lp < self.lowest_lp)
        known = {**stats, "lp": lp, "train_loss": -total["train"] / rows}
        found = {f"sample_stats/{name}": known[name] for name in SAMPLE_STATS if name in known}
        lost = np.logical_or.accumulate(bad | diverged[:, None], axis=1)
        return {**found, "sample_stats/diverging": lost}

    def log_posterior(self, total: np.ndarray, stats: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log posterior from the summed training log-likelihood."""
        away = stats["distance"].astype(float) ** 2
        return self.inverse_temperature * total - self.localization / 2 * away

    def lost(self, engine: Engine, state: Any) -> np.ndarray:
        """Tell which chains have diverged, ``(chain,)``."""
        total = _total(engine.log_likelihood(state, "train")[:, None])[:, 0]
        lp = self.log_posterior(total, engine.stats(state))
        with np.errstate(invalid="ignore"):
            return ~(lp >= self.lowest_lp)


def totals(draws: Draws) -> dict[str, np.ndarray]:
    """Sum the log-likelihoods of each group, ``(chain, draw)``."""
    return {name: _total(value) for name, value in draws.likelihood.items()}


def traces_of(draws: Draws) -> dict[str, np.ndarray]:
    """Return log-likelihoods and weights of draws by the names they are kept under."""
    kept = {f"log_likelihood/{name}_obs": value for name, value in draws.likelihood.items()}
    return kept | {f"posterior/{name}": value for name, value in draws.weights.items()}


def lay(room: Room, burst: Mapping[str, np.ndarray], at: int, draws: int) -> None:
    """Lay what was seen of draws ``(chain, draw, ...)`` into room for so many, made at the first.

    A block is then held once, where bursts that are kept to be put together would be held twice.
    """
    for name, values in burst.items():
        if name not in room:
            room[name] = np.empty((len(values), draws, *values.shape[2:]), values.dtype)
        room[name][:, at : at + values.shape[1]] = values


def _blanked(values: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return values ``(chain, draw, ...)``, NaN where a chain is lost."""
    return np.where(lost.reshape(*lost.shape, *(1,) * (values.ndim - 2)), np.nan, values)


def _total(values: np.ndarray) -> np.ndarray:
    """Sum log-likelihoods ``(chain, draw, row[, token])`` over rows and tokens."""
    return values.sum(axis=tuple(range(2, values.ndim)), dtype=float)


def score_mode(engine: Engine, ids: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Score all rows at w*, where every chain starts, and insist on finite values."""
    values = {name: engine.at_mode(name) for name in ids}
    for name, value in values.items():
        bad = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"log-likelihoods of {name} rows {ids[name][bad][:5].tolist()} are not finite at "
                "the trained weights: check these rows and the likelihood"
            )
    return values


def gather_constant(
    data: Mapping[str, Batch],
    ids: Mapping[str, np.ndarray],
    at_mode: Mapping[str, np.ndarray],
    more: Mapping[str, Any] | None,
) -> xr.Dataset:
    """Gather labels, losses at the trained weights, and what the user adds."""
    constant = xr.Dataset(coords=dict(ids))
    for name, value in at_mode.items():
        dims = (name, f"{name}_token")
        constant[f"{name}_loss_at_mode"] = (dims[: value.ndim], -value)
        labels = np.asarray(target(data[name]))
        if labels.ndim == 1 or labels.shape == value.shape:
            constant[f"{name}_target"] = (dims[: labels.ndim], labels)
    for key, value in (more or {}).items():
        if "/" in key:
            raise ValueError(f"names in constant_data must not contain '/'; got {key!r}")
        if key in constant.coords:
            raise ValueError(f"constant_data must not hold {key!r}, which names the rows' ids")
        constant[key] = value
    return constant


def content(dataset: xr.Dataset, names: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return dims and values of some variables, to be digested."""
    return {name: [list(dataset[name].dims), dataset[name].values] for name in names or {}}


def traces(
    stats: Sequence[str],
    chains: int,
    at_mode: Mapping[str, np.ndarray],
    weights: Mapping[str, Any],
    dtype: str = "float32",
    *,
    kept: int | None = None,
    draws_per_block: int = 1,
) -> dict[str, Trace]:
    """Describe the variables to be filled, by ``group/variable``, before the first draw.

    Log-likelihoods are of the ``dtype``; weights are as the arrays or tensors of their trained
    values. Of a run that is streamed, traces of so many training rows are kept, and sums over
    blocks of so many draws.
    """
    first, size = ("chain", "draw"), (chains, 0)
    found = {
        f"log_likelihood/{name}_obs": Trace(
            (*first, *(name, f"{name}_token")[: value.ndim]), (*size, *value.shape), dtype
        )
        for name, value in at_mode.items()
    }
    if kept is not None:
        found |= _streamed(found, kept, draws_per_block)
    for name in SAMPLE_STATS:
        if name in ALWAYS or name in stats:
            kind = "bool" if name == "diverging" else "float64"
            found[f"sample_stats/{name}"] = Trace(first, size, kind)
    for name, value in weights.items():
        dims = tuple(f"{name}_dim_{i}" for i in range(value.ndim))
        kind = str(value.dtype).removeprefix("torch.")
        found[f"posterior/{name}"] = Trace((*first, *dims), (*size, *value.shape), kind)
    return found


def _streamed(found: Mapping[str, Trace], kept: int, draws_per_block: int) -> dict[str, Trace]:
    """Describe traces of some training rows, and sums of all."""
    train, query = (found[f"log_likelihood/{name}_obs"] for name in ("train", "query"))
    chains, rows = train.shape[0], train.shape[2]
    shape = (chains, 0, 2 + query.shape[2], rows)
    some = train._replace(
        dims=(*train.dims[:2], "train_kept", *train.dims[3:]),
        shape=(chains, 0, kept, *train.shape[3:]),
    )
    sums = Trace(("chain", "block", "factor", "train"), shape, "float32", draws_per_block)
    return {"log_likelihood/train_obs": some, "log_likelihood/train_sums": sums}


def rounding(values: np.ndarray) -> float:
    """Return the largest share of a row's variance that rounding to the type of traces has added.

    The error of rounding lies anywhere within half a spacing s of the type, so that its variance
    is s^2 / 12. Rows that do not vary are left out.

    Parameters
    ----------
    values
        Traces ``(chain, draw, row)``; NaN where a chain has diverged.
    """
    spacing = np.spacing(np.abs(values)).astype(float)
    added = np.nanmean(spacing**2, axis=(0, 1)) / 12
    variance = np.nanvar(values.astype(float), axis=(0, 1))
    varies = variance > 0
    return float(np.max(added[varies] / variance[varies], initial=0.0))


def fixed_groups(
    chains: int, ids: Mapping[str, np.ndarray], constant: xr.Dataset, *, posterior: bool
) -> dict[str, xr.Dataset]:
    """Return what is known before the first draw: constant data, and coordinates of groups."""
    coords = {"chain": np.arange(chains)}
    groups = {
        "log_likelihood": xr.Dataset(coords={**coords, **ids}),
        "sample_stats": xr.Dataset(coords=coords),
        "constant_data": constant,
    }
    if posterior:
        groups["posterior"] = xr.Dataset(coords=coords)
    return groups


def filled(
    fixed: Mapping[str, xr.Dataset],
    arrays: Mapping[str, Any],
    traces: Mapping[str, Trace],
    draws: int,
) -> dict[str, xr.Dataset]:
    """Put the filled variables into their groups."""
    groups = {name: dataset.copy() for name, dataset in fixed.items()}
    for path, trace in traces.items():
        group, name = path.split("/")
        groups[group][name] = (trace.dims, arrays[path])
    return {
        name: dataset.assign_coords(draw=np.arange(draws)) if "draw" in dataset.dims else dataset
        for name, dataset in groups.items()
    }
