"""What a method hands over to be judged."""

from typing import Any, NamedTuple

import numpy as np


class Result(NamedTuple):
    """Scores and what they cost.

    Attributes
    ----------
    settings
        All that was chosen.
    score
        ``(train, query)``, larger where the row raises the query's log-likelihood.
    passes
        Network passes over one example: a forward counts 1, a gradient 3.
    seconds
        Of this setting alone, its share of common work included.
    role
        ``"default"`` of the method, or ``"grid"``.
    seed
        Of whatever the method draws; None if it draws nothing.
    """

    settings: dict[str, Any]
    score: np.ndarray
    passes: int
    seconds: float
    role: str = "default"
    seed: int | None = None
