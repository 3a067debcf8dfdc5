"""Drive chains of an engine into arrays, group by group and block by block of draws."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ppl_bif.checkpoint import Checkpoints, most_draws
from ppl_bif.cluster import Workers
from ppl_bif.convergence import top_resolved
from ppl_bif.errors import DivergenceError
from ppl_bif.interrupts import Stop, heeding
from ppl_bif.kernel import BURST_DRAWS, Engine
from ppl_bif.logbook import GO_ON, At, Logbook
from ppl_bif.recording import Record
from ppl_bif.stopping import QUERIES, TRAIN_ROWS, Goal, measure, next_draws
from ppl_bif.tuning import Choice, Tuned, burnt_in, warm_up
from ppl_bif.worker import Block, Done

__all__ = ["Plan", "Ran", "drive", "some_rows"]

# The resolved share is shown from so many draws on, and again when they have grown by half.
FIRST_LOOK, LOOK_AGAIN = 50, 1.5
# Draws are made without a look at them as long as they take less than so long.
BURST_SECONDS = 0.2
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

    def end_of_block(self, draws: int, last: int) -> int:
        """Return where the block ends that begins, or goes on, after so many draws."""
        return min((draws // self.block + 1) * self.block, last)


class Ran(NamedTuple):
    """A finished course: draws, seconds, the settings found, and what happened on the way."""

    draws: int
    seconds: float
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
    checkpoints: Checkpoints | None = None,
    choices: Sequence[Choice] = (),
    workers: Workers | None = None,
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
    checkpoints
        Those of a store: what they say was done is gone on from.
    choices
        Made before.
    workers
        Those that make the draws of single chains, after warm-up; there must be a store then.
    show
        Whether to show a progress bar and what was chosen.

    Raises
    ------
    DivergenceError
        If every chain diverged.
    StoreError
        If a store cannot be written.
    KeyboardInterrupt
        After the draw at which Ctrl-C was pressed, if there is a store; a second one at once.

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
    with bar, _heeding(checkpoints) as stop:
        log = Logbook(engine, plan.seed, checkpoints)
        course = _Course(engine, plan, record, arrays, bar, log, stop, workers)
        course.tell(choices)
        goal = plan.draws
        draws = course.to_goal(goal) if isinstance(goal, Goal) else course.to(goal, keep=False)
        course.again(draws)
    assert course.tuned is not None
    step = float(str(engine.step_size(course.tuned.state).min()))  # .001, not .00100000005
    return Ran(
        draws,
        course.log.seconds,
        course.tuned,
        step,
        [*choices, *course.tuned.choices],
        course.notes,
    )


@contextmanager
def _heeding(checkpoints: Checkpoints | None) -> Iterator[Stop]:
    """Let Ctrl-C wait for a draw where there is a store, and say then how to go on."""
    stop = Stop()
    if checkpoints is None:
        yield stop
        return
    try:
        with heeding(stop):
            yield stop
    except KeyboardInterrupt:
        address, done = checkpoints.place.address, most_draws(checkpoints.course)
        raise KeyboardInterrupt(
            f"stopped with up to {done:,} draws of each chain in {address}{GO_ON}"
        ) from None


class _Course:
    """A run under way: where its chains are."""

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        record: Record,
        arrays: Any,
        bar: Progress,
        log: Logbook,
        stop: Stop,
        workers: Workers | None,
    ) -> None:
        self.engine, self.plan, self.record, self.arrays = engine, plan, record, arrays
        self.log, self.stop, self.workers = log, stop, workers
        self.begun_again = dict(log.before.again)
        self.diverged = np.zeros(sum(map(len, plan.groups)), bool)
        self.legs: dict[str, At] = {}
        self.notes: list[str] = []
        self.bar, self.task = bar, bar.add_task("warm-up", total=None, seen="")
        self.resolved, self.look_at, self.burst = "", FIRST_LOOK, 1
        self.tuned = log.tuned(plan.groups[0])

    def tell(self, choices: Sequence[Choice]) -> None:
        """Print what was chosen, above the bar."""
        for choice in choices:
            if not self.bar.disable:
                self.bar.console.print(f"{choice}", highlight=False, soft_wrap=True)

    def to_goal(self, goal: Goal) -> int:
        """Make draws until a goal is reached; return how many per chain."""
        drawn, found, pace = 0, None, 0.0
        wanted = self.log.drawn_before() or next_draws(goal, None, pace, self.log.seconds)
        while wanted > drawn:
            start = time.perf_counter()
            before, drawn = drawn, self.to(wanted, keep=True)
            # The first round holds warm-up and compiling: it would promise too little.
            pace = (time.perf_counter() - start) / (drawn - before) if before else 0.0
            found = measure(goal, *self.look(drawn))
            self.resolved = f"{goal.measure} {found.value:.2f} of {goal.target:g}"
            wanted = next_draws(goal, found, pace, self.log.seconds)
        assert found is not None
        end = "reached" if found.value >= goal.target else "not reached"
        self.notes.append(
            f"draws = {drawn}: {goal.measure} is {found.value:.3f}, the target of {goal.target:g} "
            f"was {end}"
        )
        return drawn

    def to(self, draws: int, *, keep: bool) -> int:
        """Bring every group to so many draws; ``keep`` their states to go on from."""
        self.log.note(draws=draws if keep else 0)
        with self.log.telling():
            self.arrays.grow(draws)
        if self.workers is not None:
            self.spread(self.workers, draws, keep=keep)
            return draws
        for group in self.plan.groups:
            self.bring(f"chains-{group[0]}", group, draws, self.warmed, keep=keep)
        return draws

    def spread(self, workers: Workers, draws: int, *, keep: bool) -> None:
        """Bring every chain to so many draws on the workers of a cluster; ``keep`` their states."""
        if self.tuned is None:
            first = self.plan.groups[0]
            self.log.put(f"chains-{first[0]}", At(0, self.warmed(first), np.zeros(1, bool)))
        assert self.tuned is not None
        assert self.log.address is not None
        workers.send(self.engine, self.log.address, self.tuned, self.arrays, self.plan.passes)
        self.bar.update(self.task, description="sampling", total=draws * len(self.plan.groups))
        begun = [self.packed_before(group, draws, keep=keep) for group in self.plan.groups]
        blocks = [self.block_from(*where, draws) for where in begun]

        def follow(done: Done) -> Block | None:
            name, at = done.block.name, self.recorded(done, draws)
            self.log.put_packed(name, at, done.state)
            if keep and at.draws == draws:
                self.legs[name] = at
            return self.block_from(name, done.block.chain, at, draws)

        workers.make([block for block in blocks if block], follow)

    def packed_before(self, group: list[int], draws: int, *, keep: bool) -> tuple[str, int, At]:
        """Return where a chain is, its state packed; None for a state that has not begun."""
        name = f"chains-{group[0]}"
        at = self.legs.pop(name, None)
        if at is None and (found := self.at_before(name, group, draws, keep=keep)) is not None:
            packed = None if found.state is None else self.engine.pack(found.state, shared=False)
            at = found._replace(state=packed)
        at = at or At(0, None, np.zeros(1, bool))
        self.diverged[group] = at.lost
        return name, group[0], at

    def at_before(self, name: str, group: list[int], draws: int, *, keep: bool) -> At | None:
        """Return where a group was when the run was left, None if it had not begun."""
        if self.tuned is None:
            return None
        at = self.log.at(name, group, draws, self.tuned, keep=keep)
        if at is not None:
            self.bar.update(self.task, advance=at.draws)
        return at

    def block_from(self, name: str, chain: int, at: At, draws: int) -> Block | None:
        """Return the next draws of a chain to be made by a worker, None at its end."""
        if at.draws == draws:
            return None
        stop = self.plan.end_of_block(at.draws, draws)
        return Block(name, chain, self.plan.seed, at.state, at.draws, stop)

    def recorded(self, done: Done, draws: int) -> At:
        """Judge a block that workers made, write its statistics, and say where its chain is."""
        block, chains = done.block, slice(done.block.chain, done.block.chain + 1)
        rows = self.arrays["log_likelihood/train_obs"].shape[2]
        found = self.record.judge(done.total, done.stats, rows, self.diverged[chains])
        lost = found["sample_stats/diverging"]
        self.diverged[chains] = lost[:, -1]
        at = At(block.stop, done.state, lost[:, -1])
        with self.log.telling():
            for variable, values in found.items():
                self.arrays.put(variable, chains, block.start, block.stop, values)
            if lost.any():
                first = block.start + int(np.argmax(lost))
                for name in ("log_likelihood/train_obs", "log_likelihood/query_obs"):
                    self.arrays.put(name, chains, first, block.stop, np.nan)
                at = at._replace(draws=self.lost_from(chains, block.stop, draws))
        self.bar.update(self.task, advance=block.stop - block.start, seen=self.describe(found))
        return at

    def lost_from(self, chains: slice, start: int, draws: int) -> int:
        """Mark chains as diverged to the end, and return where that is."""
        self.arrays.put("sample_stats/diverging", chains, start, draws, True)
        return draws

    def bring(
        self,
        name: str,
        group: list[int],
        draws: int,
        begin: Callable[[list[int]], Any],
        *,
        keep: bool = False,
    ) -> None:
        """Bring a group to so many draws, from where it is or from its beginning."""
        at = self.legs.pop(name, None) or self.at_before(name, group, draws, keep=keep)
        if at is None:
            at = At(0, begin(group), np.zeros(len(group), bool))
            self.log.put(name, at)
        self.diverged[group] = at.lost
        self.bar.update(self.task, description="sampling", total=draws * len(self.plan.groups))
        at = self.draw(name, group, at, draws)
        if keep:
            self.legs[name] = at

    def warmed(self, group: list[int]) -> Any:
        """Return chains that have reached their posterior; the first ones find the settings."""
        if self.tuned is not None:
            return burnt_in(self.engine, self.tuned, group, self.plan.seed)
        tuned = warm_up(
            self.engine,
            group,
            self.plan.seed,
            warmup=self.plan.warmup,
            passes=self.plan.passes,
            lost=lambda state: self.record.lost(self.engine, state),
        )
        self.tuned = tuned._replace(state=self.engine.without_weights(tuned.state))
        self.log.put_tuned(self.tuned)
        self.tell(tuned.choices)
        return tuned.state

    def draw(self, name: str, group: list[int], at: At, last: int) -> At:
        """Make and record draws of a group up to the last."""
        chains = slice(group[0], group[-1] + 1)
        self.stop.drawing = self.log.address is not None
        while at.draws < last:
            start, stop = at.draws, self.plan.end_of_block(at.draws, last)
            at, found = self.block(chains, at, stop)
            with self.log.telling():
                for variable, values in found.items():
                    self.arrays.put(variable, chains, start, at.draws, values)
                # Or it would be held beside the block that follows.
                del found
                if at.lost.all():
                    at = at._replace(draws=self.lost_from(chains, at.draws, last))
            if at.draws == last or self.stop.asked or self.log.wants_state():
                self.log.put(name, at)
            if self.stop.asked:
                raise KeyboardInterrupt
            self.show_resolved(at.draws)
        self.stop.drawing = False
        return at

    def block(self, chains: slice, at: At, stop: int) -> tuple[At, dict[str, np.ndarray]]:
        """Make draws in bursts that are long enough to be quick and short enough to be shown."""
        assert self.tuned is not None
        most = min(self.plan.block, BURST_DRAWS)
        start, room = at.draws, dict[str, np.ndarray]()
        while at.draws < stop and not (room and self.is_due()):
            if self.stop.asked and self.record.stream is not None:
                raise KeyboardInterrupt
            began, count = time.perf_counter(), min(self.burst, stop - at.draws, most)
            state, draws = self.engine.draws(
                at.state, self.tuned.steps, count, most=most, names=self.record.saved
            )
            seen = self.record.observe(draws, at.lost)
            self.record.lay(room, seen, at.draws - start, stop - start)
            lost = seen["sample_stats/diverging"][:, -1]
            at, self.diverged[chains] = At(at.draws + count, state, lost), lost
            self.bar.update(self.task, advance=count, seen=self.describe(seen))
            if time.perf_counter() - began < BURST_SECONDS:
                self.burst = min(2 * self.burst, BURST_DRAWS)
        return at, {name: values[:, : at.draws - start] for name, values in room.items()}

    def is_due(self) -> bool:
        """Say whether a block is to be cut short: by Ctrl-C, or because it takes long."""
        if self.record.stream is not None:
            return False
        return self.log.is_late() or (self.log.address is not None and self.stop.asked)

    def again(self, draws: int) -> None:
        """Begin each chain that diverged once more, alone, with half the step.

        Raises
        ------
        DivergenceError
            If no chain is left.
        """
        for chain in np.flatnonzero(self.diverged).tolist():
            if (when := self.begun_again.get(str(chain))) is None:
                marks = self.arrays["sample_stats/diverging"][chain, :draws]
                when = self.begun_again[str(chain)] = int(np.argmax(marks))
                self.log.note(again=dict(self.begun_again))
            self.bring(f"again-{chain}", [chain], draws, self.halved)
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

    def halved(self, group: list[int]) -> Any:
        """Return chains that have reached their posterior by half the step."""
        assert self.tuned is not None
        return burnt_in(self.engine, self.tuned, group, self.plan.seed + SECOND_SEED, 0.5)

    def look(self, draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a spread of rows of the chains that have not diverged."""
        used = np.flatnonzero(~self.diverged)
        train = some_rows(self.arrays["log_likelihood/train_obs"], used, draws, TRAIN_ROWS)
        return train, some_rows(self.arrays["log_likelihood/query_obs"], used, draws, QUERIES)

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


def some_rows(array: Any, chains: np.ndarray, draws: int, most: int) -> np.ndarray:
    """Read a spread of so many rows of some chains, ``(chain, draw, row)``, tokens summed."""
    rows = np.unique(np.linspace(0, array.shape[2] - 1, min(array.shape[2], most)).astype(int))
    # Of a run on disk, no others are held.
    indexed = getattr(array, "oindex", array)
    part = np.asarray(indexed[:, :draws, rows])[chains]
    return part if part.ndim == 3 else part.sum(axis=tuple(range(3, part.ndim)))
