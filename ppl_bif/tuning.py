"""Settings nobody has to tune: localization, kernel, step size, steps per draw, from a warm-up.

Knows engines by the protocol in :mod:`ppl_bif.kernel` alone. Every choice is kept with its reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppl_bif.blocks import product_time
from ppl_bif.errors import DivergenceError
from ppl_bif.kernel import CURVATURE_OVER_LOCALIZATION, Engine

__all__ = [
    "Choice",
    "Tuned",
    "burnt_in",
    "choose_kernel",
    "choose_localization",
    "packed_tuned",
    "unpacked_tuned",
    "warm_up",
]

# Nats of a target by which draws of the prior may raise its loss, and steps to get there.
MOST_RISE, RAISED_BY, MOST_RAISES = 1.0, 1.25, 100
FULL_BATCH_ROWS = 20_000
# Rows times weights up to which a full gradient is taken at each step, and the batches of the
# partition, of which each step draws one, where there are more.
FULL_BATCH_SIZE, DEAR_BATCHES = 2**32, 10
SHARED_BYTES = 2**30
PILOT_STEPS, MOST_PILOT_STEPS = 64, 1024
# Preconditioner and step size look at so many weights: single chains at several draws.
POSITIONS = 4
# A pilot of so many autocorrelation times tells the time to some 10%, with a few chains.
PILOT_TIMES = 25
# A draw is worth having when its products' autocorrelation time is below 1.25 draws.
KEPT_CORRELATION = 0.1
# Steps of a draw may cost this many passes over the rows that a draw scores.
STEP_PASSES = 10
HALVINGS = 4
ACCEPTANCE = 0.8


class Choice(NamedTuple):
    """A setting that was chosen, and why."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.name} = {value}: {self.reason}"


class Tuned(NamedTuple):
    """Chains after warm-up.

    Attributes
    ----------
    state
        Of the engine.
    steps
        Steps per draw.
    burn_in
        Steps that take a chain from w* to its posterior.
    taken
        Steps that warm-up took, pilots among them.
    choices
        What was chosen.
    """

    state: Any
    steps: int
    burn_in: int
    taken: int
    choices: list[Choice]


def packed_tuned(engine: Engine, tuned: Tuned) -> dict[str, Any]:
    """Return what warm-up found as arrays and numbers, but for its choices."""
    numbers = {"steps": tuned.steps, "burn_in": tuned.burn_in, "taken": tuned.taken}
    return {"state": engine.pack(tuned.state, shared=True), **numbers}


def unpacked_tuned(
    engine: Engine, found: Mapping[str, Any], like: Any, choices: Sequence[Choice] = ()
) -> Tuned:
    """Undo :func:`packed_tuned`; ``like`` is a state at its beginning.

    Raises
    ------
    ValueError, KeyError
        If the arrays are not those of such a state.
    """
    arrays = engine.pack(like, shared=False) | found["state"]
    state = engine.without_weights(engine.unpack(arrays, like))
    steps, burn_in, taken = (int(found[name]) for name in ("steps", "burn_in", "taken"))
    return Tuned(state, steps, burn_in, taken, list(choices))


