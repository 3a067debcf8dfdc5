"""Checkpoints: where every chain of a run is, in safetensors and JSON, so that it can go on.

A file ``states/NAME-DRAWS.safetensors`` holds the state of some chains after so many draws. A file
``course-N.json`` says which of them hold, and is written last; the last two of it are kept, and two
states of each, so that damage to one leaves another.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ppl_bif.errors import StoreError
from ppl_bif.places import Place

__all__ = ["FOLDER", "NOT_BEGUN", "Checkpoints", "Course", "Leg", "latest_course", "most_draws"]

FOLDER, STATES = "checkpoint", "checkpoint/states"
COURSE = re.compile(r"course-(\d{1,12})\.json")
STATE = re.compile(r"[a-z0-9-]{1,40}\.safetensors")
KEPT = 2
MOST_COURSE_BYTES = 2**26


class Leg(NamedTuple):
    """How far some chains are: draws recorded, which of them diverged, the file of their state."""

    draws: int
    diverged: list[bool]
    file: str
    size: int
    digest: str


class Course(NamedTuple):
    """What is known of a run beside the states of its chains.

    Attributes
    ----------
    number
        How often it was written.
    draws
        Per chain, that are being made.
    seconds
        Spent so far.
    tuned
        What warm-up found, as ``driving`` writes it down; None before.
    again
        Chains that were begun again, and the draw at which they had diverged.
    legs
        Of chains that move together, newest first, by name.
    """

    number: int
    draws: int
    seconds: float
    tuned: dict[str, Any] | None
    again: dict[str, int]
    legs: dict[str, list[Leg]]

    def begun(self) -> dict[int, Leg]:
        """Return where chains that have draws are, by the number of the first of a leg."""
        newest = {name.removeprefix("chains-"): legs[0] for name, legs in self.legs.items() if legs}
        return {int(n): leg for n, leg in newest.items() if n.isdecimal() and leg.draws}


# Of a run that has not begun.
NOT_BEGUN = Course(0, 0, 0.0, None, {}, {})


class Checkpoints:
    """The checkpoints of one store, and the course they are at."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.course = latest_course(place) or NOT_BEGUN

    def note(self, **changes: Any) -> None:
        """Change the course; it is written with the next state."""
        self.course = self.course._replace(**changes)

    def put(self, name: str, draws: int, diverged: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the state of some chains, then the course that holds it."""
        content = save({key: np.array(value, order="C") for key, value in arrays.items()})
        leg = Leg(
            draws, [bool(d) for d in diverged], f"{name}-{draws}.safetensors", *_seal(content)
        )
        before = [other for other in self.course.legs.get(name, []) if other.file != leg.file]
        self.place.write(f"{STATES}/{leg.file}", content)
        legs = {**self.course.legs, name: [leg, *before][:KEPT]}
        self.write(legs=legs)

    def write(self, **changes: Any) -> None:
        """Write the course, and remove what none of the last ones holds."""
        self.note(number=self.course.number + 1, **changes)
        text = json.dumps(
            self.course._asdict(), sort_keys=True, default=lambda number: number.item()
        )
        sealed = json.dumps({"digest": _seal(text.encode())[1], "course": text})
        self.place.write(f"{FOLDER}/course-{self.course.number}.json", sealed.encode())
        self._prune()

    def _prune(self) -> None:
        held = {leg.file for legs in self.course.legs.values() for leg in legs}
        for name in self.place.names(STATES):
            if name not in held:
                self.place.remove(f"{STATES}/{name}")
        for name in self.place.names(FOLDER):
            if name.startswith("course-") and name not in self._last():
                self.place.remove(f"{FOLDER}/{name}")

    def _last(self) -> set[str]:
        return {f"course-{self.course.number - i}.json" for i in range(KEPT)}

    def get(self, name: str, most: int) -> tuple[Leg, dict[str, np.ndarray]] | None:
        """Read the newest undamaged state of some chains, None if they have not begun.

        Raises
        ------
        StoreError
            If all that were kept are damaged, or of more than ``most`` bytes.
        """
        legs = self.course.legs.get(name, [])
        for leg in legs:
            arrays = self._read(leg, most)
            if arrays is not None:
                return leg, arrays
        if legs:
            raise StoreError(
                f"every checkpoint of {name} in {self.place.address} is damaged: read the "
                "draws that are there with open_store, or remove the store and sample again"
            )
        return None

    def _read(self, leg: Leg, most: int) -> dict[str, np.ndarray] | None:
        file = f"{STATES}/{leg.file}"
        try:
            size = self.place.size(file)
            content = self.place.read(file) if size == leg.size <= most else b""
            return dict(load(content)) if _seal(content) == (leg.size, leg.digest) else None
        except (OSError, SafetensorError):
            return None


def latest_course(place: Place) -> Course | None:
    """Read the newest undamaged course; None if there is none."""
    numbers = [int(found[1]) for name in place.names(FOLDER) if (found := COURSE.fullmatch(name))]
    for number in sorted(numbers, reverse=True):
        try:
            name = f"{FOLDER}/course-{number}.json"
            if place.size(name) <= MOST_COURSE_BYTES:
                return _course(place.read(name))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return None


def most_draws(course: Course) -> int:
    """Return the draws of the chains that are farthest."""
    return max((legs[0].draws for legs in course.legs.values() if legs), default=0)


def _seal(content: bytes) -> tuple[int, str]:
    """Return the size and digest of a file's content."""
    return len(content), hashlib.sha256(content).hexdigest()


def _course(content: bytes) -> Course:
    """Read a course, or raise ValueError, TypeError or KeyError where it is not one."""
    sealed = json.loads(content)
    if _seal(sealed["course"].encode())[1] != sealed["digest"]:
        raise ValueError("damaged")
    course = Course(**json.loads(sealed["course"]))
    legs = {name: [_leg(*leg) for leg in legs] for name, legs in course.legs.items()}
    again = {str(int(chain)): _count(when) for chain, when in course.again.items()}
    for count in (course.number, course.draws):
        _count(count)
    if course.tuned is not None:
        for name in ("steps", "burn_in", "taken"):
            _count(course.tuned[name])
        if not all(len(choice) == 3 for choice in course.tuned["choices"]):
            raise ValueError("no choices")
    return course._replace(legs=legs, again=again, seconds=float(course.seconds))


def _leg(draws: Any, diverged: Any, file: Any, size: Any, digest: Any) -> Leg:
    if not STATE.fullmatch(file) or not all(isinstance(d, bool) for d in diverged):
        raise ValueError("not a state")
    return Leg(_count(draws), list(diverged), file, _count(size), str(digest))


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
