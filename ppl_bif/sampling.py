"""Sample the local posterior over training and query data: pointwise log-likelihoods in a run.

``sample`` knows a kernel by the protocol in :mod:`ppl_bif.kernel` alone, whatever its framework.
"""

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ppl_bif import __version__
from ppl_bif.checkpoint import Checkpoints, latest_course
from ppl_bif.checks import whole
from ppl_bif.cluster import FILE_BYTES, Workers, check_client
from ppl_bif.data import Batch, as_batch, as_ids, digest, num_rows
from ppl_bif.driving import Plan, Ran, drive, some_rows
from ppl_bif.health import health, reasons_to_refuse
from ppl_bif.kernel import ROWS_OF_A_GRADIENT, Engine, Kernel
from ppl_bif.layout import SHARD_BYTES, Arrays, Trace, in_memory
from ppl_bif.locking import only_writer
from ppl_bif.memory import chains_fit, memory_per_chain, memory_to_use
from ppl_bif.places import Place, place
from ppl_bif.recording import (
    Record,
    content,
    filled,
    fixed_groups,
    gather_constant,
    rounding,
    score_mode,
    traces,
)
from ppl_bif.schema import SCHEMA_VERSION, inference_data
from ppl_bif.sites import Sites, select_sites
from ppl_bif.stopping import Goal, as_goal
from ppl_bif.store import as_stored, create_store, find_finished, finish_store, resume_store
from ppl_bif.streaming import Stream, draws_per_block
from ppl_bif.traces import DIAGNOSED_ROWS, DIAGNOSED_STRETCHES, spread
from ppl_bif.tuning import Choice, choose_kernel, choose_localization

__all__ = ["block_of_draws", "chain_groups", "sample"]

BLOCK_BYTES, BLOCK_DRAWS = 2**27, 256
# Of so many rows it is said what rounding adds.
ROUNDED_ROWS = 256
# On a CPU, more weights than that leave its caches, and are no quicker together.
VECTORIZED_WEIGHTS = 2**23
# NUTS calls a rise of the energy by 1,000 a divergence; a Gaussian adds d/2 at stationarity.
ENERGY_RISE, ENERGY_RISE_PER_WEIGHT = 1000.0, 10.0


