"""Traces of pointwise log-likelihoods in a run, found by name and read piece by piece."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.errors import BIFError
from ppl_bif.schema import group, refuse_unmarked, root_attrs, usable_chains
from ppl_bif.units import Units, as_by, consecutive, units
from ppl_bif.variables import Rows, as_rows, refuse_other_draws, spread_over, together

__all__ = [
    "DIAGNOSED_ROWS",
    "DIAGNOSED_STRETCHES",
    "STRETCH",
    "Parts",
    "Traces",
    "observed",
    "refuse_unsampled",
    "spread",
    "traces",
]

# Values that are read at once at most: 256 MB in single precision.
VALUES = 2**26
# Rows that stand for all are taken from so many stretches of so many rows, so that of a run on disk
# not everything is read.
STRETCHES, STRETCH = 4, 2048
# Names of a run that ppl_bif sampled; of any other, the only variable stands for both.
DEFAULTS = ("train_obs", "query_obs")
# So many training rows, from so many stretches, are looked at to diagnose a run.
DIAGNOSED_ROWS, DIAGNOSED_STRETCHES = 2048, 32


class Traces(NamedTuple):
    """Log-likelihoods ``(chain, draw, row)`` of one side, that are read piece by piece.

    Attributes
    ----------
    array
        With dims chain, draw, ``dim``, and tokens if there are any.
    ids
        Of the rows, or of their parts that are scored.
    dim
        Along which the rows lie.
    chains
        Positions of those that may be scored.
    axes
        Of each variable that rows come from, the sizes of their dims there.
    units
        Parts of the rows that are scored; None for the rows themselves, tokens summed.
    """

    array: xr.DataArray
    ids: np.ndarray
    dim: str
    chains: list[int]
    axes: tuple[dict[str, int], ...] = ()
    units: Units | None = None

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """What else is known of what is scored, by name."""
        return {} if self.units is None else self.units.coords

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read some rows or parts of them, ``(chain, draw, row)``, finite."""
        if self.units is None:
            part = self._part(rows)
            others = [d for d in part.dims if d not in ("chain", "draw", self.dim)]
            part = part.sum(others) if others else part
            values = part.transpose("chain", "draw", self.dim).values
        else:
            (token,) = set(self.array.dims) - {"chain", "draw", self.dim}
            needed = self.units.rows(rows, self.array.sizes[token])
            part = self._part(consecutive(needed)).transpose("chain", "draw", self.dim, token)
            values = self.units.sums(rows, part.values, needed)
        refuse_unmarked(values, self.array.name, self.chains)
        return values if values.dtype in (np.float32, np.float64) else values.astype(float)

    def _part(self, rows: slice | np.ndarray) -> xr.DataArray:
        chains = self.chains if len(self.chains) < self.array.sizes["chain"] else slice(None)
        return self.array.isel({self.dim: rows, "chain": chains})

    def some(self, most: int = 256) -> np.ndarray:
        """Read rows from all over, to measure autocorrelation on."""
        return self.read(spread(len(self.ids), most))

    def width(self) -> int:
        """Return how many rows are best read at once: those of a chunk on disk, if they are few."""
        stored = self.array.encoding.get("preferred_chunks", {}).get(self.dim, STRETCH)
        each = math.prod(n for dim, n in self.array.sizes.items() if dim != self.dim)
        rows = max(1, min(max(stored, STRETCH), VALUES // each))
        # Units lie in as many rows as their share of all.
        return max(1, rows * len(self.ids) // self.array.sizes[self.dim])

    def pieces(self) -> Iterator[slice]:
        """Cut all rows or parts into pieces of that width."""
        width = self.width()
        return (slice(start, start + width) for start in range(0, len(self.ids), width))


def spread(rows: int, most: int, stretches: int = STRETCHES) -> np.ndarray:
    """Choose rows from all over, in order: of very many, from some stretches of 2,048 rows.

    Examples
    --------
    >>> spread(9, 3).tolist()
    [0, 4, 8]
    """
    stretches = min(stretches, most)
    if rows <= max(stretches * STRETCH, most):
        return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(int))
    starts = STRETCH * np.linspace(0, rows // STRETCH - 1, stretches).astype(int)
    within = np.linspace(0, STRETCH - 1, min(most // stretches, STRETCH)).astype(int)
    return np.add.outer(starts, within).ravel()


def refuse_unsampled(idata: Any) -> None:
    """Raise BIFError for a run that was found not to have sampled its posterior."""
    refused = root_attrs(idata).get("refused", [])
    reasons = [refused] if isinstance(refused, str) else list(refused)
    if reasons:
        raise BIFError(
            f"this run did not sample its posterior and is not scored: {'; '.join(reasons)}. "
            "Sample again with step_size left out, or a larger localization"
        )


class Parts(NamedTuple):
    """What is scored of rows with tokens, as :func:`ppl_bif.influence` takes it."""

    by: Any = "sequence"
    spans: Any = None
    reduce: str = "sum"
    groups: Any = None


def traces(
    idata: Any, train: Any, query: Any, observable: Any, parts: Parts | None = None
) -> tuple[Traces, Traces]:
    """Find the traces of training rows and of what is explained, as ``influence`` names them."""
    parts, likelihoods = parts or Parts(), _likelihoods(idata, train)
    used, excluded = usable_chains(idata)
    if not used:
        raise BIFError(f"every chain diverged ({excluded}): sample again with a smaller step")
    rows = _named(likelihoods, train, "train", used)
    by, constant = as_by(parts.by), group(idata, "constant_data")
    rows = _in_parts(rows, constant, by["train"], "train", parts)
    if observable is not None:
        explained = observed(idata, observable, used)
    else:
        explained = _named(_likelihoods(idata, query), query, "query", used)
        explained = _in_parts(explained, constant, by["query"], "query", parts)
    refuse_other_draws(explained.array, rows.array)
    if parts.groups is not None:
        rows = _grouped(rows, _labels(idata, parts.groups, rows))
    return rows, explained


def _likelihoods(idata: Any, names: Any) -> Mapping[Any, xr.DataArray]:
    """Return the log-likelihoods of a run, or the variables of its posterior if those are named."""
    likelihood, posterior = group(idata, "log_likelihood"), group(idata, "posterior")
    if likelihood is not None and likelihood.data_vars:
        return likelihood.data_vars
    known = {} if posterior is None else dict(posterior.data_vars)
    named = [names] if isinstance(names, str) else list(names)
    if named and set(named) <= set(known):
        return {name: known[name] for name in named}
    like = [name for name in known if "log_lik" in str(name)]
    raise ValueError(
        "influence needs pointwise log-likelihoods: the InferenceData has no log_likelihood "
        "group; make it with ppl_bif.sample, or compute it (numpyro.infer.log_likelihood)"
        + (f"; if those are {like} of the posterior, name them by train=" if like else "")
    )


def observed(idata: Any, observable: Any, chains: list[int]) -> Traces:
    """Find what is explained: variables of the posterior, element by element, or made of them.

    Parameters
    ----------
    idata
        A run with a ``posterior`` group.
    observable
        A variable of ``posterior`` or ``posterior_predictive``, several, or a function of the
        posterior's Dataset that gives a DataArray with dims chain and draw.
    chains
        Positions of those that may be scored.

    Raises
    ------
    ValueError
        If there is no posterior, or no such variable, or chains or draws are missing.
    """
    posterior = group(idata, "posterior")
    if posterior is None:
        raise ValueError(f"observable {observable!r} needs a posterior group, and there is none")
    if callable(observable):
        made = observable(posterior)
        if not isinstance(made, xr.DataArray):
            raise ValueError(
                "an observable that is a function gives an xarray.DataArray with dims chain and "
                f"draw; got {type(made).__name__}"
            )
        return _as_traces(as_rows(made, "query"), chains)
    predicted = group(idata, "posterior_predictive")
    known = {**(predicted.data_vars if predicted is not None else {}), **posterior.data_vars}
    return _named(known, observable, "query", chains)


def _labels(idata: Any, groups: Any, rows: Traces) -> np.ndarray:
    """Say which group each row belongs to."""
    count, dim = rows.array.sizes[rows.dim], rows.dim
    if not isinstance(groups, str):
        labels = np.asarray(groups)
    elif groups in rows.array.coords and rows.array[groups].dims == (dim,):
        labels = rows.array[groups].values
    else:
        places = [group(idata, name) for name in ("constant_data", "observed_data")]
        found = [place[groups] for place in places if place is not None and groups in place]
        if not found:
            raise ValueError(
                f"groups={groups!r} is neither a coordinate of {dim!r} nor in constant_data or "
                "observed_data: pass an array with the group of each row"
            )
        labels = spread_over(found[0], rows.axes)
    if labels.shape != (count,):
        raise ValueError(
            f"groups must have one entry for each of {count} rows; got shape {labels.shape}"
        )
    return labels


def _grouped(rows: Traces, labels: np.ndarray) -> Traces:
    """Sum the log-likelihoods of the rows of each group."""
    if rows.units is not None:
        raise ValueError("groups are of rows: leave by and reduce out")
    names, code = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(rows.chains), rows.array.sizes["draw"], len(names)))
    for piece in rows.pieces():
        part, mine = rows.read(piece), code[piece]
        for at in np.unique(mine):
            sums[..., at] += part[..., mine == at].sum(axis=2, dtype=float)
    name = f"groups of {rows.array.name}"
    array = xr.DataArray(sums, dims=("chain", "draw", rows.dim), name=name)
    return Traces(array, names, rows.dim, rows.chains)


def _in_parts(
    found: Traces, constant: xr.Dataset | None, by: str, side: str, parts: Parts
) -> Traces:
    if by == "sequence" and parts.reduce == "sum":
        return found
    spans = (parts.spans or {}).get(side)
    of = units(found.array, constant, by, spans=spans, reduce=parts.reduce)
    return found._replace(ids=of.ids, units=of)


def _named(known: Mapping[Any, xr.DataArray], names: Any, role: str, chains: list[int]) -> Traces:
    """Find a variable, or the only one there is, or several, whose rows follow one another."""
    wanted = [names] if isinstance(names, str) else list(names)
    if names in DEFAULTS and len(known) == 1:
        wanted = list(known)
    missing = [name for name in wanted if name not in known]
    if missing:
        advice = f": name them by {role}=, one or a list" if names in DEFAULTS else ""
        raise ValueError(
            f"{role} variable {missing[0]!r} is not there; there are {list(known)}{advice}"
        )
    arrays = [known[name] for name in wanted]
    rows = as_rows(arrays[0], role) if isinstance(names, str) else together(arrays, role)
    return _as_traces(rows, chains)


def _as_traces(rows: Rows, chains: list[int]) -> Traces:
    return Traces(rows.array, rows.ids, rows.dim, chains, rows.axes)
