"""When a run of ``draws="auto"`` has enough draws: a target reached, or the time spent."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_bif.checks import positive
from ppl_bif.convergence import (
    draws_for_resolved,
    draws_for_stability,
    stability,
    top_resolved,
)

__all__ = ["MEASURES", "Goal", "Progress", "as_goal", "measure", "next_draws"]

MEASURES = ("top_resolved", "rank_agreement")
DEFAULT_MEASURE, DEFAULT_TARGET = "rank_agreement", 0.8
# Where time is short, a first round is to be over before it is spent.
FIRST_DRAWS, FIRST_OF_A_LIMIT, MOST_DRAWS = 100, 20, 100_000
TRAIN_ROWS, QUERIES = 512, 48


class Goal(NamedTuple):
    """What a run is to reach, or how long it may take (seconds); infinite for no limit."""

    measure: str
    target: float
    max_time: float


class Progress(NamedTuple):
    """How far a run is: draws per chain, the measure now, and the draws it is thought to need."""

    draws: int
    value: float
    needed: float


def as_goal(target: Any, max_time: Any) -> Goal:
    """Check a target and a limit of time.

    Raises
    ------
    ValueError
        If the measure is unknown, its target not between 0 and 1, or the time not positive.
    """
    if target is None:
        # Time alone is the limit if it is the only one given.
        target = {DEFAULT_MEASURE: 1.0 if max_time is not None else DEFAULT_TARGET}
    elif not isinstance(target, Mapping):
        target = {"top_resolved": target}
    if len(target) != 1 or not set(target) <= set(MEASURES):
        raise ValueError(
            "target must be a share of the top 10 to resolve, such as 0.8, or a mapping of one of "
            f"{MEASURES} to a value; got {target!r}"
        )
    ((name, value),) = target.items()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"target {name!r} must lie between 0 and 1; got {value!r}")
    limit = math.inf if max_time is None else positive("max_time", max_time)
    if value == 1 and limit == math.inf:
        raise ValueError(f"target {name!r} of 1 is never reached: pass max_time= too")
    return Goal(name, float(value), limit)


def measure(goal: Goal, train: np.ndarray, query: np.ndarray) -> Progress:
    """Measure traces ``(chain, draw, row)`` against a goal."""
    draws = train.shape[1]
    if goal.measure == "rank_agreement":
        found = stability(train, query)
        needed = draws_for_stability(draws, found, goal.target) if goal.target < 1 else math.inf
        return Progress(draws, found.expected, needed)
    return Progress(
        draws, top_resolved(train, query), draws_for_resolved(train, query, goal.target)
    )


def next_draws(goal: Goal, now: Progress | None, seconds_per_draw: float, spent: float) -> int:
    """Return how many draws per chain there should be at the next look; no more than now: stop.

    Parameters
    ----------
    goal
        What is to be reached.
    now
        What was measured last; None at the start.
    seconds_per_draw, spent
        Cost of a draw of all chains, and time since the start.

    Examples
    --------
    >>> goal = as_goal(0.8, max_time=60)
    >>> next_draws(goal, None, 0, 0)
    20
    >>> next_draws(goal, Progress(40, 0.5, 400.0), seconds_per_draw=1.0, spent=50)
    50
    """
    if now is None:
        return FIRST_OF_A_LIMIT if math.isfinite(goal.max_time) else FIRST_DRAWS
    if now.value >= goal.target:
        return now.draws
    wanted = int(np.clip(now.needed, 1.25 * now.draws, 2 * now.draws))
    if math.isfinite(goal.max_time):
        affordable = (goal.max_time - spent) / max(seconds_per_draw, 1e-9)
        wanted = min(wanted, now.draws + max(0, int(affordable)))
    return min(wanted, MOST_DRAWS)
