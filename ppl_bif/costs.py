"""What a run will cost: seconds, disk and memory, told from a few draws of it over some rows.

A draw costs its steps and the scoring of every row; the first does not grow with the rows but for
full-batch gradients, the second is in proportion to them. So draws over two numbers of rows give
both.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import zarr

from ppl_bif.checks import whole
from ppl_bif.data import Batch, arrays, as_batch, map_arrays, num_rows
from ppl_bif.kernel import BURST_DRAWS, MEASURE_EVERY, Draws, Kernel
from ppl_bif.layout import SHARD_BYTES, Trace, bytes_on_disk, create
from ppl_bif.memory import memory_per_chain, peak_memory
from ppl_bif.recording import traces
from ppl_bif.sampling import block_of_draws, chain_groups

__all__ = ["Forecast", "forecast"]

# Rows of each kind in the smaller trial; the larger has so many times as many. Data that are not
# twice as many are tried as they are.
ROWS, LARGER = 1024, 3
# Each is timed this often at least, and draws for so long: what a machine does in a moment is more
# than what it keeps up.
REPEATS, SECONDS = 3, 2.0
# Of the draws that are written at once: as they came, laid side by side, cut into chunks, encoded.
BLOCKS_HELD = 4
# Of each chain, the last two states are kept.
CHECKPOINTS = 2


class Forecast(NamedTuple):
    """What a run will take.

    Attributes
    ----------
    seconds
        Wall time on this machine, as it was while this was measured.
    first_call
        Of them, tracing and compiling.
    warmup
        Of them, steps before the first draw.
    draw
        Seconds of a draw of all chains: steps, scoring, and writing where there is a store.
    disk
        Bytes of the store: traces, in whole blocks of draws, and checkpoints; 0 without one.
    memory
        Bytes of the host at their peak, those of the process now among them; those that a GPU
        takes are not.
    device
        Bytes on the GPU: weights, gradients, activations and data; 0 on a CPU.
    """

    seconds: float
    first_call: float
    warmup: float
    draw: float
    disk: int
    memory: int
    device: int

    def __str__(self) -> str:
        """Say it in words."""
        parts = [
            f"{_time(self.seconds)}, of which {_time(self.warmup)} warm-up",
            f"{self.draw:.3g} s a draw of all chains",
            f"{self.disk / 1e9:.3g} GB of disk",
            f"{self.memory / 1e9:.3g} GB of memory",
            *([f"{self.device / 1e9:.3g} GB on the GPU"] if self.device else []),
        ]
        return "; ".join(parts)


def forecast(
    kernel: Any,
    *,
    train: Any,
    query: Any,
    chains: int = 4,
    draws: int = 1000,
    warmup: int = 0,
    store: bool = True,
    trace_dtype: str = "float32",
    evaluation_batch_size: int | None = None,
    chain_method: str = "auto",
) -> Forecast:
    """Tell what a run of :func:`ppl_bif.sample` would cost, from a few draws of it.

    The draws are real ones, over the first rows of the data: all of them if they are few, two
    numbers of them otherwise. What warm-up would look for has to be known: a short run finds it.

    Parameters
    ----------
    kernel
        A kernel with ``step_size``, ``steps_per_draw`` and no preconditioner to be fitted, on a
        model whose localization is known.
    train, query, chains, draws, trace_dtype, evaluation_batch_size, chain_method
        As in :func:`ppl_bif.sample`.
    warmup
        Draws to be thrown away.
    store
        Whether there is to be one; otherwise traces count as memory.

    Raises
    ------
    ValueError, TypeError
        If something is left to be found in warm-up, or data do not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import ppl_bif as bif
    >>> from ppl_bif.numpyro import SGLD, localize
    >>> model = localize(
    ...     lambda p, x: x @ p["w"], {"w": jnp.zeros(2)}, likelihood="normal", localization=10.0
    ... )
    >>> kernel = SGLD(model, step_size=1e-3, batch_size=4, steps_per_draw=2)
    >>> data = (jnp.ones((8, 2)), jnp.ones(8))
    >>> found = bif.forecast(kernel, train=data, query=data, chains=4, draws=1000)
    >>> found.disk < 2e6
    True
    """
    whole("chains", chains)
    whole("draws", draws, least=2)
    whole("warmup", warmup, least=0)
    _refuse_open(kernel)
    data = {"train": as_batch(train, "train"), "query": as_batch(query, "query")}
    for name, batch in data.items():
        kernel.model.check(batch, name)
    groups = chain_groups(kernel, chains, chain_method, data["train"])
    trials = [
        _trial(kernel, part, groups[0], evaluation_batch_size) for part in _parts(kernel, data)
    ]
    rows = sum(map(num_rows, data.values()))
    draw, step = (len(groups) * _at(rows, trials, name) for name in ("draw", "walk"))
    first_call = max(trial.first_call for trial in trials)
    # Described as `sample` would; nothing is taken for it.
    scored = {
        name: np.broadcast_to(0.0, (num_rows(batch), *trials[0].tokens[name]))
        for name, batch in data.items()
    }
    described = traces(kernel.stats, chains, scored, {}, trace_dtype)
    block, together = block_of_draws(groups[0], scored), len(groups[0])
    taken = partial(_bytes, described, together)
    weights, held = sum(w.nbytes for w in kernel.model.mode.values()), peak_memory()
    if store:
        draw += len(groups) * _writing(described, together, min(block, draws))
    return Forecast(
        seconds=first_call + draws * draw + warmup * step,
        first_call=first_call,
        warmup=warmup * step,
        draw=draw,
        disk=taken(block, draws) + CHECKPOINTS * chains * weights if store else 0,
        memory=held + (BLOCKS_HELD * taken(block, block) if store else taken(draws, draws)),
        device=_on_device(kernel, data, together),
    )


class _Trial(NamedTuple):
    """Seconds of draws of a group of chains over some rows, and of their steps alone."""

    rows: int
    first_call: float
    draw: float
    walk: float
    tokens: dict[str, tuple[int, ...]]


def _refuse_open(kernel: Any) -> None:
    """Raise where warm-up would change what a draw costs."""
    if not hasattr(kernel, "bind"):
        raise TypeError(
            f"forecast expects a kernel such as SGLD(model, ...); got {type(kernel).__name__}: of "
            "a model alone, the kernel is chosen in warm-up"
        )
    missing = [name for name in ("step_size", "steps_per_draw") if getattr(kernel, name) is None]
    if kernel.model.localization is None:
        missing.append("localization")
    if missing:
        raise ValueError(
            f"forecast needs {', '.join(missing)}, which sample would find in warm-up: make a run "
            "of a few draws, and give the kernel and the model what its attributes say"
        )


def _parts(kernel: Kernel, data: Mapping[str, Batch]) -> list[dict[str, Batch]]:
    """Return the first rows of the data, twice; or all of them, if they are few."""
    total = num_rows(data["train"])
    step = kernel.rows_per_step(total)
    # Full gradients take as many as there are; of minibatches, there are two at least.
    few = 2 * ROWS if step == total else max(ROWS, 2 * step)
    if total < 2 * LARGER * few:
        return [dict(data)]
    return [
        {name: map_arrays(itemgetter(slice(rows)), batch) for name, batch in data.items()}
        for rows in (few, LARGER * few)
    ]


def _trial(kernel: Kernel, data: Mapping[str, Batch], chains: list[int], at_once: Any) -> _Trial:
    """Time draws of some chains, and the steps alone."""
    began, steps = time.perf_counter(), kernel.steps_per_draw
    assert steps is not None
    engine = kernel.bind(data, evaluation_batch_size=at_once)
    # As `sample` does, which scores all rows at w* first.
    for name in data:
        engine.at_mode(name)
    state, found = engine.start(chains, 0), Draws({}, {}, {})
    ready = time.perf_counter() - began

    def draws() -> None:
        nonlocal state, found
        # As many as lie between two measurements of the noise of minibatches.
        state, found = engine.draws(state, steps, MEASURE_EVERY, most=BURST_DRAWS, names=())

    def walk() -> None:
        nonlocal state
        state = engine.advance(state, steps)
        engine.stats(state)

    (first_draw, draw), (first_walk, walked) = _timed(draws, SECONDS), _timed(walk, 0.0)
    return _Trial(
        sum(map(num_rows, data.values())),
        ready + max(0.0, first_draw - draw) + max(0.0, first_walk - walked),
        draw / MEASURE_EVERY,
        walked,
        {name: values.shape[3:] for name, values in found.likelihood.items()},
    )


def _timed(do: Callable[[], None], at_least: float) -> tuple[float, float]:
    """Return the seconds of a first call, and the mean of those after it."""
    seconds: list[float] = []
    while len(seconds) <= REPEATS or sum(seconds[1:]) < at_least:
        began = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - began)
    return seconds[0], statistics.fmean(seconds[1:])


def _writing(described: Mapping[str, Trace], chains: int, block: int) -> float:
    """Seconds a draw that writing a block of them takes, where temporary files are."""
    with tempfile.TemporaryDirectory() as folder:
        root, began = zarr.open_group(folder, mode="w"), time.perf_counter()
        for name, trace in described.items():
            shape = (chains, block // trace.every, *trace.shape[2:])
            array = create(
                root,
                name,
                trace._replace(shape=shape),
                chains=chains,
                draws=block,
                file_bytes=SHARD_BYTES,
            )
            array[:] = np.zeros(shape, trace.dtype)
        return (time.perf_counter() - began) / block


def _at(rows: int, trials: list[_Trial], what: str) -> float:
    """Go on from the trials to so many rows, in a straight line."""
    first, last = getattr(trials[0], what), getattr(trials[-1], what)
    if len(trials) == 1:
        return last
    slope = (last - first) / (trials[1].rows - trials[0].rows)
    return last + max(0.0, slope) * (rows - trials[1].rows)


def _bytes(described: Mapping[str, Trace], chains: int, block: int, draws: int) -> int:
    """Bytes of so many draws, as they are written."""
    return sum(
        bytes_on_disk(trace, chains=chains, draws=block, total=draws)
        for trace in described.values()
    )


def _on_device(kernel: Kernel, data: Mapping[str, Batch], together: int) -> int:
    """Bytes on a GPU: w* and the chains that move together, with their data."""
    model = kernel.model
    if model.free_memory() is None:
        return 0
    weights = sum(w.nbytes for w in model.mode.values())
    rows = kernel.rows_per_step(num_rows(data["train"]))
    chain = memory_per_chain(weights, model.memory_per_row(data["train"]), rows)
    kept = sum(a.nbytes for batch in data.values() for a in arrays(batch).values())
    return weights + together * chain + kept


def _time(seconds: float) -> str:
    """Show seconds in the unit that fits."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
