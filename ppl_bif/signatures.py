"""What can be told of a user's callable: how many arguments it takes, and a lasting name."""

import inspect
from collections.abc import Callable
from typing import Any

from ppl_bif.data import digest

__all__ = ["describe", "num_arguments"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def num_arguments(function: Callable[..., Any], name: str) -> int:
    """Count the arguments that must be given by position; one or two are expected."""
    parameters = inspect.signature(function).parameters.values()
    required = [p for p in parameters if p.kind in _POSITIONAL and p.default is p.empty]
    if len(required) not in (1, 2):
        raise TypeError(
            f"{name} must take (outputs) and give a distribution, or (outputs, batch) and give "
            f"log-likelihoods; it takes {len(required)} arguments"
        )
    return len(required)


def describe(function: Callable[..., Any]) -> str:
    """Name a callable, with a digest of its code so that two lambdas differ."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name}:{digest(code.co_code, repr(code.co_consts))[:8]}"
