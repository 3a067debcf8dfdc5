"""Drive a kernel over training and query data: chains of pointwise log-likelihoods in a run.

``sample`` knows a kernel by the protocol in :mod:`ppl_bif.kernel` alone, whatever its framework.
"""

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ppl_bif import __version__
from ppl_bif.checks import whole
from ppl_bif.data import Batch, as_batch, as_ids, digest, num_rows, target
from ppl_bif.errors import DivergenceError
from ppl_bif.kernel import Engine, Kernel
from ppl_bif.schema import SAMPLE_STATS, inference_data
from ppl_bif.sites import Sites, select_sites
from ppl_bif.store import Trace, create_store, find_finished, finish_store, in_memory

__all__ = ["sample"]

BLOCK_BYTES = 2**26
VECTORIZED_WEIGHTS = 2**23
# NUTS calls a rise of the energy by 1,000 a divergence; a Gaussian adds d/2 at stationarity.
ENERGY_RISE, ENERGY_RISE_PER_WEIGHT = 1000.0, 10.0


class _Plan(NamedTuple):
    """The numbers of a run, and what is known at the trained weights."""

    chains: int
    draws: int
    warmup: int
    seed: int
    groups: list[list[int]]
    saved: list[str]
    inverse_temperature: float
    localization: float
    lowest_lp: float
    block: int


def sample(
    kernel: Any,
    *,
    train: Any,
    query: Any,
    chains: int = 4,
    draws: int = 1000,
    warmup: int = 200,
    seed: int = 0,
    train_ids: Any = None,
    query_ids: Any = None,
    store: str | Path | None = None,
    save_weights: bool | Sites = False,
    constant_data: Mapping[str, Any] | None = None,
    evaluation_batch_size: int = 1024,
    chain_method: str = "auto",
    progress: bool | None = None,
) -> Any:
    """Sample the local posterior and record every row's log-likelihood at each draw.

    Parameters
    ----------
    kernel
        A kernel such as :class:`ppl_bif.numpyro.SGLD`, or a localized model, for which one is
        made with its default settings.
    train, query
        Rows to attribute to, and rows to explain: a tuple of arrays ``(x, y)``, a mapping of
        arrays, or an indexable dataset.
    chains, draws, warmup
        Chains, draws kept of each, and draws thrown away at first; all start at w*.
    seed
        Of all randomness of the run.
    train_ids, query_ids
        Names of the rows, all different; numbers from 0 by default. They stay with the rows.
    store
        Folder for a Zarr store. A finished run of the same weights, data and settings found
        there is returned; any other is refused.
    save_weights
        ``True``, or names or globs of weights, to keep the draws themselves in ``posterior``.
    constant_data
        More variables to keep, as xarray takes them: ``{"train_image": (("train", "y", "x"), a)}``.
    evaluation_batch_size
        Rows scored at once.
    chain_method
        ``"vectorized"`` moves all chains at once, ``"sequential"`` one after another, ``"auto"``
        the first unless the weights of all chains are many.
    progress
        Whether to show a bar; by default where the output is a terminal.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups ``log_likelihood`` with ``train`` (chain, draw, train[, token]) and ``query``,
        in nats; ``sample_stats``; ``constant_data``; ``posterior`` if asked for.

    Raises
    ------
    ValueError, TypeError
        If data, ids or settings do not fit; nothing is written then.
    StoreError
        If the store holds another run or cannot be written.
    DivergenceError
        If every chain diverged.

    Warns
    -----
    RuntimeWarning
        If some chains diverged; :func:`ppl_bif.influence` leaves them out.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import ppl_bif as bif
    >>> from ppl_bif.numpyro import SGLD, localize
    >>> model = localize(lambda p, x: x @ p["w"], {"w": jnp.zeros(2)}, likelihood="normal")
    >>> data = (jnp.ones((8, 2)), jnp.ones(8))
    >>> idata = bif.sample(SGLD(model, batch_size=4), train=data, query=data, draws=10, warmup=5)
    >>> dict(idata["log_likelihood"].sizes)
    {'chain': 4, 'draw': 10, 'train': 8, 'query': 8}
    """
    kernel = _as_kernel(kernel)
    numbers = {
        "chains": whole("chains", chains),
        "draws": whole("draws", draws, least=2),
        "warmup": whole("warmup", warmup, least=0),
        "seed": whole("seed", seed, least=0),
    }
    whole("evaluation_batch_size", evaluation_batch_size)
    data = {"train": as_batch(train, "train"), "query": as_batch(query, "query")}
    ids = {
        "train": as_ids(train_ids, num_rows(data["train"]), "train"),
        "query": as_ids(query_ids, num_rows(data["query"]), "query"),
    }
    for name, batch in data.items():
        kernel.model.check(batch, name)
    groups = _chain_groups(kernel, chains, chain_method)
    engine = kernel.bind(data, evaluation_batch_size=evaluation_batch_size)
    start = engine.start(groups[0], seed)
    at_mode = _at_mode(engine, start, ids)
    constant = _constant_data(data, ids, at_mode, constant_data)
    plan = _plan(kernel, numbers, groups, save_weights, at_mode)
    digests = {
        "weights_digest": kernel.model.fingerprint(),
        "data_digest": digest(data, ids),
        "kept_digest": digest(plan.saved, _content(constant, constant_data)),
    }
    attrs = {
        **_settings(kernel, engine, start, numbers),
        "chain_method": "vectorized" if len(groups) == 1 else "sequential",
        **digests,
        "fingerprint": digest(digests, kernel.settings, numbers, groups, engine.library),
    }
    traces = _traces(plan, at_mode, engine.weights(start, plan.saved))
    if store is not None and (found := find_finished(store, attrs)) is not None:
        return found
    coords = {name: ids[name] for name in ("train", "query")}
    fixed = _fixed_groups(plan, coords, constant)
    arrays = (
        in_memory(traces)
        if store is None
        else create_store(store, traces, fixed, attrs, draws_per_chunk=plan.block)
    )
    began = time.perf_counter()
    _run(engine, plan, arrays, _show(progress))
    _report_divergence(engine, arrays["sample_stats/diverging"][:])
    last = {"sampling_time": time.perf_counter() - began}
    if store is not None:
        return finish_store(store, last)
    return inference_data(_filled(fixed, traces, arrays), {**attrs, **last})


