"""Drive chains of an engine into arrays, group by group and block by block of draws."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ppl_bif.convergence import top_resolved
from ppl_bif.errors import DivergenceError
from ppl_bif.kernel import Engine
from ppl_bif.recording import Record
from ppl_bif.stopping import QUERIES, TRAIN_ROWS, Goal, measure, next_draws
from ppl_bif.tuning import Choice, Tuned, warm_up

__all__ = ["Plan", "Ran", "drive"]

# The resolved share is shown from so many draws on, and again when they have grown by half.
FIRST_LOOK, LOOK_AGAIN = 50, 1.5
# Draws made without a look at them: up to so many, if they take less than so long.
BURST_DRAWS, BURST_SECONDS = 32, 0.2
# Gives a chain that is begun again random numbers of its own.
SECOND_SEED = 1_000_003


class Plan(NamedTuple):
    """The course of a run.

    Attributes
    ----------
    groups
        Numbers of the chains that move together.
    draws
        Per chain, to be kept, or a goal to be reached instead.
    warmup
        Draws thrown away; None to be found.
    seed
        Of the run.
    block
        Draws written at once.
    passes
        Passes over the scored rows that one step costs.
    """

    groups: list[list[int]]
    draws: int | Goal
    warmup: int | None
    seed: int
    block: int
    passes: float


class Ran(NamedTuple):
    """A finished course: draws per chain, the settings found, and what happened on the way."""

    draws: int
    tuned: Tuned
    step_size: float
    choices: list[Choice]
    notes: list[str]


def drive(
    engine: Engine,
    plan: Plan,
    record: Record,
    arrays: Any,
    *,
    choices: Sequence[Choice] = (),
    show: bool,
) -> Ran:
    """Warm up all chains, fill the arrays, and begin chains that diverged once more.

    Parameters
    ----------
    engine
        A kernel bound to its data.
    plan, record
        What is to be done and recorded.
    arrays
        By ``group/variable``, with ``grow(draws)``.
    choices
        Made before.
    show
        Whether to show a progress bar and what was chosen.

    Raises
    ------
    DivergenceError
        If every chain diverged.

    Warns
    -----
    RuntimeWarning
        For each chain that diverged.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[seen]}"),
        disable=not show,
    )
    with bar:
        course = _Course(engine, plan, record, arrays, bar)
        course.tell(choices)
        goal = plan.draws
        draws = course.to_goal(goal) if isinstance(goal, Goal) else course.to(goal, keep=False)
        course.again(draws)
    assert course.tuned is not None
    step = float(str(engine.step_size(course.tuned.state).min()))  # .001, not .00100000005
    return Ran(draws, course.tuned, step, [*choices, *course.tuned.choices], course.notes)


