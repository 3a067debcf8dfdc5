"""How many of its weights a network uses: the local learning coefficient, from draws."""

import math
import warnings
from typing import Any

import numpy as np
import xarray as xr

from ppl_bif.blocks import RESOLVED_ERRORS, mean_error
from ppl_bif.schema import group, inverse_temperature, root_attrs
from ppl_bif.streaming import refuse_streamed
from ppl_bif.traces import Traces, refuse_unsampled, traces

__all__ = ["learning_coefficient", "losses_at_mode"]


def learning_coefficient(
    idata: Any, *, train: str = "train_obs", loss_at_mode: Any = None
) -> xr.Dataset:
    r"""Estimate the local learning coefficient of trained weights, with its error.

    lambda = beta (E[sum_i l_i(w)] - sum_i l_i(w\*)) under the local posterior: Lau et al. (2023),
    whose n beta is n times our beta, after Watanabe's WBIC (2013), whose temperature is
    ``inverse_temperature=1 / log(n)``. It is half the number of weights that the data hold near
    w\*, and has no unit. Where the loss is a quadratic with Hessian H and its minimum at w\*,

        lambda = 1/2 tr[ beta H (beta H + gamma)^-1 ],

    which is d/2 where all directions are stiff. **Localization biases it**: a direction of
    curvature beta h counts not as 1/2 but as beta h / (beta h + gamma) / 2, so what is flatter than
    gamma is held by the prior and hardly counts. Compare networks at one gamma and one beta only,
    or look how it changes with them.

    Parameters
    ----------
    idata
        A run of :func:`ppl_bif.sample`, or any InferenceData or DataTree with pointwise
        log-likelihoods of the training rows. Tokens are summed.
    train
        Variable of ``log_likelihood``. A group of one variable needs none.
    loss_at_mode
        Losses at w\*, ``(row,)``, where the run does not hold them: by default
        ``train_loss_at_mode`` of ``constant_data``, which :func:`ppl_bif.sample` writes.

    Returns
    -------
    xarray.Dataset
        ``learning_coefficient`` and ``mcse``, its Monte Carlo standard error; ``resolved``, whether
        it is more than two of them above 0. By chain ``chain_value`` and ``chain_mcse``: chains
        that differ by more have not seen the same posterior. By training row ``contribution`` and
        ``contribution_mcse``, which sum to the whole: a row with a negative one is fitted better
        away from w\*. Of runs that say how far they went from w\*, ``held``, which is
        gamma/2 E\|w - w\*\|^2, and ``held_mcse``: half the number of weights that the prior holds.
        In a Gaussian posterior around w\* the two add up to d/2, half the attribute
        ``num_weights``.

    Raises
    ------
    ValueError
        If the losses at w\* are not known or do not fit the rows, or the run keeps no traces.
    BIFError
        As :func:`ppl_bif.influence`.

    Warns
    -----
    UserWarning
        If the estimate is below 0 by more than two errors: w\* is no minimum of the training loss,
        and this is no learning coefficient. Where training ended early, or with weight decay, the
        estimate is too low by what could still be gained, also where it is positive.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> w = rng.normal(size=(4, 1000, 1)) / 10  # the mean of 100 rows, sd 1, no prior: lambda = 1/2
    >>> y = rng.normal(size=100)
    >>> y -= y.mean()
    >>> loglik = xr.Dataset({"y": (("chain", "draw", "row"), -((y - w) ** 2) / 2)})
    >>> run = xr.DataTree.from_dict({"log_likelihood": loglik})
    >>> found = learning_coefficient(run, loss_at_mode=y**2 / 2)
    >>> bool(abs(found["learning_coefficient"] - 0.5) < 3 * found["mcse"])
    True
    """
    refuse_unsampled(idata)
    rows, _ = traces(idata, train, train, None)
    refuse_streamed(idata)
    beta, at_mode = inverse_temperature(idata), losses_at_mode(idata, rows, loss_at_mode)
    total, value, error = _rises(rows, at_mode)
    attrs = root_attrs(idata)
    of = {
        "learning_coefficient": beta * total.mean(),
        "mcse": beta * mean_error(total[..., None])[0],
    }
    by_chain = [beta * mean_error(one[None, :, None])[0] for one in total]
    found = xr.Dataset(
        of
        | {"resolved": of["learning_coefficient"] > RESOLVED_ERRORS * of["mcse"]}
        | {
            "chain_value": ("chain", beta * total.mean(axis=1)),
            "chain_mcse": ("chain", np.array(by_chain)),
            "contribution": ("train", beta * value),
            "contribution_mcse": ("train", beta * error),
        }
        | _held(idata, rows.chains),
        coords={"chain": rows.chains, "train": rows.ids},
        attrs={name: attrs[name] for name in ("localization", "num_weights") if name in attrs}
        | {"inverse_temperature": beta, "chains_used": rows.chains},
    )
    _warn(found)
    return found


def losses_at_mode(idata: Any, rows: Traces, given: Any = None) -> np.ndarray:
    """Return losses at w*, ``(row,)``, tokens summed: those given, or those of the run."""
    if given is None:
        constant = group(idata, "constant_data")
        name = f"{str(rows.array.name).removesuffix('_obs')}_loss_at_mode"
        if constant is None or name not in constant:
            raise ValueError(
                f"the losses at the trained weights are needed, and there is no {name!r} in "
                "constant_data: pass loss_at_mode=..., one loss for each row"
            )
        given = constant[name].values
    losses = np.asarray(given, float)
    losses = losses.sum(axis=tuple(range(1, losses.ndim)))
    count = rows.array.sizes[rows.dim]
    if losses.shape != (count,) or not np.isfinite(losses).all():
        raise ValueError(
            f"loss_at_mode must hold a finite loss for each of {count} rows; got "
            f"{losses.size} of which {int((~np.isfinite(losses)).sum())} are not finite"
        )
    return losses


def _rises(rows: Traces, at_mode: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum, over rows, how far losses rise over those at w*; means and errors of each row.

    Returns
    -------
    total : numpy.ndarray
        ``(chain, draw)``.
    value, error : numpy.ndarray
        ``(row,)``.
    """
    total: Any = 0.0
    parts = []
    for piece in rows.pieces():
        rise = -rows.read(piece).astype(float) - at_mode[piece]
        total = total + rise.sum(axis=2)
        parts.append((rise.mean(axis=(0, 1)), mean_error(rise)))
    value, error = (np.concatenate(some) for some in zip(*parts, strict=True))
    return total, value, error


def _held(idata: Any, chains: list[int]) -> dict[str, float]:
    """Half the number of weights that the prior holds, and its error, where a run tells."""
    stats = group(idata, "sample_stats")
    gamma = root_attrs(idata).get("localization", math.nan)
    if stats is None or "distance" not in stats or math.isnan(gamma):
        return {}
    distance = stats["distance"].transpose("chain", "draw").values[chains].astype(float)
    energy = gamma / 2 * distance[..., None] ** 2
    return {"held": energy.mean(), "held_mcse": mean_error(energy)[0]}


def _warn(found: xr.Dataset) -> None:
    value, error = float(found["learning_coefficient"]), float(found["mcse"])
    if value < -RESOLVED_ERRORS * error:
        warnings.warn(
            f"the learning coefficient is negative, {value:.3g} ± {error:.2g}: the draws have a "
            "lower training loss than the trained weights, which are no minimum of it. Train "
            "further, or raise the localization",
            stacklevel=3,
        )
