"""Names of groups, variables and dimensions of a run; to and from InferenceData and DataTree.

ArviZ 0.x keeps a run in ``arviz.InferenceData``, ArviZ 1.x in ``xarray.DataTree``. The rest of
ppl_bif knows only groups of xarray Datasets and comes here to make or read either.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from ppl_bif.errors import BIFError

__all__ = [
    "SAMPLE_STATS",
    "SCHEMA_VERSION",
    "along",
    "arviz",
    "group",
    "inference_data",
    "inverse_temperature",
    "pareto_smoothed",
    "refuse_unmarked",
    "root_attrs",
    "usable_chains",
]

# Of the layout of a run; raised when an older version would misread it.
SCHEMA_VERSION = 1
SAMPLE_STATS = (
    "lp",
    "train_loss",
    "minibatch_loss",
    "distance",
    "gradient_noise",
    "acceptance",
    "step_size",
    "diverging",
)


def arviz() -> Any:
    """Import ArviZ, when it is first needed."""
    with warnings.catch_warnings():
        # ArviZ 0.23 announces its refactoring at import, which is no concern of our user's.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    return az


def along(dim: str, parts: Mapping[Any, xr.Dataset]) -> xr.Dataset:
    """Put estimates after each other along a new first dim, whose coordinate are their keys."""
    return xr.concat(
        list(parts.values()),
        xr.DataArray(list(parts), dims=dim, name=dim),
        data_vars="all",
        coords="minimal",
        compat="equals",
        join="exact",
        combine_attrs="drop_conflicts",
    )


def inference_data(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> Any:
    """Bundle groups as what the installed ArviZ calls InferenceData.

    ArviZ goes through all variables of a group of draws: those without draws, as the sums of a
    streamed run, are laid into ``constant_data``, and dims without coordinates are counted.

    Parameters
    ----------
    groups
        Datasets by group name, such as ``log_likelihood``.
    attrs
        Attributes of the root.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The first with ArviZ 0.x, the second with ArviZ 1.x.
    """
    az = arviz()
    groups = {name: ds for name, ds in _as_arviz_takes_them(groups).items() if ds.data_vars}
    if int(az.__version__.split(".")[0]) < 1:
        return az.InferenceData(attrs=dict(attrs), **groups)
    tree = xr.DataTree.from_dict(dict(groups))
    tree.attrs = dict(attrs)
    return tree


def _as_arviz_takes_them(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    found = dict(groups)
    if "log_likelihood" in found:
        likelihood = found["log_likelihood"]
        apart = [name for name, of in likelihood.items() if "draw" not in of.dims]
        if 0 < len(apart) < len(likelihood):
            constant = found.get("constant_data", xr.Dataset())
            found["constant_data"] = constant.merge(likelihood[apart])
            found["log_likelihood"] = likelihood.drop_vars(apart)
    for name in {"posterior", "log_likelihood"} & set(found):
        bare = set(found[name].dims) - set(found[name].coords)
        found[name] = found[name].assign_coords({d: np.arange(found[name].sizes[d]) for d in bare})
    return found


def pareto_smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Smooth the largest importance weights by ArviZ's PSIS; they sum to 1.

    Returns
    -------
    log_weights : numpy.ndarray
    k : float
        Pareto's shape: above 0.7 there are too few draws for what is asked of them. 0 where the
        weights are all but the same: those stay as they are.
    """
    raw = log_weights - logsumexp(log_weights)
    # Without a tail, as of weights that differ by rounding, PSIS fails.
    if logsumexp(2 * raw) < -np.log(0.9999 * raw.size):
        return raw, 0.0
    az = arviz()
    # A weight that is all but 0 beside others overflows on the way to it.
    with np.errstate(over="ignore"):
        if hasattr(az, "psislw"):
            smooth, k = az.psislw(log_weights)
        else:
            from arviz_stats.base import array_stats

            # It takes log-likelihoods that are left out.
            smooth, k = array_stats.psislw(-log_weights)
    return smooth - logsumexp(smooth), float(k)


def group(idata: Any, name: str) -> xr.Dataset | None:
    """Return one group of an InferenceData or DataTree as a Dataset, or None if it has none."""
    if isinstance(idata, xr.DataTree):
        return idata[name].to_dataset() if name in idata.children else None
    if isinstance(idata, Mapping):
        return idata.get(name)
    if not hasattr(idata, "groups"):
        raise TypeError(
            "expected an arviz.InferenceData or an xarray.DataTree with a log_likelihood group; "
            f"got {type(idata).__name__}"
        )
    return idata[name] if name in idata.groups() else None


def root_attrs(idata: Any) -> dict[str, Any]:
    """Return the attributes of a run."""
    return dict(getattr(idata, "attrs", {}))


def inverse_temperature(idata: Any) -> float:
    """Return beta of a run; 1 where it is not said, as of NUTS on a model as it is."""
    return float(root_attrs(idata).get("inverse_temperature", 1.0))


def usable_chains(idata: Any) -> tuple[list[int], list[int]]:
    """Split the chains of a run into those that may be scored and those that diverged.

    Returns
    -------
    used, excluded : list of int
        Positions along ``chain``. A chain is excluded from the first draw marked as diverging on,
        hence whole.
    """
    stats = group(idata, "sample_stats")
    # Log-likelihoods may lie in the posterior.
    places = (group(idata, "log_likelihood"), group(idata, "posterior"), stats)
    sizes: Mapping[Any, int] = next((place.sizes for place in places if place is not None), {})
    if not {"chain", "draw"} <= set(sizes):
        raise ValueError(
            f"log-likelihoods must have dims chain and draw; got {list(sizes)}: rename them, or "
            "give one chain a dim of length 1"
        )
    chains = sizes["chain"]
    bad = np.zeros(chains, dtype=bool)
    # NUTS marks single transitions as diverging and goes on; only an SGLD chain is lost by one.
    if stats is not None and "diverging" in stats and "distance" in stats:
        bad |= stats["diverging"].any("draw").values
    return np.flatnonzero(~bad).tolist(), np.flatnonzero(bad).tolist()


def refuse_unmarked(values: np.ndarray, name: Any, chains: list[int]) -> None:
    """Raise BIFError where chains that are not marked as diverging hold NaN or infinity."""
    if not np.isfinite(values).all():
        raise BIFError(
            f"{name} holds NaN or infinity in chains {chains}, which no draw is marked as "
            "diverging for: drop these chains or rows"
        )
