"""Functions of one chain's weights, mapped over a leading chain axis and traced for speed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from ppl_bif.pyro.graphs import traced

__all__ = ["Chainwise", "flatten", "over_chains", "unflatten"]


class Chainwise:
    """A function of one chain, made one of all chains.

    One chain alone is called as it is, so that networks which ``vmap`` cannot map, and networks
    that fill the device, still run. Several are mapped by ``vmap``, or go one by one, and traced
    once for each set of shapes into a graph of tensor operations: Pyro's handlers, which are most
    of the time of a small network, then run only while tracing. A function that branches on values,
    which a trace would get wrong, is not traced; one that branches on weights, which ``vmap``
    cannot map, is refused by it.

    Parameters
    ----------
    function
        ``(*mapped, *shared)``; gives tensors.
    one_by_one
        Call it for each chain in turn.
    """

    def __init__(self, function: Callable[..., Any], *, one_by_one: bool = False) -> None:
        self.function, self.one_by_one = function, one_by_one
        self._graphs: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def __call__(self, mapped: tuple[Any, ...], shared: tuple[Any, ...] = ()) -> Any:
        """Call the function on trees of tensors ``(chain, ...)`` and trees that chains share."""
        leaves: list[Tensor] = []
        key = _describe((mapped, shared), leaves)
        chains = len(leaves[0])
        if chains == 1:
            return over_chains(self.function, mapped, shared)
        if not self.one_by_one:
            return self._run(key, leaves, mapped, shared)
        found = []
        for c in range(chains):
            own, leaves = pytree.tree_map(itemgetter(c), mapped), []
            found.append(self._run(_describe((own, shared), leaves), leaves, own, shared))
        return pytree.tree_map(lambda *parts: torch.stack(parts), *found)

    def _run(self, key: Any, leaves: list[Tensor], mapped: Any, shared: Any) -> Any:
        """Call the graph of leaves to leaves; put what it returns into a tree."""
        if key not in self._graphs:
            self._graphs[key] = self._traced(mapped, shared)
        graph, returned = self._graphs[key]
        return pytree.tree_unflatten(graph(*leaves), returned)

    def _traced(self, mapped: Any, shared: Any) -> tuple[Callable[..., Any], Any]:
        leaves, structure = pytree.tree_flatten((mapped, shared))
        returned = None

        def flat(*leaves: Any) -> list[Any]:
            nonlocal returned
            mapped, shared = pytree.tree_unflatten(leaves, structure)
            found, returned = pytree.tree_flatten(self._called(mapped, shared))
            return found

        try:
            return traced(flat, leaves), returned
        except RuntimeError:
            # It branches on values: on those of data it may, as networks of Hugging Face do on
            # masks, but not in a trace. What vmap cannot map fails here again, and says so.
            flat(*leaves)
            return flat, returned

    def _called(self, mapped: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        if not self.one_by_one:
            return over_chains(self.function, mapped, shared)
        with pyro.validation_enabled(False), _advice():
            return self.function(*mapped, *shared)

    def __getstate__(self) -> dict[str, Any]:
        # Graphs are made again where the kernel is sent to another process.
        return {**self.__dict__, "_graphs": {}}


def _describe(tree: Any, leaves: list[Tensor]) -> Any:
    """Tell a tree of mappings, tuples and tensors from others; add its tensors to ``leaves``.

    At a fraction of what ``pytree`` takes, as it is done at every step.
    """
    if isinstance(tree, Tensor):
        leaves.append(tree)
        # A trace holds views that fit the strides it saw.
        return tree.shape, tree.stride(), tree.dtype
    if isinstance(tree, dict):
        return tuple([(name, _describe(part, leaves)) for name, part in tree.items()])
    return tuple([_describe(part, leaves) for part in tree])


def over_chains(
    function: Callable[..., Any], mapped: tuple[Any, ...], shared: tuple[Any, ...] = ()
) -> Any:
    """Call a function of one chain on all, by ``vmap`` where there are several."""
    # Checks of supports branch on values, which vmap cannot; data was checked when it came in.
    with pyro.validation_enabled(False):
        if len(pytree.tree_leaves(mapped)[0]) == 1:
            result = function(*_each(lambda t: t[0], mapped), *shared)
            return _each(lambda t: t.unsqueeze(0), result)
        axes = (*(0 for _ in mapped), *(None for _ in shared))
        # Fused attention cannot be mapped but in a loop.
        with _advice(), sdpa_kernel(SDPBackend.MATH):
            return torch.func.vmap(function, in_dims=axes)(*mapped, *shared)


@contextmanager
def _advice() -> Iterator[None]:
    """Say what to do about networks that can be neither mapped nor traced."""
    try:
        yield
    except Exception as error:
        error.add_note(
            "If this network cannot be mapped over chains, move them one after another: "
            'chain_method="sequential".'
        )
        raise


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """Lay tensors ``(chain, ...)`` side by side, ``(chain, d)``."""
    return torch.cat([t.reshape(len(t), -1) for t in tensors.values()], dim=1)


def unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`flatten`, for as many chains as there are; ``like`` gives names and shapes."""
    parts = flat.split([t[0].numel() for t in like.values()], dim=1)
    return {
        name: part.view(len(flat), *t.shape[1:])
        for (name, t), part in zip(like.items(), parts, strict=True)
    }


def _each(function: Callable[[Any], Any], tree: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, function, tree)
