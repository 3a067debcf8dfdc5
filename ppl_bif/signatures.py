"""What can be told of a user's callable: how many arguments it takes, and a lasting name."""

import inspect
from collections.abc import Callable
from functools import partial
from numbers import Number
from types import CodeType, NoneType
from typing import Any

from ppl_bif.data import as_numpy, digest

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
    """Name a callable, with a digest of what it does, the same in every process.

    Counted are its code, the names it uses, its defaults, and what it encloses, some functions
    deep; what global names stand for is not.
    """
    return _describe(function, 4)


def _describe(function: Any, depth: int) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    content = _content(function, depth - 1) if depth else None
    return name if content is None else f"{name}:{digest(content)[:8]}"


def _content(function: Any, depth: int) -> Any:
    if isinstance(function, partial):
        values = (function.func, function.args, function.keywords)
        return [_plain(value, depth) for value in values]
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    values = (function.__defaults__, function.__kwdefaults__, *map(_held, _cells(function)))
    return [_code(code), *(_plain(value, depth) for value in values)]


def _code(code: CodeType) -> list[Any]:
    # The text of inner code would hold its address, which differs from process to process.
    consts = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code, code.co_names, consts]


def _cells(function: Any) -> tuple[Any, ...]:
    return function.__closure__ or ()


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return None


def _plain(value: Any, depth: int) -> Any:
    """Reduce a value to what a digest can hold and another process finds again."""
    if isinstance(value, str | bytes | Number | NoneType):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item, depth) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, depth) for key, item in value.items()}
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return as_numpy(value)
    return _describe(value, depth) if callable(value) else type(value).__qualname__