def sample(
    kernel: Any,
    *,
    train: Any,
    query: Any,
    chains: int = 4,
    draws: int | str = 1000,
    target: Any = None,
    max_time: float | None = None,
    warmup: int | None = None,
    seed: int = 0,
    train_ids: Any = None,
    query_ids: Any = None,
    store: str | Path | None = None,
    save_weights: bool | Sites = False,
    trace_dtype: str = "float32",
    constant_data: Mapping[str, Any] | None = None,
    evaluation_batch_size: int | None = None,
    chain_method: str = "auto",
    progress: bool | None = None,
    client: Any = None,
    stream: bool = False,
) -> Any:
    """Sample the local posterior and record every row's log-likelihood at each draw.

    Settings that are not given are found in warm-up, as in NUTS: localization, kernel, step size,
    preconditioner, steps per draw, draws to throw away. Each is printed beside the progress bar and
    kept in the attribute ``tuning`` with its reason. A chain that diverges is begun again once with
    half the step, and said so.

    Parameters
    ----------
    kernel
        A localized model, for which a kernel is chosen and tuned; or a kernel such as
        :class:`ppl_bif.numpyro.UnderdampedLangevin`, of which what is left open is tuned.
    train, query
        Rows to attribute to, and rows to explain: a tuple of arrays ``(x, y)``, a mapping of
        arrays, or an indexable dataset.
    chains
        Chains; all start at w*.
    draws
        Draws kept of each chain, or ``"auto"``: until a target is reached.
    target
        For ``draws="auto"``: the share of each query's top 10 scores to be resolved, such as 0.8;
        or a mapping, ``{"top_resolved": 0.8}`` or ``{"rank_agreement": 0.8}``, the Spearman
        correlation of a query's scores to expect with another such run (the default).
    max_time
        For ``draws="auto"``: seconds after which no further round of draws is begun; the first has
        20 draws. Runs that end by time are not repeatable to the draw.
    warmup
        Draws thrown away at first; by default 20 autocorrelation times. A number that is given
        bounds also the pilot by which steps per draw are told, of 1,024 steps at most.
    seed
        Of all randomness of the run.
    train_ids, query_ids
        Names of the rows, all different; numbers from 0 by default. They stay with the rows.
    store
        Folder for a Zarr store, or an address that fsspec knows. The run of the same weights, data
        and settings found there is returned, or gone on with where it was left, also to more
        draws than it had; any other is refused. Ctrl-C ends it at the next draw, ready to go on.
    save_weights
        ``True``, or names or globs of weights, to keep the draws themselves in ``posterior``.
    trace_dtype
        ``"float16"`` halves a run; the attribute ``trace_rounding`` then says which share of the
        variance of a row's trace rounding has added, at most.
    constant_data
        More variables to keep, as xarray takes them: ``{"train_image": (("train", "y", "x"), a)}``.
    evaluation_batch_size
        Rows scored at once; 1,024 unless given, and 256 images on a CPU.
    chain_method
        ``"vectorized"`` moves all chains at once, ``"sequential"`` one after another, ``"auto"``
        the first if the device says that it has room for all, and on a CPU only up to 8 million
        weights in all. With a client, each chain is moved alone.
    progress
        Whether to show a bar and the settings found; by default where the output is a terminal.
    client
        A ``dask.distributed.Client``, on whose workers chains are sampled after warm-up: each task
        makes a block of draws and scores some of the rows. They write to ``store``, which all of
        them must reach. What comes out does not depend on them.
    stream
        Whether to keep, in place of traces of the training rows, their sums of products with the
        queries over some 32 blocks of draws, ``train_sums``, from which :func:`ppl_bif.influence`
        has the same covariances and errors; and traces of 2,048 rows, to diagnose the run by. It
        pays where there are fewer queries than a block has draws. Scores are not shrunk then, and
        such a run does not go on to more draws.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups ``log_likelihood`` with ``train_obs`` (chain, draw, train[, train_token]) and
        ``query_obs``, in nats; ``sample_stats``; ``constant_data``; ``posterior`` if asked for.
        Attributes hold every setting; ``tuning`` those found, with reasons; ``refused`` why
        :func:`ppl_bif.influence` will not score the run, if it has not sampled its posterior.

    Raises
    ------
    ValueError, TypeError
        If data, ids or settings do not fit; nothing is written then.
    StoreError
        If the store holds another run or more draws, is being written to, or cannot be written.
    DivergenceError
        If chains diverge in warm-up whatever the step, or every chain does later.

    Warns
    -----
    RuntimeWarning
        If chains diverged, or the run has not sampled its posterior.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import ppl_bif as bif
    >>> from ppl_bif.numpyro import localize
    >>> model = localize(lambda p, x: x @ p["w"], {"w": jnp.zeros(2)}, likelihood="normal")
    >>> data = (jnp.ones((8, 2)), jnp.ones(8))
    >>> idata = bif.sample(model, train=data, query=data, draws=50)
    >>> dict(idata["log_likelihood"].sizes)
    {'chain': 4, 'train': 8, 'query': 8, 'draw': 50}
    >>> print(idata.attrs["tuning"][2])
    localization = 0.2286: 1/70 of the top curvature 16 of the loss at w*
    """
    numbers: dict[str, Any] = {
        "chains": whole("chains", chains),
        "draws": _draws(draws, target, max_time),
        "warmup": None if warmup is None else whole("warmup", warmup, least=0),
        "seed": whole("seed", seed, least=0),
        "trace_dtype": _trace_dtype(trace_dtype),
    }
    if stream:
        numbers["draws_per_block"] = _draws_per_block(numbers, client)
    if evaluation_batch_size is not None:
        whole("evaluation_batch_size", evaluation_batch_size)
    data = {"train": as_batch(train, "train"), "query": as_batch(query, "query")}
    ids = {
        "train": as_ids(train_ids, num_rows(data["train"]), "train"),
        "query": as_ids(query_ids, num_rows(data["query"]), "query"),
    }
    kernel, choices = _as_kernel(kernel, num_rows(data["train"]))
    if kernel.model.sequential_only:
        _refuse_for_parts(store, max_time)
    for name, batch in data.items():
        kernel.model.check(batch, name)
    groups = chain_groups(kernel, chains, chain_method, data["train"])
    if client is not None:
        check_client(client, store)
        groups = [[chain] for chain in range(chains)]
    engine, more = _bind(kernel, data, evaluation_batch_size, store)
    kernel = engine.kernel
    at_mode = score_mode(engine, ids)
    constant = gather_constant(data, ids, at_mode, constant_data)
    record = _record(kernel, at_mode, save_weights)
    if stream:
        record = record._replace(stream=_stream(at_mode))
    plan = _plan(kernel, numbers, groups, at_mode)
    kept_digest = digest(record.saved, content(constant, constant_data))
    attrs = {
        **_about(kernel, engine, numbers, len(groups)),
        **_digests(kernel, engine, numbers, groups, digest(data, ids), kept_digest),
    }
    saved = {name: kernel.model.mode[name] for name in record.saved}
    workers = None
    if client is not None:
        workers = Workers(client, kernel, data, evaluation_batch_size, record)
    run = _Run(
        partial(
            drive,
            engine,
            plan,
            record,
            choices=[*choices, *more],
            workers=workers,
            show=_show(progress),
        ),
        plan,
        traces(
            kernel.stats,
            chains,
            at_mode,
            saved,
            trace_dtype,
            kept=len(record.stream.kept) if stream else None,
            draws_per_block=numbers.get("draws_per_block", 1),
        ),
        fixed_groups(
            chains,
            ids | ({"train_kept": ids["train"][record.stream.kept]} if stream else {}),
            constant,
            posterior=bool(record.saved),
        ),
        attrs,
        SHARD_BYTES if workers is None else FILE_BYTES,
    )
    return run.into_memory() if store is None else run.into_store(place(store))


