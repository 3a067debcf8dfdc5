"""What ``sample`` needs of a kernel, whatever its framework, and what kernels share."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ppl_bif.data import Batch

__all__ = [
    "STEP_OVER_CURVATURE",
    "Engine",
    "Kernel",
    "Model",
    "check_batch_size",
    "check_temperature",
]

# eps L for the stiffest direction: full-batch steps are stable below 4, and the variance of that
# direction is then inflated by 1 / (1 - eps L / 4), 14% at 0.5.
STEP_OVER_CURVATURE = 0.5


class Model(Protocol):
    """A localized model, as ``sample`` sees it."""

    localization: float
    inverse_temperature: float

    @property
    def mode(self) -> Mapping[str, Any]:
        """The sampled weights at their trained values."""
        ...

    @property
    def num_weights(self) -> int:
        """Number of sampled weights."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        ...

    def check(self, batch: Batch, name: str) -> None:
        """Raise where a batch does not fit the network."""
        ...


class Engine(Protocol):
    """A kernel with its data on the device; the state of some chains is its own affair.

    Every method moves whole arrays: all chains of the state, all rows of a group.
    """

    device: str
    dtype: str
    library: str

    def start(self, chains: Sequence[int], seed: int) -> Any:
        """Return the state of the chains of these numbers at the trained weights."""
        ...

    def advance(self, state: Any) -> Any:
        """Make one draw."""
        ...

    def stats(self, state: Any) -> dict[str, np.ndarray]:
        """Return minibatch_loss, distance, gradient_noise, step_size; each ``(chain,)``."""
        ...

    def log_likelihood(self, state: Any, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group, ``(chain, row[, token])``."""
        ...

    def weights(self, state: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return some of the sampled weights, each ``(chain, ...)``."""
        ...

    def suggest_step_size(self) -> float:
        """Return a step size that is stable by the curvature at the trained weights."""
        ...


class Kernel(Protocol):
    """A sampler of a localized model."""

    @property
    def model(self) -> Any:
        """The localized model."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        ...

    def bind(self, data: Mapping[str, Batch], *, evaluation_batch_size: int) -> Engine:
        """Place the data and make ready to be driven."""
        ...


def check_batch_size(batch_size: int, rows: int) -> None:
    """Raise ValueError if a minibatch is larger than the data."""
    if batch_size > rows:
        raise ValueError(
            f"batch_size must be at most the {rows} training rows; got {batch_size}: "
            f"pass batch_size={rows} for full-batch steps"
        )


def check_temperature(temperature: Any) -> float:
    """Return a temperature, or say that it must be finite and not negative."""
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number of at least 0; got {temperature!r}")
    return float(temperature)
