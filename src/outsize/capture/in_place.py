"""Operators that write in place, where what they write into is not contiguous.

AOTAutograd has no operators that write: `t.scatter_(…)` becomes `scatter(t, …)`, whose result has strides of its own
choice, where the eager one is laid out as `t` is. What follows then runs over memory in another order: a mean of the
result has other last bits, and a view that eager allows may fail.

So there a copy of the result over `t` is traced, which has the strides of `t`; `fold_copies` takes it away where the
result has them anyway.

Private names used: `FunctionalTensorMode.__torch_dispatch__` of `torch._subclasses.functional_tensor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.fx import GraphModule, Node

__all__ = ["fold_copies", "in_place_layouts"]

#: They change what a tensor is a view of, not its elements; or what they write does not depend on strides.
_SKIPPED = {
    "as_strided_", "copy_", "fill_", "resize_", "resize_as_", "set_", "squeeze_", "swapaxes_", "swapdims_", "t_",
    "transpose_", "unsqueeze_", "zero_",
}  # fmt: skip


@contextlib.contextmanager
def in_place_layouts() -> Iterator[None]:
    """What is written in place keeps its strides while torch traces."""
    from torch._subclasses.functional_tensor import FunctionalTensorMode

    as_traced = FunctionalTensorMode.__torch_dispatch__

    def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        twin = _twin(func, args)
        if twin is None:
            return as_traced(self, func, types, args, kwargs)
        result = as_traced(self, twin, types, args, kwargs)
        return as_traced(self, torch.ops.aten.copy_.default, types, (args[0], result), {})

    with mock.patch.object(FunctionalTensorMode, "__torch_dispatch__", dispatch):
        yield


def _twin(func: Any, args: Any) -> Any:
    """The operator that makes what an in-place one writes, where the strides of the two may differ."""
    if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable or func.namespace != "aten":
        return None
    name = func._schema.name.removeprefix("aten::")
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not name.endswith("_") or name in _SKIPPED or len(written) != 1:
        return None
    over = args[0] if args else None
    if not isinstance(over, torch.Tensor) or over.layout is not torch.strided or over.is_contiguous():
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    return getattr(packet, func._overloadname, None)


def fold_copies(module: GraphModule) -> None:
    """Drop the copies of what nobody else reads and what lies in memory as the copy would, in the graph itself."""
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten.copy.default:
            continue
        over, made = node.args[:2]
        if isinstance(over, Node) and isinstance(made, Node) and _is_fresh(made) and _alike(made, node):
            made.meta["val"] = node.meta["val"]  # views of the copy were recorded over its storage
            node.replace_all_uses_with(made)
            module.graph.erase_node(node)


def _is_fresh(node: Node) -> bool:
    """Whether a result has bytes of its own, which one node reads."""
    if (
        node.op != "call_function"
        or not isinstance(node.target, torch._ops.OpOverload)
        or len(node.users) != 1
    ):
        return False
    return not any(r.alias_info is not None for r in node.target._schema.returns)


def _alike(made: Node, wanted: Node) -> bool:
    one, other = made.meta["val"], wanted.meta["val"]
    return bool(
        isinstance(one, torch.Tensor)
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one.device == other.device
    )
