"""Influence by gradients at the draws: far less noise than by the losses of the draws alone."""

import math
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import ndtr

from ppl_bif.approximation import is_weighted
from ppl_bif.block_errors import mean_with_errors, which_spread
from ppl_bif.blocks import RESOLVED_ERRORS
from ppl_bif.checks import whole
from ppl_bif.data import Batch, as_batch, as_numpy, batches, map_arrays, num_rows
from ppl_bif.errors import BIFError
from ppl_bif.kernel import Model, Slopes
from ppl_bif.learning import losses_at_mode
from ppl_bif.low_rank import Spread, lanczos
from ppl_bif.memory import memory_to_use
from ppl_bif.schema import group, inverse_temperature, refuse_unmarked, root_attrs
from ppl_bif.scores import RESOLVED_FALSE_SIGN, influence, shrinks
from ppl_bif.shrinkage import shrink_in_scale
from ppl_bif.streaming import refuse_streamed
from ppl_bif.tiles import Estimate
from ppl_bif.traces import Traces, refuse_unsampled, traces
from ppl_bif.traces import spread as choose
from ppl_bif.variables import refuse_other_draws

__all__ = ["refine"]

# Blocks of draws, between which errors are told.
BLOCKS = 8
# Numbers that weights of draws hold at once: 4 GB in single precision.
HELD = 2**30
# Of the weights, of each query: the sum over blocks, a block's own, and that on a device or in JAX.
COPIES, BYTES = 3, 4
# Of so many rows, the part of errors that the queries' gradients have is looked at.
EXAMINED = 32
# Of so many rows log-likelihoods are computed again. In half of them they may differ by so much of
# their spread over draws, which rounding makes no smaller than so many nats.
CHECKED, MOST_OFF, ROUNDING = 256, 0.3, 1e-4
LEAST_DRAWS = 4
SIDES = ("train", "query")


