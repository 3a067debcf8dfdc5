"""Points that are learned alike: correlations of their losses over the draws, as a kernel."""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from scipy.linalg import eigh

from ppl_bif.checks import whole
from ppl_bif.correlation import block_correlation
from ppl_bif.ranking import top
from ppl_bif.scores import BLOCK_PAIRS, influence
from ppl_bif.streaming import refuse_streamed
from ppl_bif.traces import Parts, traces

__all__ = ["loss_kernel"]

METHODS = ("mds", "umap")
# Below every correlation: a point is no neighbour of its own.
SELF = -2.0


def loss_kernel(
    idata: Any,
    *,
    points: str = "train_obs",
    others: str | None = None,
    by: str = "sequence",
    reduce: str = "sum",
    neighbours: int = 10,
    dims: int = 2,
    method: str = "mds",
    seed: int = 0,
) -> xr.Dataset:
    r"""Compare points by how their losses move together over the draws, and lay them out.

    k(i, j) = Corr(l_i(w), l_j(w)) under the local posterior (the normalized BIF of Kreer et al.
    2025), between -1 and 1, without beta. **Near 1: what fits one point better fits the other
    better, the network holds them by the same weights.** As correlations of series they form a
    positive semidefinite matrix, chains centred each at its own mean and then taken together; so
    1 - k is half a squared distance between unit vectors, which classical scaling lays out.

    Parameters
    ----------
    idata
        A run of :func:`ppl_bif.sample`, or any InferenceData or DataTree with pointwise
        log-likelihoods.
    points
        Variable of ``log_likelihood``. A group of one variable needs none.
    others
        Another variable to compare the points with, for neighbours only: an embedding is of points
        among themselves.
    by, reduce
        What a point is of rows that hold tokens, as in :func:`ppl_bif.influence`.
    neighbours
        How many of each point are listed.
    dims
        Of the embedding.
    method
        ``"mds"``, classical multidimensional scaling of the distances sqrt(2 - 2 k), which is
        kernel PCA of k; or ``"umap"`` of the same distances, which needs ``umap-learn``.
    seed
        Of UMAP.

    Returns
    -------
    xarray.Dataset
        Dims (point, other): ``correlation``, ``mcse``, its Monte Carlo standard error,
        ``resolved``, whether it is more than two of them from 0, and ``undefined``, where a loss
        does not vary. Dims (point, rank): ``neighbour``, the ids of the most correlated points,
        without the point itself, ``neighbour_correlation``, ``neighbour_mcse`` and
        ``neighbour_resolved``, as :func:`ppl_bif.top` has them. Dims (point, axis): ``embedding``,
        NaN where undefined. Of classical scaling, by axis: ``variance``, the share of all squared
        distance that it shows, and ``variance_checked``, the share along an axis found in half of
        the chains that the other half shows on it, the mean of both ways. Where this is much the
        smaller one, the axis is noise.

    Raises
    ------
    ValueError
        If a setting is unknown, there are more than 2^24 pairs, or the run keeps no traces.
    ImportError
        If UMAP is asked for and not installed.
    BIFError
        As :func:`ppl_bif.influence`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> two = rng.normal(size=(4, 500, 2))  # what the losses of four points have in common
    >>> losses = two[..., [0, 0, 1, 1]] + 0.5 * rng.normal(size=(4, 500, 4))
    >>> loglik = xr.Dataset({"y": (("chain", "draw", "row"), -losses)}, {"row": list("abcd")})
    >>> found = loss_kernel(xr.DataTree.from_dict({"log_likelihood": loglik}), neighbours=1)
    >>> found["neighbour"].values.ravel().tolist()
    ['b', 'a', 'd', 'c']
    >>> found["correlation"].values[0, :2].round(1).tolist()
    [1.0, 0.8]
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}; got {method!r}")
    whole("dims", dims), whole("neighbours", neighbours)
    refuse_streamed(idata)
    others = points if others is None else others
    sides = traces(idata, others, points, None, Parts(by, reduce=reduce))
    _check_size(*(len(side.ids) for side in sides))
    scores = influence(idata, train=others, query=points, kind="correlation", by=by, reduce=reduce)
    alone = sides[0].array.name == sides[1].array.name
    found = xr.merge(
        [scores, _neighbours(scores, neighbours, alone)], combine_attrs="drop_conflicts"
    )
    if alone:
        series = sides[1].read(slice(0, len(sides[1].ids)))
        found = found.merge(_embedding(scores["influence"].values, series, dims, method, seed))
    return found.rename({str(old): _renamed(str(old)) for old in found.variables})


def _renamed(name: str) -> str:
    """Put points and others in place of queries and training rows."""
    if name == "influence":
        return "correlation"
    for side, new in (("query", "point"), ("train", "other")):
        if name == side or name.startswith(f"{side}_"):
            return new + name.removeprefix(side)
    return name


def _check_size(others: int, points: int) -> None:
    if points * others > BLOCK_PAIRS:
        raise ValueError(
            f"a loss kernel holds all pairs, and {points:,} points with {others:,} are more than "
            f"{BLOCK_PAIRS:,}: take some of them, such as idata.isel(train=slice(4000))"
        )


def _neighbours(scores: xr.Dataset, k: int, alone: bool) -> xr.Dataset:
    """List the most correlated ones of each point, but for itself."""
    apart = scores[["influence", "mcse"]]
    if alone:
        itself = np.eye(scores.sizes["query"], dtype=bool)
        apart = apart.assign(
            influence=apart["influence"].where(~itself, SELF), mcse=apart["mcse"].where(~itself, 0)
        )
    best = top(apart, min(k, scores.sizes["train"] - alone))
    best = best.sel(direction="raises", drop=True).drop_vars("settled")
    names = {"train": "neighbour", "influence": "neighbour_correlation"}
    names |= {name: f"neighbour_{name}" for name in ("mcse", "resolved")}
    names |= {n: f"neighbour_{n[6:]}" for n in map(str, best.variables) if n.startswith("train_")}
    return best.rename(names)


def _embedding(
    kernel: np.ndarray, series: np.ndarray, dims: int, method: str, seed: int
) -> xr.Dataset:
    """Lay out the points whose losses vary."""
    moves = np.diag(kernel) > 0
    count = int(moves.sum())
    if count <= dims:
        raise ValueError(
            f"dims must be less than the number of points whose losses vary, {count}; got {dims}"
        )
    inner = kernel[np.ix_(moves, moves)]
    places = np.full((len(kernel), dims), np.nan)
    shares = {}
    if method == "umap":
        places[moves] = _umap(inner, dims, seed)
    else:
        inner = _double_centred(inner)
        value, axes = _largest(inner, dims)
        places[moves] = axes * np.sqrt(np.maximum(value, 0))
        shares["variance"] = ("axis", value / np.trace(inner))
        shares["variance_checked"] = ("axis", _checked(series[..., moves], dims))
    return xr.Dataset({"embedding": (("query", "axis"), places), **shares})


def _double_centred(kernel: np.ndarray) -> np.ndarray:
    """Inner products about the mean of the points."""
    mean = kernel.mean(axis=0)
    return kernel - mean - mean[:, None] + mean.mean()


def _largest(kernel: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues, falling, and their vectors ``(point, axis)``."""
    last = len(kernel) - 1
    value, axes = eigh(kernel, subset_by_index=(last - dims + 1, last))
    value, axes = value[::-1], axes[:, ::-1]
    # Of two opposite vectors, the one whose largest entry is positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return value, axes * np.sign(largest)