def _as_kernel(kernel: Any) -> Kernel:
    if hasattr(kernel, "bind"):
        return kernel
    if hasattr(kernel, "default_kernel"):
        return kernel.default_kernel()
    raise TypeError(
        "sample expects a kernel such as SGLD(model) or what localize() made; got "
        f"{type(kernel).__name__}"
    )


def _chain_groups(kernel: Kernel, chains: int, chain_method: str) -> list[list[int]]:
    if chain_method not in ("auto", "vectorized", "sequential"):
        raise ValueError(
            f"chain_method must be 'auto', 'vectorized' or 'sequential'; got {chain_method!r}"
        )
    if chain_method == "auto":
        few = chains * kernel.model.num_weights <= VECTORIZED_WEIGHTS
        chain_method = "vectorized" if few else "sequential"
    if chain_method == "vectorized":
        return [list(range(chains))]
    return [[chain] for chain in range(chains)]


def _at_mode(engine: Engine, start: Any, ids: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Score all rows at w*, where every chain starts, and insist on finite values."""
    values = {name: engine.log_likelihood(start, name)[0] for name in ids}
    for name, value in values.items():
        bad = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"log-likelihoods of {name} rows {ids[name][bad][:5].tolist()} are not finite at "
                "the trained weights: check these rows and the likelihood"
            )
    return values


def _constant_data(
    data: Mapping[str, Batch],
    ids: Mapping[str, np.ndarray],
    at_mode: Mapping[str, np.ndarray],
    more: Mapping[str, Any] | None,
) -> xr.Dataset:
    constant = xr.Dataset(coords=dict(ids))
    for name, value in at_mode.items():
        dims = (name, f"{name}_token")[: value.ndim]
        constant[f"{name}_loss_at_mode"] = (dims, -value)
        if (labels := np.asarray(target(data[name]))).ndim == 1:
            constant[f"{name}_target"] = (name, labels)
    for key, value in (more or {}).items():
        if "/" in key:
            raise ValueError(f"names in constant_data must not contain '/'; got {key!r}")
        if key in constant.coords:
            raise ValueError(f"constant_data must not hold {key!r}, which names the rows' ids")
        constant[key] = value
    return constant


def _content(dataset: xr.Dataset, names: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: [list(dataset[name].dims), dataset[name].values] for name in names or {}}


def _settings(
    kernel: Kernel, engine: Engine, start: Any, numbers: Mapping[str, int]
) -> dict[str, Any]:
    settings = {**kernel.model.settings, **kernel.settings, **numbers}
    if settings.get("step_size") is None:
        settings["step_size"] = float(engine.stats(start)["step_size"][0])
    return {
        "inference_library": "ppl_bif",
        "inference_library_version": __version__,
        "backend": engine.library,
        "device": engine.device,
        "dtype": engine.dtype,
        "num_weights": kernel.model.num_weights,
        **settings,
    }


def _plan(
    kernel: Kernel,
    numbers: Mapping[str, int],
    groups: list[list[int]],
    save_weights: bool | Sites,
    at_mode: Mapping[str, np.ndarray],
) -> _Plan:
    names = list(kernel.model.mode)
    saved = names if save_weights is True else []
    if not isinstance(save_weights, bool):
        saved = select_sites(names, save_weights)
    beta = kernel.model.inverse_temperature
    allowed = ENERGY_RISE + ENERGY_RISE_PER_WEIGHT * kernel.model.num_weights
    bytes_per_draw = 4 * numbers["chains"] * sum(value.size for value in at_mode.values())
    return _Plan(
        **numbers,
        groups=groups,
        saved=saved,
        inverse_temperature=beta,
        localization=kernel.model.localization,
        lowest_lp=beta * float(at_mode["train"].sum(dtype=float)) - allowed,
        block=int(np.clip(BLOCK_BYTES // bytes_per_draw, 1, min(numbers["draws"], 256))),
    )


def _traces(
    plan: _Plan, at_mode: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
) -> dict[str, Trace]:
    first = ("chain", "draw")
    size = (plan.chains, plan.draws)
    traces = {
        f"log_likelihood/{name}_obs": Trace(
            (*first, *(name, f"{name}_token")[: value.ndim]), (*size, *value.shape), "float32"
        )
        for name, value in at_mode.items()
    }
    for name in SAMPLE_STATS:
        dtype = "bool" if name == "diverging" else "float64"
        traces[f"sample_stats/{name}"] = Trace(first, size, dtype)
    for name, value in weights.items():
        dims = tuple(f"{name}_dim_{i}" for i in range(value.ndim - 1))
        traces[f"posterior/{name}"] = Trace(
            (*first, *dims), (*size, *value.shape[1:]), str(value.dtype)
        )
    return traces


def _fixed_groups(
    plan: _Plan, rows: Mapping[str, np.ndarray], constant: xr.Dataset
) -> dict[str, xr.Dataset]:
    coords = {"chain": np.arange(plan.chains), "draw": np.arange(plan.draws)}
    groups = {
        "log_likelihood": xr.Dataset(coords={**coords, **rows}),
        "sample_stats": xr.Dataset(coords=coords),
        "constant_data": constant,
    }
    if plan.saved:
        groups["posterior"] = xr.Dataset(coords=coords)
    return groups


def _filled(
    fixed: Mapping[str, xr.Dataset], traces: Mapping[str, Trace], arrays: Mapping[str, Any]
) -> dict[str, xr.Dataset]:
    groups = {name: dataset.copy() for name, dataset in fixed.items()}
    for path, trace in traces.items():
        group, name = path.split("/")
        groups[group][name] = (trace.dims, arrays[path])
    return groups


def _show(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress


def _run(engine: Engine, plan: _Plan, arrays: Mapping[str, Any], show: bool) -> None:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        disable=not show,
    )
    with bar:
        total = len(plan.groups) * (plan.warmup + plan.draws)
        task = bar.add_task("sampling", total=total, loss="")
        for group in plan.groups:
            _run_group(engine, plan, group, arrays, bar, task)


def _run_group(
    engine: Engine,
    plan: _Plan,
    group: Sequence[int],
    arrays: Mapping[str, Any],
    bar: Progress,
    task: Any,
) -> None:
    chains = slice(group[0], group[-1] + 1)
    state = engine.start(group, plan.seed)
    for _ in range(plan.warmup):
        state = engine.advance(state)
        bar.advance(task)
    diverged = np.zeros(len(group), dtype=bool)
    for first in range(0, plan.draws, plan.block):
        draws: list[dict[str, np.ndarray]] = []
        for _ in range(min(plan.block, plan.draws - first)):
            state = engine.advance(state)
            draws.append(_observe(engine, plan, state, diverged))
            diverged = draws[-1]["sample_stats/diverging"]
            bar.update(task, advance=1, loss=_describe(draws[-1]))
        rows = slice(first, first + len(draws))
        for name in draws[0]:
            arrays[name][chains, rows] = np.stack([draw[name] for draw in draws], axis=1)
        if diverged.all():
            arrays["sample_stats/diverging"][chains, first + len(draws) :] = True
            return


def _describe(draw: Mapping[str, np.ndarray]) -> str:
    loss = draw["sample_stats/train_loss"]
    bad = int(draw["sample_stats/diverging"].sum())
    return f"train loss {np.nanmean(loss) if bad < len(loss) else np.nan:.4g}" + (
        f", {bad} diverged" if bad else ""
    )


def _observe(
    engine: Engine, plan: _Plan, state: Any, diverged: np.ndarray
) -> dict[str, np.ndarray]:
    """Score a draw. A chain that diverged, now or before, is NaN from there on."""
    likelihood = {name: engine.log_likelihood(state, name) for name in ("train", "query")}
    stats = engine.stats(state)
    axes = {name: tuple(range(1, value.ndim)) for name, value in likelihood.items()}
    total = {name: v.sum(axes[name], dtype=float) for name, v in likelihood.items()}
    lp = plan.inverse_temperature * total["train"] - plan.localization / 2 * (
        stats["distance"].astype(float) ** 2
    )
    with np.errstate(invalid="ignore"):
        lost = diverged | ~np.isfinite(lp + total["query"]) | (lp < plan.lowest_lp)
    rows = likelihood["train"].shape[1]
    stats = {**stats, "lp": lp, "train_loss": -total["train"] / rows}
    draw = {f"sample_stats/{name}": stats[name] for name in SAMPLE_STATS if name in stats}
    draw["sample_stats/diverging"] = lost
    for name, value in likelihood.items():
        draw[f"log_likelihood/{name}_obs"] = np.where(_beside(lost, value), np.nan, value)
    for name, value in engine.weights(state, plan.saved).items():
        draw[f"posterior/{name}"] = value
    return draw


def _beside(mask: np.ndarray, value: np.ndarray) -> np.ndarray:
    return mask.reshape(-1, *(1,) * (value.ndim - 1))


def _report_divergence(engine: Engine, diverging: np.ndarray) -> None:
    """Name the chains that diverged; where none is left, say which step would be stable."""
    lost = np.flatnonzero(diverging.any(axis=1))
    if not lost.size:
        return
    when = ", ".join(f"chain {c} at draw {int(diverging[c].argmax())}" for c in lost)
    advice = f"try step_size={engine.suggest_step_size():.2g}, or a larger localization"
    if lost.size == len(diverging):
        raise DivergenceError(
            f"every chain left the neighbourhood of the trained weights ({when}): {advice}"
        )
    warnings.warn(
        f"diverged and left out of the scores: {when}; {advice}", RuntimeWarning, stacklevel=3
    )