def refine(
    run: Any,
    model: Model,
    *,
    train: Any,
    query: Any,
    gradient_draws: int = 256,
    curvatures: int = 256,
    curvature_rows: int = 8192,
    first_order: bool = False,
    shrink: str | None = "auto",
) -> xr.Dataset:
    r"""Estimate influence from the draws of a run and the gradients at them.

    The covariance of two log-likelihoods under the local posterior is split in two:

    $$\Cov(\log p_q, \log p_i) = \psi_q \cdot \E[\nabla \log p_i]
      + \Cov(\log p_q - \psi_q \cdot \nabla U, \log p_i)$$

    for any vector $\psi_q$, by Stein's identity, where $\exp(-U)$ is the posterior (control
    variates by gradients: Assaraf & Caffarel 1999; Mira et al. 2013). With
    $\psi_q = c_q\, S\, \E[\nabla \log p_q]$ and S the posterior's covariance, the first part is the
    influence function with gradients and curvature averaged over the posterior, and all of the
    covariance where losses are linear; it is a mean over rows' gradients, which a few dozen draws
    tell well. The second has less variance than the plain covariance, and is estimated as
    :func:`ppl_bif.influence` does. S is taken from the prior and from ``curvatures`` directions of
    the mean Hessian; what it lacks costs precision, and adds no bias.

    Parameters
    ----------
    run
        Of :func:`ppl_bif.sample` with ``save_weights=True``.
    model
        The localized model that was sampled, of either backend.
    train, query
        The rows that were sampled with, as :func:`ppl_bif.sample` takes them, in the same order.
    gradient_draws
        Draws, spread evenly over all, at which gradients of single rows are taken, and curvatures:
        as many as divide by 8, or all.
    curvatures
        Products with the mean Hessian, and directions that S knows, at most. Those that exceed the
        localization matter: half again as many as do are enough, and 20.
    curvature_rows
        Training rows that a product for both S sees, over all draws; others at each.
    first_order
        Leave the second part out: cheaper, and with far less noise, but not the covariance. It is
        what foretells retraining best.
    shrink
        How both parts are estimated, as in :func:`ppl_bif.influence`. The first is shrunk in units
        of the errors of its rows and queries, as large scores have large errors.

    Returns
    -------
    xarray.Dataset
        Dims (query, train): ``influence``, which estimates what :func:`ppl_bif.influence` does, in
        its sign and unit; ``mcse``, its Monte Carlo standard error, of the first part by 8 blocks
        of draws; ``false_sign``, the probability of the other sign; ``resolved``, whether
        abs(influence) > 2 mcse or, of the first part alone and shrunk, ``false_sign`` is below
        0.025. ``first_order``: the first part alone with c = 1, not shrunk, and
        ``first_order_mcse``, its Monte Carlo standard error, with what S adds to it: S is found
        twice, at every other draw, and each serves half of the draws. It has less noise, but is not
        the covariance, and by how much is not known of a single pair. Where there is a second part,
        by query ``share``, which is c: that which leaves least variance or, where the second part
        is shrunk, twice that, up to 1, which leaves no more than there was and makes the second
        part small; and ``variance_left``, the share of the variance of the query's log-likelihood
        that it leaves. They are 1 and 0 where losses are linear and S is right.

    Notes
    -----
    Stein's identity holds for draws of the posterior itself. Where steps are too large, or
    minibatches heat the chain, scores are not quite those of the run's own law.

    It takes gradients of all rows at every draw (unless ``first_order``), those of single rows at
    ``gradient_draws`` of them, of the queries twice, and ``curvatures`` products of
    ``curvature_rows`` rows with a Hessian, each as dear as two gradients. Memory is that of two
    copies of the weights for each query (three in JAX) and for each curvature, one for each of
    ``gradient_draws``, and 512; queries that take more than half of the memory are gone through
    one part after another, each with all gradients.

    Raises
    ------
    ValueError
        If the run holds no weights, or does not fit the model or the rows.
    BIFError
        As :func:`ppl_bif.influence`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import ppl_bif as bif
    >>> from ppl_bif.numpyro import localize
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    >>> model = localize(lambda p, x: x @ p["w"], {"w": jnp.zeros(2)}, likelihood="normal",
    ...                  localization=1.0)
    >>> rows = {"train": (x, y), "query": (x[:3], y[:3])}
    >>> run = bif.sample(model, **rows, draws=50, save_weights=True)
    >>> scores = bif.refine(run, model, **rows)
    >>> dict(scores["influence"].sizes)
    {'query': 3, 'train': 20}
    """
    whole("gradient_draws", gradient_draws, least=BLOCKS)
    whole("curvatures", curvatures, least=2)
    whole("curvature_rows", curvature_rows)
    if is_weighted(run):
        raise ValueError("draws of a guide are weighted, and are not refined: take ppl_bif.sample")
    refuse_unsampled(run)
    refuse_streamed(run)
    sides = dict(zip(SIDES, traces(run, "train_obs", "query_obs", None), strict=True))
    shrunk = shrinks(shrink, "covariance", len(sides["train"].ids))
    model = _as_sampled(model, run)
    draws = _Draws.of(run, sorted(model.mode), sides["query"])
    data = _same_rows(sides, {"train": train, "query": query})
    slopes = model.make_slopes(data)
    _check_scores(run, slopes, draws, model, sides)
    blocks = draws.blocks(gradient_draws)
    spreads = _spreads(slopes, draws, np.concatenate(blocks), model, (curvatures, curvature_rows))
    parts = []
    examined = map_arrays(itemgetter(choose(len(sides["train"].ids), EXAMINED)), data["train"])
    for some in batches(data["query"], _queries_at_once(model)):
        slopes = model.make_slopes({"train": data["train"], "query": some, "examined": examined})
        parts.append(_by_blocks(slopes, draws, blocks, spreads, uphill=not first_order))
    forward, crossed, uphill = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    beta = inverse_temperature(run)
    value, mcse, of_spread = (beta * layer for layer in mean_with_errors(forward, crossed))
    # The second part makes good what is wrong with a spread; alone, the first has its error.
    whole_mcse = np.hypot(mcse, of_spread)
    if first_order:
        found = _alone(run, Estimate(value, whole_mcse), shrunk)
    else:
        found = _together(run, sides["query"], Estimate(value, mcse), uphill, shrunk)
    dims = ("query", "train")
    found = found.assign(first_order=(dims, value), first_order_mcse=(dims, whole_mcse))
    return found.assign_attrs(
        gradient_draws=sum(map(len, blocks)),
        curvatures=max(len(spread.curvature) for spread in spreads),
        curvatures_above_localization=max(
            int((spread.curvature > model.precision).sum()) for spread in spreads
        ),
    )


