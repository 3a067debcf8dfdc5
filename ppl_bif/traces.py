"""Traces of pointwise log-likelihoods in a run, found by name and read piece by piece."""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.errors import BIFError
from ppl_bif.schema import group, refuse_unmarked, root_attrs, usable_chains
from ppl_bif.units import Units, as_by, units

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
    units
        Parts of the rows that are scored; None for the rows themselves, tokens summed.
    """

    array: xr.DataArray
    ids: np.ndarray
    dim: str
    chains: list[int]
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
            part = self._part(needed).transpose("chain", "draw", self.dim, token)
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
    idata: Any, train: str, query: str, observable: Any, parts: Parts | None = None
) -> tuple[Traces, Traces]:
    """Find the traces of training rows and of what is explained, as ``influence`` names them."""
    parts = parts or Parts()
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
    by, constant = as_by(parts.by), group(idata, "constant_data")
    rows = _in_parts(rows, constant, by["train"], "train", parts)
    if parts.groups is not None:
        rows = _grouped(rows, _labels(idata, parts.groups, rows))
    if observable is not None:
        return rows, observed(idata, observable, used)
    explained = _named(likelihood, query, only, "query", used)
    return rows, _in_parts(explained, constant, by["query"], "query", parts)


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
        return _as_traces(made, "query", chains)
    predicted = group(idata, "posterior_predictive")
    known = {**(predicted.data_vars if predicted is not None else {}), **posterior.data_vars}
    if isinstance(observable, str):
        return _named(known, observable, None, "query", chains)
    found = [_named(known, name, None, "query", chains) for name in observable]
    ids = [
        name if len(one.ids) == 1 and str(one.ids[0]) == name else f"{name}[{i}]"
        for name, one in zip(observable, found, strict=True)
        for i in one.ids
    ]
    flat = [
        one.array.rename({one.dim: "query"}).drop_vars("query", errors="ignore") for one in found
    ]
    array = xr.concat([one.reset_coords(drop=True) for one in flat], "query", coords="minimal")
    return Traces(array, np.array(ids), "query", chains)


def _labels(idata: Any, groups: Any, rows: Traces) -> np.ndarray:
    """Say which group each row belongs to."""
    count, dim = rows.array.sizes[rows.dim], rows.dim
    if not isinstance(groups, str):
        labels = np.asarray(groups)
    elif groups in rows.array.coords and rows.array[groups].dims == (dim,):
        labels = rows.array[groups].values
    else:
        places = [group(idata, name) for name in ("constant_data", "observed_data")]
        found = [place[groups].values for place in places if place is not None and groups in place]
        if not found:
            raise ValueError(
                f"groups={groups!r} is neither a coordinate of {dim!r} nor in constant_data or "
                "observed_data: pass an array with the group of each row"
            )
        labels = found[0]
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
    width = rows.width()
    for start in range(0, len(code), width):
        part, mine = rows.read(slice(start, start + width)), code[start : start + width]
        for at in np.unique(mine):
            sums[..., at] += part[..., mine == at].sum(axis=2, dtype=float)
    array = xr.DataArray(sums, dims=("chain", "draw", rows.dim), name=rows.array.name)
    return Traces(array, names, rows.dim, rows.chains)


def _in_parts(
    found: Traces, constant: xr.Dataset | None, by: str, side: str, parts: Parts
) -> Traces:
    if by == "sequence" and parts.reduce == "sum":
        return found
    spans = (parts.spans or {}).get(side)
    of = units(found.array, constant, by, spans=spans, reduce=parts.reduce)
    return found._replace(ids=of.ids, units=of)


def _named(dataset: Any, name: str, only: str | None, role: str, chains: list[int]) -> Traces:
    if name not in dataset and only is not None:
        name = only
    if name not in dataset:
        raise ValueError(f"{role} variable {name!r} is not there; there are {list(dataset)}")
    return _as_traces(dataset[name], role, chains)


def _as_traces(array: xr.DataArray, role: str, chains: list[int]) -> Traces:
    name = array.name
    missing = {"chain", "draw"} - set(array.dims)
    if missing:
        raise ValueError(f"{name!r} must have dims chain and draw; it has {array.dims}")
    dims = [d for d in array.dims if d not in ("chain", "draw")]
    own = [d for d in dims if not str(d).endswith("_token")]
    if not own:
        return Traces(array.expand_dims({role: [name]}), np.array([name]), role, chains)
    if len(own) == 1:
        return Traces(array, array[own[0]].values, str(own[0]), chains)
    flat = array.stack({role: own}, create_index=False)
    index = np.ndindex(*(array.sizes[d] for d in own))
    return Traces(flat, np.array([",".join(map(str, i)) for i in index]), role, chains)
