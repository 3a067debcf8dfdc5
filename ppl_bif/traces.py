"""Traces of pointwise log-likelihoods in a run, found by name and read piece by piece."""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.errors import BIFError
from ppl_bif.schema import group, refuse_unmarked, root_attrs, usable_chains

__all__ = [
    "DIAGNOSED_ROWS",
    "DIAGNOSED_STRETCHES",
    "STRETCH",
    "Traces",
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
        Of the rows.
    dim
        Along which the rows lie.
    chains
        Positions of those that may be scored.
    """

    array: xr.DataArray
    ids: np.ndarray
    dim: str
    chains: list[int]

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read some rows, ``(chain, draw, row)``, tokens summed, finite."""
        chains = self.chains if len(self.chains) < self.array.sizes["chain"] else slice(None)
        part = self.array.isel({self.dim: rows, "chain": chains})
        others = [d for d in part.dims if d not in ("chain", "draw", self.dim)]
        values = (part.sum(others) if others else part).transpose("chain", "draw", self.dim).values
        refuse_unmarked(values, self.array.name, self.chains)
        return values if values.dtype in (np.float32, np.float64) else values.astype(float)

    def some(self, most: int = 256) -> np.ndarray:
        """Read rows from all over, to measure autocorrelation on."""
        return self.read(spread(len(self.ids), most))

    def width(self) -> int:
        """Return how many rows are best read at once: those of a chunk on disk, if they are few."""
        stored = self.array.encoding.get("preferred_chunks", {}).get(self.dim, STRETCH)
        each = math.prod(n for dim, n in self.array.sizes.items() if dim != self.dim)
        return max(1, min(max(stored, STRETCH), VALUES // each))


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


def traces(idata: Any, train: str, query: str, observable: str | None) -> tuple[Traces, Traces]:
    """Find the traces of training rows and of what is explained, as ``influence`` names them."""
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
) -> Traces:
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
        return Traces(array.expand_dims({role: [name]}), np.array([name]), role, chains)
    if len(own) == 1:
        return Traces(array, array[own[0]].values, str(own[0]), chains)
    flat = array.stack({role: own}, create_index=False)
    index = np.ndindex(*(array.sizes[d] for d in own))
    return Traces(flat, np.array([",".join(map(str, i)) for i in index]), role, chains)