class _Draws(NamedTuple):
    """Weights of the draws of some chains; a point is a chain and a draw."""

    posterior: xr.Dataset
    names: list[str]
    points: np.ndarray

    @classmethod
    def of(cls, run: Any, names: list[str], side: Traces) -> "_Draws":
        """Find the weights of a run by name, of the chains and draws of a side."""
        posterior = group(run, "posterior")
        missing = names if posterior is None else [name for name in names if name not in posterior]
        if posterior is None or missing:
            raise ValueError(
                f"the run holds no draws of {missing[:3]} ({len(missing)} in all): sample with "
                "save_weights=True"
            )
        refuse_other_draws(posterior[names[0]], side.array)
        draws = posterior.sizes["draw"]
        if len(side.chains) * draws < LEAST_DRAWS:
            raise ValueError(
                f"gradients are averaged over at least {LEAST_DRAWS} draws; got {draws} of each "
                f"of {len(side.chains)} chains"
            )
        points = np.stack(np.meshgrid(side.chains, np.arange(draws), indexing="ij"), axis=-1)
        return cls(posterior, names, points.reshape(-1, 2))

    def blocks(self, most: int | None = None) -> list[np.ndarray]:
        """Cut the points into blocks, chain after chain, and choose so many in all evenly."""
        parts = np.array_split(self.points, min(BLOCKS, len(self.points)))
        if most is None:
            return parts
        each = most // len(parts)
        return [part[_evenly(len(part), min(len(part), each))] for part in parts]

    def read(self, points: np.ndarray) -> np.ndarray:
        """Read weights, ``(point, d)``; points of a chain follow one another."""
        parts = []
        for chain in np.unique(points[:, 0]):
            some = self.posterior.isel(chain=chain, draw=points[points[:, 0] == chain, 1])
            flat = [some[name].transpose("draw", ...).values for name in self.names]
            parts.append(np.concatenate([w.reshape(len(w), -1) for w in flat], axis=1))
            refuse_unmarked(parts[-1], "posterior", [int(chain)])
        return np.concatenate(parts)


def _evenly(size: int, count: int) -> np.ndarray:
    """Choose so many of a range, each in the middle of its part."""
    return ((np.arange(count) + 0.5) * size / count).astype(int)


def _as_sampled(model: Model, run: Any) -> Model:
    """Return the model with the localization of a run; refuse one that the run is not of."""
    known = root_attrs(run).get("localization")
    if model.localization is None and known is not None:
        model = model.resolve(float(known))
    for name, own, of_run in (
        ("localization", model.precision, model.precision if known is None else known),
        ("inverse_temperature", model.inverse_temperature, inverse_temperature(run)),
    ):
        if not np.isclose(own, float(of_run)):
            raise ValueError(f"the run has {name} {of_run}, the model {own}: pass the one sampled")
    return model


def _same_rows(sides: Mapping[str, Traces], given: Mapping[str, Any]) -> dict[str, Batch]:
    """Check that there are as many rows as in the run."""
    data = {name: as_batch(rows, name) for name, rows in given.items()}
    for name, batch in data.items():
        if num_rows(batch) != len(sides[name].ids):
            raise ValueError(
                f"the run has {len(sides[name].ids)} {name} rows; got {num_rows(batch)}: pass the "
                "rows that were sampled with"
            )
    return data