class _Run(NamedTuple):
    """A run that is described and not begun: how to drive it, and what it will be made of."""

    drive: Callable[..., Ran]
    plan: Plan
    traces: Mapping[str, Trace]
    fixed: Mapping[str, xr.Dataset]
    attrs: dict[str, Any]
    file_bytes: int

    def into_memory(self) -> Any:
        """Make the run."""
        arrays = in_memory(self.traces)
        ran = self.drive(arrays)
        return inference_data(
            filled(self.fixed, arrays, self.traces, ran.draws), self.ended(ran, arrays)
        )

    def into_store(self, where: Place) -> Any:
        """Make the run, go on with it, or return it if it is finished."""
        if (found := find_finished(where, self.attrs)) is not None:
            return found
        with only_writer(where):
            # Another process may have ended meanwhile.
            if (found := find_finished(where, self.attrs)) is not None:
                return found
            arrays = self.arrays(where)
            ran = self.drive(arrays, checkpoints=Checkpoints(where))
            return finish_store(where, self.ended(ran, arrays), ran.draws)

    def arrays(self, where: Place) -> Arrays:
        """Make a store, or take up the one that is there."""
        if latest_course(where) is not None:
            return resume_store(where, self.traces, self.attrs)
        return create_store(
            where,
            self.traces,
            self.fixed,
            self.attrs,
            chains_at_once=len(self.plan.groups[0]),
            draws_at_once=self.plan.block,
            file_bytes=self.file_bytes,
        )

    def ended(self, ran: Ran, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of the finished run."""
        attrs = self.attrs | _found(ran) | _rounded(arrays, ran.draws)
        stats = {name: t for name, t in self.traces.items() if name.startswith("sample_stats/")}
        return attrs | _refusal(filled(self.fixed, arrays, stats, ran.draws), attrs)


def _rounded(arrays: Mapping[str, Any], draws: int) -> dict[str, float]:
    """Say what rounding has added to traces of half precision."""
    found = {
        name: some_rows(array, np.arange(array.shape[0]), draws, ROUNDED_ROWS)
        for name, array in arrays.items()
        if name.startswith("log_likelihood/") and array.dtype == np.float16
    }
    return {"trace_rounding": max(map(rounding, found.values()))} if found else {}


def _draws_per_block(numbers: Mapping[str, Any], client: Any) -> int:
    if isinstance(numbers["draws"], Goal) or client is not None:
        raise ValueError(
            "stream=True sums over blocks of draws that are known from the start, in this process: "
            "pass draws=..., a number, and no client"
        )
    return draws_per_block(numbers["chains"], numbers["draws"])


def _stream(at_mode: Mapping[str, np.ndarray]) -> Stream:
    summed = {
        name: value.reshape(len(value), -1).sum(axis=1, dtype=float)
        for name, value in at_mode.items()
    }
    return Stream(summed, spread(len(summed["train"]), DIAGNOSED_ROWS, DIAGNOSED_STRETCHES))


def _trace_dtype(name: Any) -> str:
    if name not in ("float32", "float16"):
        raise ValueError(f"trace_dtype must be 'float32' or 'float16'; got {name!r}")
    return str(name)


def _refuse_for_parts(store: Any, max_time: Any) -> None:
    """Raise for what processes that each hold a part of a network would not do alike."""
    if store is not None or max_time is not None:
        raise ValueError(
            "of a network that lies in parts on several devices, every process makes the same run, "
            "in memory: leave store and max_time out, and write what one of them returns"
        )


def _draws(draws: Any, target: Any, max_time: Any) -> int | Goal:
    if isinstance(draws, str) and draws == "auto":
        return as_goal(target, max_time)
    if target is not None or max_time is not None:
        raise ValueError("target and max_time end a run of draws='auto'; pass draws='auto'")
    return whole("draws", draws, least=2)


def _as_kernel(kernel: Any, rows: int) -> tuple[Kernel, list[Choice]]:
    if hasattr(kernel, "bind"):
        return kernel, []
    if hasattr(kernel, "make_kernel"):
        name, settings, choices = choose_kernel(kernel.num_weights, rows)
        return kernel.make_kernel(name, **settings), choices
    raise TypeError(
        "sample expects what localize() made, or a kernel such as UnderdampedLangevin(model); got "
        f"{type(kernel).__name__}"
    )


def chain_groups(kernel: Kernel, chains: int, chain_method: str, train: Batch) -> list[list[int]]:
    """Return the numbers of the chains that move together."""
    if chain_method not in ("auto", "vectorized", "sequential"):
        raise ValueError(
            f"chain_method must be 'auto', 'vectorized' or 'sequential'; got {chain_method!r}"
        )
    in_turn = kernel.model.sequential_only
    if in_turn and chain_method == "vectorized":
        raise ValueError(
            "a network that lies in parts on several devices moves its chains one after another: "
            "leave chain_method out"
        )
    if chain_method == "auto":
        together = chains > 1 and not in_turn and _fit_together(kernel, chains, train)
        chain_method = "vectorized" if together else "sequential"
    if chain_method == "vectorized":
        return [list(range(chains))]
    return [[chain] for chain in range(chains)]


def block_of_draws(group: list[int], scored: Mapping[str, np.ndarray]) -> int:
    """Return how many draws of some chains are written at once."""
    bytes_per_draw = 4 * len(group) * sum(value.size for value in scored.values())
    return int(np.clip(BLOCK_BYTES // bytes_per_draw, 1, BLOCK_DRAWS))


def _fit_together(kernel: Kernel, chains: int, train: Batch) -> bool:
    """Say whether chains are quick together, and have room."""
    model, free = kernel.model, kernel.model.free_memory()
    if free is None and chains * model.num_weights > VECTORIZED_WEIGHTS:
        return False
    rows = min(kernel.rows_per_step(num_rows(train)), ROWS_OF_A_GRADIENT)
    weights = sum(w.nbytes for w in model.mode.values())
    each = memory_per_chain(weights, model.memory_per_row(train), rows)
    return chains_fit(chains, each, memory_to_use(free))


def _bind(
    kernel: Kernel,
    data: Mapping[str, Batch],
    evaluation_batch_size: int | None,
    store: str | Path | None,
) -> tuple[Engine, list[Choice]]:
    """Place the data; a localization that was left open is known from here on."""
    engine = kernel.bind(data, evaluation_batch_size=evaluation_batch_size)
    if kernel.model.localization is not None:
        return engine, []
    few = num_rows(data["train"]) < kernel.model.num_weights
    choice = choose_localization(
        engine.likelihood_curvature,
        engine.rise_at_prior if few else None,
        rule=kernel.model.localization_rule,
    )
    if store is not None:
        choice = choice._replace(value=as_stored(place(store), choice.name, choice.value))
    return engine.resolved(choice.value), [choice]


def _record(
    kernel: Kernel, at_mode: Mapping[str, np.ndarray], save_weights: bool | Sites
) -> Record:
    names = list(kernel.model.mode)
    saved = names if save_weights is True else []
    if not isinstance(save_weights, bool):
        saved = select_sites(names, save_weights)
    beta, gamma = kernel.model.inverse_temperature, kernel.model.localization
    assert gamma is not None
    allowed = ENERGY_RISE + ENERGY_RISE_PER_WEIGHT * kernel.model.num_weights
    return Record(saved, beta, gamma, beta * float(at_mode["train"].sum(dtype=float)) - allowed)


def _plan(
    kernel: Kernel,
    numbers: Mapping[str, Any],
    groups: list[list[int]],
    at_mode: Mapping[str, np.ndarray],
) -> Plan:
    rows = {name: len(value) for name, value in at_mode.items()}
    # A gradient costs three passes over its rows.
    passes = 3 * kernel.rows_per_step(rows["train"]) / sum(rows.values())
    return Plan(
        groups,
        numbers["draws"],
        numbers["warmup"],
        numbers["seed"],
        numbers.get("draws_per_block") or block_of_draws(groups[0], at_mode),
        passes,
    )


def _about(
    kernel: Kernel, engine: Engine, numbers: Mapping[str, Any], groups: int
) -> dict[str, Any]:
    """Say what is known of a run before it begins; what is not yet known is left out."""
    goal = numbers["draws"]
    about = {
        "inference_library": "ppl_bif",
        "inference_library_version": __version__,
        "schema_version": SCHEMA_VERSION,
        "backend": engine.library,
        "device": engine.device,
        "dtype": engine.dtype,
        "num_weights": kernel.model.num_weights,
        **kernel.model.settings,
        **kernel.settings,
        **numbers,
        "draws": "auto" if isinstance(goal, Goal) else goal,
        **(_goal(goal) if isinstance(goal, Goal) else {}),
        "chain_method": "vectorized" if groups == 1 else "sequential",
    }
    return {name: value for name, value in about.items() if value is not None}


def _goal(goal: Goal) -> dict[str, Any]:
    limit = {"max_time": goal.max_time} if math.isfinite(goal.max_time) else {}
    return {"target": f"{goal.measure} {goal.target:g}", **limit}


def _digests(
    kernel: Kernel,
    engine: Engine,
    numbers: Mapping[str, Any],
    groups: list[list[int]],
    data_digest: str,
    kept_digest: str,
) -> dict[str, str]:
    digests = {
        "weights_digest": kernel.model.fingerprint(),
        "data_digest": data_digest,
        "kept_digest": kept_digest,
    }
    # How far a run is to go does not tell it from another: it can be gone on with.
    others = {name: value for name, value in numbers.items() if name != "draws"}
    given = digest(digests, kernel.settings, others, groups, engine.library)
    return {**digests, "fingerprint": given}


def _found(ran: Ran) -> dict[str, Any]:
    """Say what warm-up found, and what happened."""
    return {
        "draws": ran.draws,
        "sampling_time": ran.seconds,
        "step_size": ran.step_size,
        "steps_per_draw": ran.tuned.steps,
        "burn_in": ran.tuned.burn_in,
        "warmup_steps": ran.tuned.taken,
        "tuning": [str(choice) for choice in ran.choices],
        "notes": ran.notes,
    }


def _refusal(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> dict[str, list[str]]:
    """Say why a run is not to be scored, if it has not sampled its posterior."""
    some = {name: groups[name] for name in ("sample_stats", "constant_data")}
    refused = reasons_to_refuse(health(inference_data(some, attrs)))
    if refused:
        warnings.warn(
            f"these draws will not be scored: {'; '.join(refused)}", RuntimeWarning, stacklevel=5
        )
    return {"refused": refused} if refused else {}


def _show(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress
