"""What ``sample`` needs of a kernel, whatever its framework, and what kernels share."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppl_bif.checks import positive, whole
from ppl_bif.data import Batch

__all__ = [
    "BURST_DRAWS",
    "CONVOLVED_AT_ONCE",
    "FRICTION_OVER_SLOWEST",
    "JITTER",
    "MANY_ROWS",
    "MEASURE_EVERY",
    "ONE_DEVICE",
    "PRIOR_DRAWS",
    "ROWS_AT_ONCE",
    "ROWS_OF_A_GRADIENT",
    "STEP_OVER_CURVATURE",
    "STEP_TIMES_FREQUENCY",
    "Draws",
    "Engine",
    "Kernel",
    "Model",
    "Slopes",
    "as_localization",
    "check_batch_size",
    "check_temperature",
    "choose_gradient",
    "fewer_rows",
    "gradients_at_once",
    "known_precision",
    "rows_looked_at",
    "spacing",
    "spare_draws",
]

# The top curvature of the tempered loss over gamma, by rule. What plain covariances of thousands of
# draws still tell is most near 70; what no noise hides, as in ppl_bif.refine, near 200.
CURVATURE_OVER_LOCALIZATION = {"auto": 70.0, "weak": 200.0}
# eps L for the stiffest direction: full-batch steps are stable below 4, and the variance of that
# direction is then inflated by 1 / (1 - eps L / 4), 14% at 0.5.
STEP_OVER_CURVATURE = 0.5
# h sqrt(L): stable below 2 where the curvature is L everywhere, which it is not.
STEP_TIMES_FREQUENCY = 1.2
# Share of h by which the step of a Metropolis-adjusted trajectory varies.
JITTER = 0.2
# Friction over sqrt(gamma): flat from 0.4 to 1.6 on digits.
FRICTION_OVER_SLOWEST = 0.8
# A minibatch of more than 1 row in so many is drawn by ranking them all.
MANY_ROWS = 4
# Draws between two at whose last step the noise of minibatches is measured.
MEASURE_EVERY = 8
# Draws made without a look at them, at most.
BURST_DRAWS = 32
# Of each site, so many coordinates of a gradient tell its noise.
COORDINATES = 8192
# Rows scored at once, where nothing else is said; images on a CPU, so that what lies between two
# layers stays in its cache.
ROWS_AT_ONCE, CONVOLVED_AT_ONCE = 1024, 256
# Of a full gradient, so many rows are held at once.
ROWS_OF_A_GRADIENT = 2048
# Of gradients of single rows, so many numbers: 256 MB in single precision. On a CPU they are taken
# 16 MB at a time: for more, pages are had from the system anew each time, which takes longer.
NUMBERS_AT_ONCE, NUMBERS_AT_ONCE_ON_CPU = 2**26, 2**22
# Of rows of tokens, as many as have so many logits: 128 MB in single precision.
LOGITS_AT_ONCE = 2**25
# Rows that tell curvatures, and how local the prior is, and the fewest where they have many logits.
MOST_LOOKED_AT, LEAST_LOOKED_AT = 1024, 4
# What derivatives of single rows are not taken of.
ONE_DEVICE = "scores of a network that lies on several devices are not refined: put it on one"
# Draws of the prior that tell how local it is.
PRIOR_DRAWS = 16


class Model(Protocol):
    """A localized model, as ``sample`` sees it."""

    localization: float | None
    localization_rule: str
    inverse_temperature: float
    # Whether chains can only be moved one after another, by several processes that hold parts.
    sequential_only: bool

    def make_kernel(self, name: str, **settings: Any) -> "Kernel":
        """Return a kernel of this backend by the name of its class."""
        ...

    def make_slopes(self, data: Mapping[str, Batch]) -> "Slopes":
        """Place data, and return the derivatives of their log-likelihoods."""
        ...

    def resolve(self, localization: float) -> "Model":
        """Return the same model with this localization."""
        ...

    @property
    def mode(self) -> Mapping[str, Any]:
        """The sampled weights at their trained values."""
        ...

    @property
    def num_weights(self) -> int:
        """Number of sampled weights."""
        ...

    @property
    def precision(self) -> float:
        """The localization gamma, once it is known."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What defines it, for the record."""
        ...

    def check(self, batch: Batch, name: str) -> None:
        """Raise where a batch does not fit the network."""
        ...

    def free_memory(self) -> int | None:
        """Return the bytes to be had on the GPU that holds the weights; None on other devices."""
        ...

    def memory_per_row(self, batch: Batch) -> int:
        """Return the bytes that a gradient keeps of each row."""
        ...


class Draws(NamedTuple):
    """What some draws of some chains gave, on the host.

    Attributes
    ----------
    likelihood
        Pointwise log-likelihoods of ``train`` and ``query``, ``(chain, draw, row[, token])``.
    stats
        The kernel's statistics and ``distance``, each ``(chain, draw)``.
    weights
        Those asked for, ``(chain, draw, ...)``.
    """

    likelihood: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