def _check_scores(
    run: Any, slopes: Slopes, draws: _Draws, model: Model, sides: Mapping[str, Traces]
) -> None:
    """Refuse a model or rows that do not give the run's log-likelihoods.

    Those of its first draw and, where they are known, of w*. How far off is told in units of how
    each row varies over draws, which half precision does not come near.
    """
    mode = np.concatenate([as_numpy(model.mode[name]).ravel() for name in draws.names])
    at, constant = draws.read(draws.points[:1])[0], group(run, "constant_data")
    for name, side in sides.items():
        rows = choose(len(side.ids), CHECKED)
        seen = side.read(rows)
        known = {"at its first draw": (at, seen[0, 0])}
        if constant is not None and f"{name}_loss_at_mode" in constant:
            known["at the trained weights"] = mode, -losses_at_mode(run, side)[rows]
        for where, (weights, expected) in known.items():
            off = np.abs(slopes.log_likelihood(name, weights)[rows] - expected)
            spread = seen.std(axis=(0, 1)) + ROUNDING * np.abs(expected) + ROUNDING
            if np.median(off / spread) > MOST_OFF:
                raise ValueError(
                    f"this model and these {name} rows do not give the run's log-likelihoods "
                    f"{where}, which they miss by {off.max():.3g} nats: pass the model and the "
                    "rows that were sampled with, in their order"
                )


