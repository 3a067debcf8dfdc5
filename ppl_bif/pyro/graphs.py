"""Traced graphs of tensor operations: fewer of them, and in the forms that run quickest."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["FEW", "traced"]

aten = torch.ops.aten
RESHAPING = (aten.expand.default, aten.view.default, aten._unsafe_view.default)
# Operations that may overwrite one of their arguments.
IN_PLACE = {
    aten.add.Tensor: aten.add_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.relu.default: aten.relu_.default,
    aten.tanh.default: aten.tanh_.default,
}
# On a CPU, products and softmaxes over fewer columns than a vector register holds run several
# times slower than over as few rows.
FEW = 16


def traced(function: Callable[..., Any], leaves: list[Any]) -> Callable[..., Any]:
    """Trace a function of tensors to a list of tensors."""
    try:
        module = make_fx(function, decomposition_table={aten.bmm.default: _bmm})(*leaves)
    except RuntimeError:
        # A network may call `view` on a product, which then must lie as it is written.
        module = make_fx(function)(*leaves)
    _leave_out_idle(module.graph)
    _reuse_memory(module.graph)
    module.recompile()
    return module.forward


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """Multiply to few rows instead of few columns."""
    if a.device.type == "cpu" and b.shape[2] < FEW < a.shape[1]:
        return torch.bmm(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)
    return NotImplemented


def _leave_out_idle(graph: Graph) -> None:
    """Remove operations that give what they were given, which ``vmap`` leaves behind."""
    for node in graph.nodes:
        same = node.target in RESHAPING and _layout(node) == _layout(node.args[0])
        if same or (node.target is aten.mul.Scalar and node.args[1] == 1):
            node.replace_all_uses_with(node.args[0])
        elif node.target is aten.transpose.int and _undoes(node, node.args[0]):
            node.replace_all_uses_with(node.args[0].args[0])
    graph.eliminate_dead_code()


def _undoes(node: Node, before: Node) -> bool:
    return before.target is aten.transpose.int and node.args[1:] == before.args[1:]


def _reuse_memory(graph: Graph) -> None:
    """Write results over arguments that nothing else reads."""
    for node in graph.nodes:
        if node.target not in IN_PLACE or node.kwargs:
            continue
        for i, given in enumerate(node.args):
            if isinstance(given, Node) and _owned(given) and _layout(given) == _layout(node):
                rest = [other for j, other in enumerate(node.args) if j != i]
                node.target, node.args = IN_PLACE[node.target], (given, *rest)
                break


def _owned(node: Node) -> bool:
    """Whether the memory of a node was made in the graph and is read by its one user alone."""
    if not isinstance(node.target, OpOverload) or len(node.users) != 1:
        return False
    returned = node.target._schema.returns
    # What `_unsafe_view` gives is a view as well, of which its schema does not tell.
    if node.target in RESHAPING or any(value.alias_info is not None for value in returned):
        return _owned(node.args[0])
    return True


def _layout(node: Node) -> Any:
    value = node.meta.get("tensor_meta")
    return node if value is None else (value.shape, value.stride, value.dtype)