class Engine(Protocol):
    """A kernel with its data on the device; the state of some chains is its own affair.

    Every method moves whole arrays: all chains of the state, all rows of a group.
    """

    device: str
    dtype: str
    library: str
    kernel: Any
    # Rows scored at once.
    rows_at_once: int

    def over(self, parts: Mapping[str, slice]) -> "Engine":
        """Return the same engine, which scores some rows of some groups: whole batches.

        Not for kernels that know the training log-likelihoods from their gradients.
        """
        ...

    def resolved(self, localization: float) -> "Engine":
        """Return the same engine, whose model has this localization.

        What is known at w* without the prior is not computed again.
        """
        ...

    def start(self, chains: Sequence[int], seed: int, like: Any = None) -> Any:
        """Return the state of the chains of these numbers at the trained weights.

        Step size and preconditioner are those of the state ``like``, if given.
        """
        ...

    def advance(self, state: Any, steps: int, *, keep: bool = False) -> Any:
        """Make one draw, so many steps on.

        The weights of ``state`` may be used up, unless they are to be kept.
        """
        ...

    def draws(
        self, state: Any, steps: int, count: int, *, most: int, names: Sequence[str]
    ) -> tuple[Any, Draws]:
        """Make and score draws, so many steps apart; ``count`` of at most ``most``.

        The weights of ``state`` are used up, its step size and what chains share are not.
        """
        ...

    def adapt(self, state: Any, seen: Sequence[Any]) -> Any:
        """Fit the preconditioner, if there is one, to the weights of some states."""
        ...

    def curvature(self, state: Any, seen: Sequence[Any]) -> np.ndarray:
        """Return the top curvatures at the weights of some states, ``(weights,)``.

        In the coordinates of the preconditioner that ``state`` has.
        """
        ...

    @property
    def likelihood_curvature(self) -> float:
        """Return the top eigenvalue at w* of beta H, the tempered loss's Hessian, without prior."""
        ...

    def rise_at_prior(self, localization: float) -> float:
        """Return by how much draws of such a prior raise the loss of a target, in nats."""
        ...

    def at_mode(self, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group at w*, ``(row[, token])``."""
        ...

    def with_step_size(self, state: Any, step_size: np.ndarray) -> Any:
        """Return the state with steps of these sizes, ``(chain,)``."""
        ...

    def step_size(self, state: Any) -> np.ndarray:
        """Return the sizes of the steps, ``(chain,)``."""
        ...

    def stats(self, state: Any) -> dict[str, np.ndarray]:
        """Return the kernel's statistics and ``distance``, each ``(chain,)``."""
        ...

    def log_likelihood(self, state: Any, name: str) -> np.ndarray:
        """Return the pointwise log-likelihoods of a group, ``(chain, row[, token])``."""
        ...

    def without_weights(self, state: Any) -> Any:
        """Return what ``start`` takes of a state, so that its weights can be let go."""
        ...

    def pack(self, state: Any, *, shared: bool) -> dict[str, np.ndarray]:
        """Return a state as arrays by name: weights, momenta, random generators, counters.

        Of what chains share, only what was fitted, and only if asked for. Arrays may be views, to
        be written before the next draw.
        """
        ...

    def unpack(self, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
        """Return the state that was packed, to the bit.

        The state ``like``, of the same chains, gives its structure, and what chains share where
        that was not packed.

        Raises
        ------
        ValueError, KeyError
            If the arrays are not those of such a state.
        """
        ...


class Slopes(Protocol):
    """Derivatives of log-likelihoods of the groups of data, of rows with tokens summed.

    Weights are flat, of sites in the order of their names: ``(d,)``, or ``(point, d)``.
    """

    @property
    def rows(self) -> int:
        """Number of training rows."""
        ...

    def log_likelihood(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the log-likelihoods of a group's rows at some weights, ``(row,)``."""
        ...

    def gradients(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the rows' gradients, means over points, ``(row, d)``."""
        ...

    def along(self, name: str, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of these with directions, ``(direction, row)``, without holding all."""
        ...

    def uphill(self, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return products of the potential's gradients with directions, ``(point, direction)``."""
        ...

    def hessian(self, weights: np.ndarray, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the product with the mean Hessian over points of the tempered loss.

        That at a point is of its own training rows, ``(point, row)``, rescaled to all.
        """
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

    step_size: float | None
    steps_per_draw: int | None
    stats: Sequence[str]

    def on(self, model: Any) -> "Kernel":
        """Return the same kernel on another model."""
        ...

    def stable_step(self, curvature: Any) -> Any:
        """Return the default step size at a top curvature."""
        ...

    def rows_per_step(self, rows: int) -> int:
        """Return how many of so many training rows one step takes gradients of."""
        ...

    def bind(self, data: Mapping[str, Batch], *, evaluation_batch_size: int | None) -> Engine:
        """Place the data and make ready to be driven."""
        ...


def fewer_rows(usual: int, logits: int) -> int:
    """Halve the rows that are held at once until they have no more logits than may be.

    Parameters
    ----------
    usual
        Rows where outputs are few.
    logits
        Of one row; 0 where outputs are few.

    Examples
    --------
    >>> fewer_rows(1024, 0), fewer_rows(1024, 512 * 49_152)
    (1024, 1)
    """
    while usual > 1 and usual * logits > LOGITS_AT_ONCE:
        usual //= 2
    return usual


def gradients_at_once(
    weights: int, logits: int, *, on_cpu: bool, least: int = 1
) -> tuple[int, int]:
    """Return of how many rows gradients are held at once, and of how many of these they are taken.

    Parameters
    ----------
    weights
        Of each gradient, d.
    logits
        Of one row; 0 where outputs are few.
    on_cpu
        Whether they are taken on a CPU.
    least
        Of how many they are taken also where they are large, if so many are held.

    Examples
    --------
    >>> gradients_at_once(7_000, 0, on_cpu=False), gradients_at_once(1_600_000, 0, on_cpu=False)
    ((1024, 1024), (41, 41))
    >>> gradients_at_once(7_000, 0, on_cpu=True), gradients_at_once(1_600_000, 0, on_cpu=True)
    ((599, 599), (40, 2))
    >>> gradients_at_once(1_600_000, 0, on_cpu=True, least=8)
    (40, 8)
    """
    numbers = NUMBERS_AT_ONCE, NUMBERS_AT_ONCE_ON_CPU if on_cpu else NUMBERS_AT_ONCE
    held, taken = (max(1, min(ROWS_AT_ONCE, n // weights)) for n in numbers)
    taken = min(held, max(taken, least))
    held, taken = fewer_rows(held, logits), fewer_rows(taken, logits)
    return held - held % taken, taken


def rows_looked_at(rows: int, logits: int) -> int:
    """Return how many of so many training rows tell curvatures, and how local the prior is.

    Parameters
    ----------
    rows
        Of the training data.
    logits
        Of one row; 0 where outputs are few.

    Examples
    --------
    >>> rows_looked_at(60_000, 0), rows_looked_at(300, 0), rows_looked_at(60_000, 512 * 49_152)
    (1024, 300, 4)
    """
    return min(rows, max(LEAST_LOOKED_AT, fewer_rows(MOST_LOOKED_AT, logits)))


def check_batch_size(batch_size: int, rows: int) -> None:
    """Raise ValueError if a minibatch is larger than the data."""
    if batch_size > rows:
        raise ValueError(
            f"batch_size must be at most the {rows} training rows; got {batch_size}: "
            f"pass batch_size={rows} for full-batch steps"
        )


def spare_draws(size: int) -> int:
    """Return how many draws with replacement hold so many different rows.

    Out of at least ``MANY_ROWS * size`` rows they fail to in one of 10^14 cases.
    """
    return 2 * size + 16


def spacing(size: int) -> int:
    """Return the distance of evenly spaced coordinates, so many of which tell a gradient's noise.

    It has no factor in common with the size, so that they fall into all rows and columns of a
    matrix.
    """
    step = max(1, -(-size // COORDINATES))
    while step > 1 and math.gcd(step, size) > 1:
        step += 1
    return step


def check_temperature(temperature: Any) -> float:
    """Return a temperature, or say that it must be finite and not negative."""
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number of at least 0; got {temperature!r}")
    return float(temperature)


def choose_gradient(value: Any, named: Mapping[str, Any], batch_size: int | None) -> Any:
    """Return a gradient estimator: a record as it is, or the one of a name.

    Raises
    ------
    ValueError
        If the name is unknown, or needs a batch size and has none.
    """
    if callable(value):
        return value
    if not isinstance(value, str) or value not in named:
        raise ValueError(
            f"gradient must be one of {tuple(named)} or a gradient estimator; got {value!r}"
        )
    if batch_size is None and value != "full":
        raise ValueError(f"gradient {value!r} needs a batch_size")
    return named[value](None if batch_size is None else whole("batch_size", batch_size))


def as_localization(value: Any) -> tuple[float | None, str]:
    """Return a localization, None where it is left to a rule, and the name of that rule."""
    if isinstance(value, str):
        if value not in CURVATURE_OVER_LOCALIZATION:
            known = " or ".join(map(repr, CURVATURE_OVER_LOCALIZATION))
            raise ValueError(
                f"localization must be a positive number; got {value!r}: pass one, or let {known} "
                "choose it"
            )
        return None, value
    return positive("localization", value), "auto"


def known_precision(localization: float | None) -> float:
    """Return a localization that is known by now, or say how to get it."""
    if localization is None:
        raise ValueError(
            "localization is not known yet: ppl_bif.sample resolves it from the curvature of the "
            "data; elsewhere pass a number, or use model.resolve(localization)"
        )
    return localization