def _spreads(
    slopes: Slopes, draws: _Draws, points: np.ndarray, model: Model, most: tuple[int, int]
) -> tuple[Spread, Spread]:
    """Find the posterior's covariance twice, by curvatures of rows at every other point."""
    curvatures, rows = most
    total, rng = slopes.rows, np.random.default_rng(0)
    each = min(total, -(-rows // len(points)))

    def at(some: np.ndarray) -> Spread:
        # In turn: all rows are seen alike.
        turns = -(-each * len(some) // total)
        order = np.concatenate([rng.permutation(total) for _ in range(turns)])
        chosen = order[: each * len(some)].reshape(len(some), each)
        product = slopes.hessian(draws.read(some), chosen)
        found = lanczos(product, model.num_weights, curvatures, floor=model.precision)
        if not np.isfinite(found[0]).all():
            raise BIFError("the Hessian at the draws holds NaN or infinity: sample a smaller step")
        return Spread(np.maximum(found[0], 0), found[1], model.precision)

    return at(points[::2]), at(points[1::2])


def _queries_at_once(model: Model) -> int:
    """Return of how many queries directions fit in memory, on the host and on the device."""
    room = min(memory_to_use(free) or math.inf for free in (None, model.free_memory()))
    return max(1, int(min(room / (COPIES * BYTES * model.num_weights), sys.maxsize)))


def _by_blocks(
    slopes: Slopes,
    draws: _Draws,
    blocks: Sequence[np.ndarray],
    spreads: tuple[Spread, Spread],
    *,
    uphill: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take directions of the queries from all blocks of draws but the one they are followed in.

    Returns
    -------
    forward : numpy.ndarray, (block, query, train)
        Of each block, products of its rows' gradients and the other blocks' directions.
    crossed : numpy.ndarray, (block, query, block, row)
        Of every pair of blocks, of the first one's directions and the second one's gradients of
        examined rows.
    along : numpy.ndarray, (point, query)
        Products with the potential's gradients at all draws, if asked for; else at none.
    """
    weights = [draws.read(points) for points in blocks]
    examined = np.concatenate([slopes.gradients("examined", at) for at in weights])
    towards = _between(spreads, examined)
    total = slopes.gradients("query", weights[0])
    for at in weights[1:]:
        total += slopes.gradients("query", at)
    at_once = max(1, HELD // total.shape[1])

    def followed(points: np.ndarray, at: np.ndarray, which: int) -> tuple[np.ndarray, ...]:
        own = slopes.gradients("query", at)
        crossed = (own @ towards.T).reshape(len(own), len(blocks), -1)
        others = np.subtract(total, own, out=own)
        others /= len(blocks) - 1
        others = spreads[which].times(others)
        forward = slopes.along("train", at, others)
        parts = np.array_split(points, -(-len(points) // at_once)) if uphill else []
        along = [slopes.uphill(draws.read(part), others) for part in parts]
        return forward, crossed, np.concatenate([np.empty((0, len(own)), np.float32), *along])

    taken = which_spread(len(blocks))
    found = [followed(*block) for block in zip(draws.blocks(), weights, taken, strict=True)]
    forward, crossed, along = zip(*found, strict=True)
    products, chains = np.stack(forward), np.unique(draws.points[:, 0]).tolist()
    refuse_unmarked(products, "the rows' gradients", chains)
    return products, np.stack(crossed), np.concatenate(along)


def _between(spreads: tuple[Spread, Spread], vectors: np.ndarray) -> np.ndarray:
    """Multiply vectors by the mean of both spreads, in place."""
    by_first = spreads[0].times(vectors.copy())
    found = spreads[1].times(vectors)
    found += by_first
    found /= 2
    return found


def _alone(run: Any, first: Estimate, shrunk: bool) -> xr.Dataset:
    """Label the first part."""
    like = influence(run, shrink=None)
    kept = {k: v for k, v in like.attrs.items() if k not in ("blocks", "product_time")}
    attrs = kept | {"part": "first order", "shrink": "eb" if shrunk else "none"}
    found = shrink_in_scale(*first) if shrunk else (*first, None)
    return _labelled(*found, coords=like.coords, attrs=attrs)


def _together(
    run: Any, explained: Traces, first: Estimate, uphill: np.ndarray, shrunk: bool
) -> xr.Dataset:
    """Add both parts."""
    series = explained.read(slice(0, len(explained.ids))).astype(float)
    variate = uphill.reshape(series.shape).astype(float)
    share, left = _regressed(series, variate, most=shrunk)
    rest = _scores_of(run, explained, series - share * variate, shrunk)
    part = Estimate(*(share[:, None] * layer for layer in first))
    known, error = shrink_in_scale(*part)[:2] if shrunk else part
    value, mcse = known + rest["influence"].values, np.hypot(error, rest["mcse"].values)
    attrs = {**rest.attrs, "query_variable": str(explained.array.name)}
    found = _labelled(value, mcse, None, coords=rest.coords, attrs=attrs)
    return found.assign(share=("query", share), variance_left=("query", left))


def _labelled(
    value: np.ndarray,
    mcse: np.ndarray,
    false_sign: np.ndarray | None,
    *,
    coords: Any,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Label scores; false signs that are not known are those of normal errors."""
    if false_sign is None:
        resolved = np.abs(value) > RESOLVED_ERRORS * mcse
        with np.errstate(divide="ignore", invalid="ignore"):
            false_sign = np.where(value == 0, 1.0, ndtr(-np.abs(value) / mcse))
    else:
        resolved = false_sign < RESOLVED_FALSE_SIGN
    layers = {
        "influence": value,
        "mcse": mcse,
        "resolved": resolved,
        "false_sign": false_sign,
    }
    dims = ("query", "train")
    return xr.Dataset({name: (dims, layer) for name, layer in layers.items()}, coords, attrs)


def _regressed(
    series: np.ndarray, variate: np.ndarray, *, most: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Regress series on their variates: slopes, and the share of variance left, ``(query,)``.

    The slope that leaves least; or the most, up to 1, that leaves no more than there was, which is
    twice that.
    """
    y, x = (each - each.mean(axis=1, keepdims=True) for each in (series, variate))
    along, within, total = ((a * b).sum(axis=(0, 1)) for a, b in ((x, y), (x, x), (y, y)))
    share = np.divide(along, within, out=np.zeros_like(along), where=within > 0)
    if most:
        share = np.clip(2 * share, 0, 1)
    gone = share * (2 * along - share * within)
    return share, 1 - np.divide(gone, total, out=np.zeros_like(total), where=total > 0)


def _scores_of(run: Any, explained: Traces, series: np.ndarray, shrunk: bool) -> xr.Dataset:
    """Score other series ``(chain, draw, query)`` of the queries."""
    sizes = [explained.array.sizes[dim] for dim in ("chain", "draw")]
    of_all = np.zeros((*sizes, series.shape[2]))
    of_all[explained.chains] = series
    dims, ids = ("chain", "draw", "query"), {"query": explained.ids}
    made = xr.DataArray(of_all, ids, dims, name=explained.array.name)
    found = influence(run, observable=lambda _: made, shrink="eb" if shrunk else None)
    return found[["influence", "mcse"]].compute()
