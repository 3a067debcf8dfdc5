"""What tells compiled programs apart: kernels and models that are alike share them."""

from collections.abc import Hashable
from typing import Any

__all__ = ["Alike"]


class Alike:
    """A kernel or a model as a static argument: equal to those of the same program.

    Weights and the localization are arguments of a program, and no part of what it is. So kernels
    of one model are alike, at any localization; and models of the same pure function, or flax
    module without state, with a likelihood by name, whatever their weights.
    """

    __slots__ = ("_key", "of")

    def __init__(self, of: Any) -> None:
        self.of, self._key = of, _hashable(of.program, of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _hashable(key: tuple[Any, ...], otherwise: Hashable) -> Hashable:
    """Return a key, or something that equals itself alone where part of it has no hash."""
    try:
        hash(key)
    except TypeError:
        return otherwise
    return key