class _Course:
    """A run under way: where its chains are."""

    def __init__(
        self, engine: Engine, plan: Plan, record: Record, arrays: Any, bar: Progress
    ) -> None:
        self.engine, self.plan, self.record, self.arrays = engine, plan, record, arrays
        self.tuned: Tuned | None = None
        self.states: dict[int, Any] = {}
        self.diverged = np.zeros(sum(map(len, plan.groups)), bool)
        self.notes: list[str] = []
        self.bar, self.task = bar, bar.add_task("warm-up", total=None, seen="")
        self.resolved, self.look_at, self.burst = "", FIRST_LOOK, 1

    def tell(self, choices: Sequence[Choice]) -> None:
        """Print what was chosen, above the bar."""
        for choice in choices:
            if not self.bar.disable:
                self.bar.console.print(f"{choice}", highlight=False, soft_wrap=True)

    def to_goal(self, goal: Goal) -> int:
        """Make draws until a goal is reached; return how many per chain."""
        began, drawn, found, pace = time.perf_counter(), 0, None, 0.0
        while (wanted := next_draws(goal, found, pace, time.perf_counter() - began)) > drawn:
            start = time.perf_counter()
            before, drawn = drawn, self.to(wanted, keep=True)
            # The first round holds warm-up and compiling: it would promise too little.
            pace = (time.perf_counter() - start) / (drawn - before) if before else 0.0
            found = measure(goal, *self.look(drawn))
            self.resolved = f"{goal.measure} {found.value:.2f} of {goal.target:g}"
        assert found is not None
        end = "reached" if found.value >= goal.target else "not reached"
        self.notes.append(
            f"draws = {drawn}: {goal.measure} is {found.value:.3f}, the target of {goal.target:g} "
            f"was {end}"
        )
        return drawn

    def to(self, draws: int, *, keep: bool) -> int:
        """Bring every group to so many draws; ``keep`` their states to go on from."""
        self.arrays.grow(draws)
        for group in self.plan.groups:
            first, state = self.states.pop(group[0], (0, None))
            state = self.warmed(group) if state is None else state
            self.bar.update(self.task, description="sampling", total=draws * len(self.plan.groups))
            state = self.draw(group, state, first, draws)
            if keep:
                self.states[group[0]] = (draws, state)
        return draws

    def warmed(self, group: list[int]) -> Any:
        """Return chains that have reached their posterior; the first ones find the settings."""
        if self.tuned is not None:
            return self.burnt_in(group, self.plan.seed)
        tuned = warm_up(
            self.engine,
            group,
            self.plan.seed,
            warmup=self.plan.warmup,
            passes=self.plan.passes,
            lost=lambda state: self.record.lost(self.engine, state),
        )
        self.tuned = tuned._replace(state=self.engine.without_weights(tuned.state))
        self.tell(tuned.choices)
        return tuned.state

    def burnt_in(self, group: list[int], seed: int, shrink: float = 1.0) -> Any:
        """Bring chains from w* to their posterior by the settings that were found."""
        assert self.tuned is not None
        state = self.engine.start(group, seed, like=self.tuned.state)
        state = self.engine.with_step_size(state, self.engine.step_size(state) * shrink)
        for _ in range(-(-self.tuned.burn_in // self.tuned.steps)):
            state = self.engine.advance(state, self.tuned.steps)
        return state

    def draw(self, group: list[int], state: Any, first: int, last: int) -> Any:
        """Make and record draws first ... last of a group."""
        chains = slice(group[0], group[-1] + 1)
        for start in range(first, last, self.plan.block):
            stop = min(start + self.plan.block, last)
            state, found = self.block(chains, state, stop - start)
            for name, values in found.items():
                self.arrays[name][chains, start:stop] = values
            if self.diverged[chains].all():
                self.arrays["sample_stats/diverging"][chains, stop:last] = True
                break
            self.show_resolved(stop)
        return state

    def block(self, chains: slice, state: Any, size: int) -> tuple[Any, dict[str, np.ndarray]]:
        """Make draws in bursts that are long enough to be quick and short enough to be shown."""
        assert self.tuned is not None
        most, made, bursts = min(self.plan.block, BURST_DRAWS), 0, []
        while made < size:
            began, count = time.perf_counter(), min(self.burst, size - made, most)
            state, draws = self.engine.draws(
                state, self.tuned.steps, count, most=most, names=self.record.saved
            )
            bursts.append(self.record.observe(draws, self.diverged[chains]))
            self.diverged[chains] = bursts[-1]["sample_stats/diverging"][:, -1]
            made += count
            self.bar.update(self.task, advance=count, seen=self.describe(bursts[-1]))
            if time.perf_counter() - began < BURST_SECONDS:
                self.burst = min(2 * self.burst, BURST_DRAWS)
        return state, {n: np.concatenate([b[n] for b in bursts], axis=1) for n in bursts[0]}

    def again(self, draws: int) -> None:
        """Begin each chain that diverged once more, alone, with half the step.

        Raises
        ------
        DivergenceError
            If no chain is left.
        """
        for chain in np.flatnonzero(self.diverged).tolist():
            when = int(np.argmax(self.arrays["sample_stats/diverging"][chain, :draws]))
            self.diverged[chain] = False
            state = self.burnt_in([chain], self.plan.seed + SECOND_SEED, 0.5)
            self.draw([chain], state, 0, draws)
            end = "diverged again and is left out" if self.diverged[chain] else "ran to its end"
            self.notes.append(
                f"chain {chain} diverged at draw {when}; begun again with half the step, it {end}"
            )
            warnings.warn(self.notes[-1], RuntimeWarning, stacklevel=4)
        if self.diverged.all():
            raise DivergenceError(
                "every chain left the neighbourhood of the trained weights, also with half the "
                "step: pass a smaller step_size, or a larger localization"
            )

    def look(self, draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a spread of rows of the chains that have not diverged."""
        used = np.flatnonzero(~self.diverged)
        train = _some(self.arrays["log_likelihood/train_obs"], used, draws, TRAIN_ROWS)
        return train, _some(self.arrays["log_likelihood/query_obs"], used, draws, QUERIES)

    def show_resolved(self, draws: int) -> None:
        """Measure now and then what share of the top is resolved, for the progress bar."""
        if self.bar.disable or len(self.plan.groups) > 1 or draws < self.look_at:
            return
        if not isinstance(self.plan.draws, Goal):
            self.resolved = f"top 10 resolved {top_resolved(*self.look(draws)):.0%}"
        self.look_at = int(LOOK_AGAIN * draws)

    def describe(self, draws: Mapping[str, np.ndarray]) -> str:
        """Say how the last draw looks, beside the bar."""
        if self.bar.disable:
            return ""
        loss, bad = draws["sample_stats/train_loss"][:, -1], int(self.diverged.sum())
        parts = [f"train loss {np.nanmean(loss) if np.isfinite(loss).any() else np.nan:.4g}"]
        return ", ".join([*parts, *([f"{bad} diverged"] if bad else []), self.resolved]).strip(", ")


def _some(array: Any, chains: np.ndarray, draws: int, most: int) -> np.ndarray:
    rows = np.unique(np.linspace(0, array.shape[2] - 1, min(array.shape[2], most)).astype(int))
    part = np.asarray(array[:, :draws])[chains][:, :, rows]
    return part if part.ndim == 3 else part.sum(axis=tuple(range(3, part.ndim)))