def _checked(series: np.ndarray, dims: int) -> np.ndarray:
    """Share of squared distance along axes from the other half of the chains, ``(axis,)``."""
    chains, draws = series.shape[:2]
    if chains > 1:
        halves = series[: chains // 2], series[chains // 2 :]
    else:
        halves = series[:, : draws // 2], series[:, draws // 2 :]
    one, two = (_double_centred(block_correlation(half, half, blocks=2).value) for half in halves)
    return np.mean([_seen(one, two, dims), _seen(two, one, dims)], axis=0)


def _seen(by: np.ndarray, kernel: np.ndarray, dims: int) -> np.ndarray:
    """Share of a kernel along the largest axes of another."""
    axes = _largest(by, dims)[1]
    return np.einsum("pa,pq,qa->a", axes, kernel, axes) / np.trace(kernel)


def _umap(kernel: np.ndarray, dims: int, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(
            "UMAP needs umap-learn, which is not installed: pip install 'ppl_bif[umap]', or take "
            'method="mds"'
        ) from error
    distance = np.sqrt(np.maximum(2 - 2 * kernel, 0))
    np.fill_diagonal(distance, 0)
    settings = {"n_neighbors": min(15, len(kernel) - 1), "random_state": seed, "n_jobs": 1}
    with warnings.catch_warnings():
        # It says that distances given to it cannot be turned back into points.
        warnings.simplefilter("ignore", UserWarning)
        return UMAP(n_components=dims, metric="precomputed", **settings).fit_transform(distance)