def burnt_in(
    engine: Engine, tuned: Tuned, chains: Sequence[int], seed: int, shrink: float = 1.0
) -> Any:
    """Bring chains from w* to their posterior by settings that were found, or smaller steps."""
    state = engine.start(chains, seed, like=tuned.state)
    state = engine.with_step_size(state, engine.step_size(state) * shrink)
    for _ in range(-(-tuned.burn_in // tuned.steps)):
        state = engine.advance(state, tuned.steps)
    return state


def choose_localization(
    curvature: float, rise: Callable[[float], float] | None = None, *, rule: str = "auto"
) -> Choice:
    """Choose gamma from the top eigenvalue of beta H at w*, and from what the prior's draws do.

    Where weights outnumber rows, most directions are the prior's alone. One that weak may know no
    more than an untrained network: it is made stronger until its draws raise the loss by a nat at
    most.

    Parameters
    ----------
    curvature
        The top eigenvalue.
    rise
        Gives the mean rise of the loss of a target at draws of the prior of some gamma, in nats;
        None where rows outnumber weights.
    rule
        ``"auto"``, or ``"weak"`` for a third of that.

    Raises
    ------
    ValueError
        If the loss does not curve at w*, or no prior keeps it.
    """
    over = CURVATURE_OVER_LOCALIZATION[rule]
    share = f"1/{over:g}"
    if not (math.isfinite(curvature) and curvature > 0):
        raise ValueError(
            f"localization={rule!r} takes {share} of the top curvature of the loss at the trained "
            f"weights, which is {curvature:g}: pass localization=..."
        )
    found, factor = curvature / over, 1.0
    why = f"{share} of the top curvature {curvature:.4g} of the loss at w*"
    if rise is None:
        return Choice("localization", found, why)
    risen = [rise(found)]
    # Also where it is NaN.
    while not risen[-1] <= MOST_RISE and len(risen) < MOST_RAISES:
        factor *= RAISED_BY
        risen.append(rise(factor * found))
    if not risen[-1] <= MOST_RISE:
        raise ValueError(
            f"localization={rule!r} makes the prior stronger until its draws raise the loss by "
            f"{MOST_RISE:g} nats at most; they raise it by {risen[-1]:.3g} at {factor * found:.3g} "
            "still: check the likelihood near the trained weights, or pass localization=..."
        )
    if factor > 1:
        why += (
            f", times {factor:.3g}, as draws of that prior would raise the loss by "
            f"{risen[0]:.2g} nats, of which {MOST_RISE:g} is allowed"
        )
    return Choice("localization", factor * found, why)


def choose_kernel(weights: int, rows: int) -> tuple[str, dict[str, Any], list[Choice]]:
    """Choose a kernel for so many sampled weights and training rows.

    Returns
    -------
    name, settings
        Of a kernel class and its arguments.
    choices
        With the reasons.
    """
    rank = int(np.clip(SHARED_BYTES // (4 * 3 * weights), 0, 16))
    if rows <= FULL_BATCH_ROWS:
        preconditioner = "low_rank" if rank == 16 else None
        fits = "fit" if preconditioner else "do not fit"
        settings, how = _gradient_of_few(weights, rows)
        return (
            "UnderdampedLangevin",
            {"preconditioner": preconditioner, **settings},
            [
                Choice("kernel", "UnderdampedLangevin", how),
                Choice(
                    "preconditioner",
                    preconditioner or "none",
                    f"16 directions of {weights:,} weights {fits} in {SHARED_BYTES >> 30} GiB",
                ),
            ],
        )
    batch = 128
    stored = -(-rows // batch) * weights * 4
    gradient = "partition" if stored <= SHARED_BYTES else "minibatch"
    fits = "fit" if gradient == "partition" else "do not fit"
    return (
        "SGLD",
        {"gradient": gradient, "batch_size": batch},
        [
            Choice("kernel", "SGLD", f"{rows:,} rows are too many for full gradients"),
            Choice(
                "gradient",
                gradient,
                f"the {-(-rows // batch):,} gradients at w* of a partition {fits} in "
                f"{SHARED_BYTES >> 30} GiB ({stored / 2**30:.2g} GiB)",
            ),
        ],
    )


def _gradient_of_few(weights: int, rows: int) -> tuple[dict[str, Any], str]:
    """Choose full gradients, or those of a partition where they are dear, and say why."""
    stored = DEAR_BATCHES * weights * 4
    if rows * weights <= FULL_BATCH_SIZE or stored > SHARED_BYTES:
        return {}, (
            f"full gradients: a pass over {rows:,} rows is affordable (up to {FULL_BATCH_ROWS:,})"
        )
    batch = -(-rows // DEAR_BATCHES)
    return {"gradient": "partition", "batch_size": batch}, (
        f"gradients of a partition into {DEAR_BATCHES} batches, as {rows:,} rows of {weights:,} "
        f"weights are dear (more than {FULL_BATCH_SIZE:.2g} together)"
    )


class _WarmUp:
    """The course of one warm-up: an engine, its chains, and what was chosen so far."""

    def __init__(
        self, engine: Engine, chains: Sequence[int], seed: int, lost: Callable[[Any], np.ndarray]
    ) -> None:
        self.engine, self.chains, self.seed, self.lost = engine, chains, seed, lost
        self.kernel = engine.kernel
        self.choices: list[Choice] = []
        # Steps in all, and since the chains were last put at w*.
        self.taken = self.moved = 0
        self.shrink = 1.0
        self.state = engine.start(chains, seed)
        self.seen = [self.state]

    def set_step(self, where: str) -> None:
        """Take the step size from the curvature where the chains are, unless it was given."""
        if self.kernel.step_size is not None:
            step = self.shrink * self.kernel.step_size
            self.state = self.engine.with_step_size(self.state, np.full(len(self.chains), step))
            return
        top = self.curvature()
        step = self.shrink * float(self.kernel.stable_step(top))
        share = "" if self.shrink == 1 else f"{self.shrink:g} of "
        why = "" if self.shrink == 1 else ", as chains diverged in warm-up"
        self.put_step(step, f"{share}the default at curvature {top:.4g} {where}{why}")

    def pilot(self) -> list[Any]:
        """Return the last state, and those before it that make up four sets of weights."""
        enough = math.ceil(POSITIONS / len(self.chains))
        return self.seen[-enough:] if self.kernel.preconditioner is not None else self.seen[-1:]

    def curvature(self) -> float:
        """Return the top curvature of the pilot, in the preconditioner's coordinates."""
        # At w* all chains are alike, and nothing is preconditioned yet.
        if self.taken == 0:
            return self.engine.likelihood_curvature + float(self.kernel.model.precision)
        return float(np.max(self.engine.curvature(self.state, self.pilot())))

    def lower_step(self) -> None:
        """Hold a step that the user gave below what is stable without the preconditioner."""
        given = self.kernel.step_size
        if given is not None:
            top = self.curvature()
            step = min(given, float(self.kernel.stable_step(top)))
            self.state = self.engine.with_step_size(self.state, np.full(len(self.chains), step))

    def put_step(self, step: float, reason: str) -> None:
        self.state = self.engine.with_step_size(self.state, np.full(len(self.chains), step))
        self.choices = [c for c in self.choices if c.name != "step_size"]
        self.choices.append(Choice("step_size", step, reason))

    def move(self, steps: int, *, times: int = 1) -> list[np.ndarray]:
        """Move on, from w* with half the step where a chain is lost; score queries each time."""
        seen = []
        for _ in range(times):
            self.state = self.engine.advance(self.state, steps, keep=True)
            self.taken += steps
            self.moved += steps
            self.seen = [*self.pilot(), self.state]
            if times > 1:
                seen.append(self.engine.log_likelihood(self.state, "query"))
        if self.lost(self.state).any():
            self.restart()
            return self.move(steps, times=times)
        return seen

    def restart(self) -> None:
        lost = [self.chains[i] for i in np.flatnonzero(self.lost(self.state)).tolist()]
        most = HALVINGS if self.kernel.step_size is None else 1
        if self.shrink <= 0.5**most:
            raise DivergenceError(
                f"chains {lost} left the neighbourhood of the trained weights in warm-up, even "
                f"with {self.shrink:g} times the step: pass a smaller step_size, or a larger "
                "localization"
            )
        self.shrink /= 2
        self.moved = 0
        step = float(np.min(self.engine.stats(self.state)["step_size"])) / 2
        self.state = self.engine.start(self.chains, self.seed, like=self.state)
        self.seen = [self.state]
        self.put_step(step, f"halved, as chains {lost} diverged in warm-up and began again at w*")


def warm_up(
    engine: Engine,
    chains: Sequence[int],
    seed: int,
    *,
    warmup: int | None,
    passes: float,
    lost: Callable[[Any], np.ndarray],
) -> Tuned:
    """Bring chains from w* to their posterior, and find the settings that are free.

    Step size: the kernel's default at the top curvature at w*, then where the chains are after a
    pilot. Preconditioner: fitted there. Steps per draw: so many that products of losses have an
    autocorrelation time of 1.25 draws at most, within ten scoring passes. A pilot in which a chain
    diverges is begun again with half the step.

    Parameters
    ----------
    engine
        A kernel bound to its data.
    chains, seed
        Numbers of the chains, and the seed of the run.
    warmup
        Draws to throw away; None for as many as the pilot shows to be needed. A given number bounds
        the pilot too.
    passes
        Passes over the rows that a draw scores that one step costs.
    lost
        Which chains of a state have diverged, ``(chain,)``.

    Raises
    ------
    DivergenceError
        If chains diverge whatever the step.
    """
    run = _WarmUp(engine, chains, seed, lost)
    kernel = run.kernel
    run.set_step("at w*")
    if kernel.step_size is None or kernel.preconditioner is not None:
        run.lower_step()
        _relax(run)
        run.state = engine.adapt(run.state, run.pilot())
        # What was too large by the curvature at w* may not be by that at the draws.
        if kernel.step_size is None:
            run.shrink = 1.0
        run.set_step("at the draws")
        # A larger step takes the chains farther, where the curvature may be larger yet.
        run.move(PILOT_STEPS // POSITIONS, times=POSITIONS)
        run.set_step("at the draws")
    if "acceptance" in kernel.stats and kernel.step_size is None:
        _match_acceptance(run)
    steps, time = kernel.steps_per_draw, math.nan
    if steps is None:
        most = max(1, int(STEP_PASSES / passes))
        pilot = MOST_PILOT_STEPS
        if warmup is not None:
            pilot = int(np.clip(warmup * most, PILOT_STEPS, pilot))
        time = _measure_time(run, pilot)
        steps = _choose_steps(run, time, most)
    if warmup is None:
        burn_in = _burn_in(run, steps, time)
        left = max(0, burn_in - run.moved)
    else:
        left = burn_in = warmup * steps
    rounds = -(-left // steps)
    for _ in range(rounds):
        run.state = engine.advance(run.state, steps)
    return Tuned(run.state, steps, burn_in, run.taken + rounds * steps, run.choices)


def _relax(run: _WarmUp) -> None:
    """Move until the mean loss of the chains no longer trends, stopping early."""
    before = math.nan
    while run.taken < MOST_PILOT_STEPS:
        seen = np.array([-s.mean() for s in run.move(PILOT_STEPS // 8, times=8)])
        if abs(seen.mean() - before) < 2 * seen.std(ddof=1) / math.sqrt(len(seen)):
            return
        before = float(seen.mean())


def _match_acceptance(run: _WarmUp) -> None:
    """Find the step whose proposals are accepted with probability 0.8 (Robbins-Monro)."""
    for i in range(40):
        run.move(1)
        stats = run.engine.stats(run.state)
        factor = math.exp(2 / (i + 2) ** 0.6 * (float(np.mean(stats["acceptance"])) - ACCEPTANCE))
        run.state = run.engine.with_step_size(run.state, stats["step_size"] * factor)
    step = float(np.mean(run.engine.stats(run.state)["step_size"]))
    run.put_step(step, f"accepted with probability {ACCEPTANCE:g}")


def _measure_time(run: _WarmUp, most: int) -> float:
    """Integrated autocorrelation time, in steps, of products of query losses."""
    series = np.stack(run.move(1, times=PILOT_STEPS), axis=1)
    while True:
        flat = series.reshape(*series.shape[:2], -1)
        time = product_time(flat, flat)
        if series.shape[1] >= min(PILOT_TIMES * time, most):
            return time
        longer = min(series.shape[1], most - series.shape[1])
        series = np.concatenate([series, np.stack(run.move(1, times=longer), axis=1)], axis=1)


def _choose_steps(run: _WarmUp, time: float, most: int) -> int:
    correlation = (time - 1) / (time + 1)
    enough = math.ceil(math.log(KEPT_CORRELATION) / math.log(correlation)) if time > 1.1 else 1
    steps = min(enough, most)
    why = f"products of losses decorrelate in {time:.3g} steps"
    if enough > most:
        why += f", which asks for {enough}; {most} cost {STEP_PASSES} scoring passes"
    run.choices.append(Choice("steps_per_draw", steps, why))
    return steps


def _burn_in(run: _WarmUp, steps: int, time: float) -> int:
    needed = 20 * time if math.isfinite(time) else 100 * steps
    burn_in = int(min(max(needed, PILOT_STEPS), MOST_PILOT_STEPS * 4))
    run.choices.append(
        Choice(
            "warmup",
            run.taken + max(0, burn_in - run.moved),
            "steps taken before the first draw is kept",
        )
    )
    return burn_in
