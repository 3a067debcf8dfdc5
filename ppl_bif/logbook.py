"""What a run under way writes down of itself, and what it finds there when it is taken up again."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from ppl_bif.checkpoint import NOT_BEGUN, Checkpoints, Leg, most_draws
from ppl_bif.errors import StoreError
from ppl_bif.kernel import Engine
from ppl_bif.places import telling
from ppl_bif.tuning import Choice, Tuned, packed_tuned, unpacked_tuned

__all__ = ["GO_ON", "At", "Logbook"]

# A block of draws that takes longer is cut short by a checkpoint.
CHECKPOINT_SECONDS = 300.0
# Checkpoints of so many bytes or more may take 1 in so many seconds, and are written less often.
LARGE_STATE, CHECKPOINT_SHARE = 2**26, 20
TUNED, MOST_VECTORS, HEADER_BYTES = "tuned", 2**12, 2**20
GO_ON = "; repeat the call to sample() to go on from there"


class At(NamedTuple):
    """Where chains that move together are: draws recorded, their state, which have diverged."""

    draws: int
    state: Any
    lost: np.ndarray


class Logbook:
    """The checkpoints of a run, or none where it has no store.

    Parameters
    ----------
    engine
        Whose states are written.
    seed
        Of the run.
    checkpoints
        Those of a store: what they say was done is found there.
    """

    def __init__(self, engine: Engine, seed: int, checkpoints: Checkpoints | None) -> None:
        self._engine, self._seed, self._checkpoints = engine, seed, checkpoints
        self.before = NOT_BEGUN if checkpoints is None else checkpoints.course
        self._began = self._saved = time.perf_counter()
        self._pause = 0.0

    @property
    def seconds(self) -> float:
        """Return the time spent, also before the run was taken up again."""
        return self.before.seconds + time.perf_counter() - self._began

    @property
    def address(self) -> str | None:
        """Of the store, if there is one."""
        return None if self._checkpoints is None else self._checkpoints.place.address

    def telling(self) -> Any:
        """Say what to do where a store cannot be written."""
        return nullcontext() if self.address is None else telling(self.address, GO_ON)

    def wants_state(self) -> bool:
        """Say whether it is time for the next checkpoint, after a block."""
        return time.perf_counter() - self._saved >= self._pause

    def is_late(self) -> bool:
        """Say whether the next checkpoint is overdue, within a block."""
        late = time.perf_counter() - self._saved > max(CHECKPOINT_SECONDS, self._pause)
        return self._checkpoints is not None and late

    def drawn_before(self) -> int:
        """Return to how many draws a run that is taken up again was going, 0 for a new one."""
        return self.before.draws or most_draws(self.before)

    # Writing.

    def note(self, **changes: Any) -> None:
        """Change what the next checkpoint says of the course."""
        if self._checkpoints is not None:
            self._checkpoints.note(**changes)

    def put(self, name: str, at: At) -> None:
        """Write where some chains are."""
        if self._checkpoints is not None:
            self.put_packed(name, at, self._engine.pack(at.state, shared=False))

    def put_packed(self, name: str, at: At, arrays: Mapping[str, np.ndarray]) -> None:
        """Write where some chains are, whose state is packed."""
        assert self._checkpoints is not None
        self.note(seconds=self.seconds)
        began = time.perf_counter()
        with self.telling():
            self._checkpoints.put(name, at.draws, at.lost.tolist(), arrays)
        self._saved = time.perf_counter()
        large = sum(array.nbytes for array in arrays.values()) >= LARGE_STATE
        self._pause = CHECKPOINT_SHARE * (self._saved - began) if large else 0.0

    def put_tuned(self, tuned: Tuned) -> None:
        """Write what warm-up found."""
        if self._checkpoints is None:
            return
        found = packed_tuned(self._engine, tuned)
        state = found.pop("state")
        choices = [list(choice) for choice in tuned.choices]
        self.note(tuned={**found, "choices": choices}, seconds=self.seconds)
        with self.telling():
            self._checkpoints.put(TUNED, 0, [], state)

    # Reading.

    def tuned(self, first: list[int]) -> Tuned | None:
        """Return what warm-up found before; None if it has to be gone through."""
        found = self.before.tuned
        # The first chains are where it left them.
        if not found or f"chains-{first[0]}" not in self.before.legs:
            return None
        like, choices = self._engine.start(first, self._seed), map(Choice._make, found["choices"])
        # A root has as many vectors of the size of the weights as its rank.
        read = self._read(TUNED, MOST_VECTORS * self._bytes(like))
        assert read is not None
        with self._of_this_run(TUNED):
            return unpacked_tuned(self._engine, {**found, "state": read[1]}, like, list(choices))

    def at(
        self, name: str, chains: list[int], draws: int, tuned: Tuned, *, keep: bool
    ) -> At | None:
        """Return where chains were when the run was left, None if they had not begun.

        Of those that had made all ``draws`` the state is left out, unless it is to be kept.
        """
        if self._checkpoints is None:
            return None
        legs = self._checkpoints.course.legs.get(name, [])
        if legs and legs[0].draws == draws and not keep:
            return _at(legs[0], None)
        like = self._engine.start(chains, self._seed, like=tuned.state)
        read = self._read(name, self._bytes(like))
        if read is None:
            return None
        with self._of_this_run(name):
            return _at(read[0], self._engine.unpack(read[1], like))

    def _bytes(self, like: Any) -> int:
        return sum(array.nbytes for array in self._engine.pack(like, shared=False).values())

    def _read(self, name: str, most: int) -> tuple[Leg, dict[str, np.ndarray]] | None:
        """Read the last checkpoint of some chains, of so many bytes of arrays at most."""
        assert self._checkpoints is not None
        return self._checkpoints.get(name, most + HEADER_BYTES)

    @contextmanager
    def _of_this_run(self, name: str) -> Iterator[None]:
        """Refuse the checkpoint of another."""
        try:
            yield
        except (KeyError, ValueError) as error:
            raise StoreError(
                f"the checkpoint of {name} in {self.address} is not of this run ({error}): remove "
                "the store and sample again"
            ) from error


def _at(leg: Leg, state: Any) -> At:
    return At(leg.draws, state, np.array(leg.diverged, bool))
