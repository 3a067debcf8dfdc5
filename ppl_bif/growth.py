"""One question asked of the first draws of a run, of more and more of them, up to all."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.schema import along, group, inference_data, root_attrs, usable_chains
from ppl_bif.scores import influence
from ppl_bif.streaming import refuse_streamed

__all__ = ["over_draws"]

GROUPS = (
    "log_likelihood",
    "posterior",
    "posterior_predictive",
    "sample_stats",
    "constant_data",
    "observed_data",
)
# Of fewer draws a chain, errors say little.
FEWEST = 10


def over_draws(
    idata: Any,
    *,
    estimate: Callable[[Any], xr.Dataset] = influence,
    points: int | Sequence[int] = 10,
) -> xr.Dataset:
    """Estimate the same from the first draws of each chain, from more and more of them.

    What has settled moves less than its errors say, and these shrink as the root of the draws.
    Estimates share their draws, so neighbours are closer to each other than to the truth.

    Parameters
    ----------
    idata
        A run, or any InferenceData or DataTree. Chains that diverged are left out from the start.
    estimate
        What to make of the draws: :func:`ppl_bif.influence`, or any function of a run that gives a
        Dataset, such as ``lambda run: bif.influence(run, shrink=None)``.
    points
        How many times, after equal shares of the draws; or the numbers of draws of a chain.
        Fewer than 10 draws are left out.

    Returns
    -------
    xarray.Dataset
        What ``estimate`` gives, with a dim ``draws`` first, the draws of each chain. Attributes are
        those that all have.

    Raises
    ------
    ValueError
        If there is no usable chain, there are fewer than 10 draws or other numbers than the run
        has, or the run is a streamed one, which keeps no draws.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> likelihood = xr.Dataset({"y": (("chain", "draw", "row"), rng.normal(size=(2, 100, 3)))})
    >>> found = over_draws(inference_data({"log_likelihood": likelihood}, {}), points=4)
    >>> found["draws"].values.tolist()
    [25, 50, 75, 100]
    >>> found["influence"].dims
    ('draws', 'query', 'train')
    """
    refuse_streamed(idata)
    used, _ = usable_chains(idata)
    if not used:
        raise ValueError("every chain diverged: there are no draws to estimate from")
    groups = {name: found for name in GROUPS if (found := group(idata, name)) is not None}
    draws = next(found.sizes["draw"] for found in groups.values() if "draw" in found.dims)
    attrs = root_attrs(idata)
    parts = {
        count: estimate(_first(groups, used, count, attrs)) for count in _counts(draws, points)
    }
    return along("draws", parts)


def _counts(draws: int, points: int | Sequence[int]) -> list[int]:
    """Return after how many draws to estimate."""
    if isinstance(points, int):
        if points < 1:
            raise ValueError(f"points must be at least 1; got {points}")
        counts = np.linspace(0, draws, points + 1)[1:].round().astype(int)
    else:
        counts = np.unique(np.asarray(points, dtype=int))
    if not counts.size or counts.max() > draws or counts.max() < FEWEST:
        raise ValueError(
            f"points must be numbers of draws between {FEWEST} and the {draws} of the run; "
            f"got {np.asarray(points).tolist()}"
        )
    return counts[counts >= FEWEST].tolist()


def _first(
    groups: dict[str, xr.Dataset], chains: list[int], draws: int, attrs: dict[str, Any]
) -> Any:
    """Return a run of the first draws of some chains."""
    cut = {"chain": chains, "draw": slice(draws)}
    parts = {name: found.isel(cut, missing_dims="ignore") for name, found in groups.items()}
    return inference_data(parts, attrs)
