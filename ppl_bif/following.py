"""How far a run on disk is, while another process writes it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ppl_bif.checkpoint import NOT_BEGUN, latest_course
from ppl_bif.places import place
from ppl_bif.reading import read_attrs

__all__ = ["Standing", "follow", "standing"]


class Standing(NamedTuple):
    """How far a run is.

    Attributes
    ----------
    draws
        Made by each chain that has begun, by its number.
    asked
        Draws per chain that are to be made, or ``"auto"``.
    chains
        How many there are to be.
    diverged
        Numbers of chains that diverged.
    seconds
        Spent on it so far.
    completed
        Whether it is finished.
    """

    draws: dict[int, int]
    asked: Any
    chains: int
    diverged: list[int]
    seconds: float
    completed: bool

    def __str__(self) -> str:
        done = sorted(set(self.draws.values()))
        made = " to ".join(f"{n:,}" for n in dict.fromkeys([*done[:1], *done[-1:]])) or "no"
        asked = f"{self.asked:,}" if isinstance(self.asked, int) else str(self.asked)
        parts = [f"{made} of {asked} draws", f"{len(self.draws)} of {self.chains} chains"]
        if self.diverged:
            parts.append(f"diverged: chain {', '.join(map(str, self.diverged))}")
        parts.append(f"{self.seconds:,.0f} s")
        return ", ".join([*parts, *(["finished"] if self.completed else [])])


def standing(path: str | Path) -> Standing:
    """Say how far the run of a store is.

    Raises
    ------
    StoreError
        If there is none.
    """
    where = place(path)
    attrs, course = read_attrs(where), latest_course(where) or NOT_BEGUN
    draws: dict[int, int] = {}
    diverged: list[int] = []
    for first, leg in course.begun().items():
        numbers = range(first, first + len(leg.diverged))
        draws |= dict.fromkeys(numbers, leg.draws)
        diverged += [n for n, lost in zip(numbers, leg.diverged, strict=True) if lost]
    completed = attrs.get("completed") is True
    seconds = attrs.get("sampling_time", course.seconds) if completed else course.seconds
    return Standing(
        draws, attrs.get("draws"), int(attrs.get("chains", 0)), diverged, seconds, completed
    )


def follow(path: str | Path, every: float) -> Iterator[Standing]:
    """Say how far a run is whenever that has changed, until it is finished."""
    last = None
    while last is None or not last.completed:
        if last is not None:
            time.sleep(every)
        if (now := standing(path)) != last:
            last = now
            yield now
