"""Strides as the operators make them, where torch records others.

Torch traces with formulas for the shapes and strides of results. Where an operator is handed a tensor that is not
contiguous, a formula can be wrong: batch normalisation over a transposed sequence is recorded with the strides of its
input and gives a contiguous result. A plan believes what is recorded: a storage that was away comes back under the
recorded strides, which would then read other elements. And a view that the recorded strides allow fails on the real ones.

So each such operator is run once, on zeros, and what follows from a result with other strides is recorded anew; a view
that the real strides do not allow becomes a copy, which is what the eager step made there.

Private names used: `_disable_current_modes` of `torch.utils._python_dispatch`.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..fx import map_nodes, tensor_leaves

#: Their results are dense whatever they are given, and transposed weights are most of what is not contiguous.
_DENSE = ("mm", "addmm", "bmm", "baddbmm")
_Geometry = tuple[tuple[int, ...], tuple[int, ...]]


def correct_layouts(module: GraphModule) -> None:
    """Record the strides that the operators of a traced graph give their results, in the graph itself."""
    changed: set[Node] = set()
    moved: dict[_Geometry, tuple[int, ...]] = {}
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        recorded = _geometries(node)
        if node.target is torch.ops.aten.new_empty_strided.default:
            _lay_out_as_base(node, moved, changed)
        if any(source in changed for source in node.all_input_nodes):
            _record_anew(module, node, changed)
        if _may_differ(node) and (found := _run(node)) is not None:
            _restride(node, found, changed)
        if node in changed:
            moved |= {old: new[1] for old, new in zip(recorded, _geometries(node)) if old != new}


def _geometries(node: Node) -> list[_Geometry]:
    return [(tuple(leaf.shape), tuple(leaf.stride())) for leaf in tensor_leaves(node.meta.get("val"))]


def _lay_out_as_base(node: Node, moved: dict[_Geometry, tuple[int, ...]], changed: set[Node]) -> None:
    """The gradient of a view that was changed in place is laid out as the tensor that it is a view of: as that one's
    strides were recorded, in numbers."""
    like, size, strides, *rest = node.args
    corrected = moved.get((tuple(size), tuple(strides)))  # type: ignore[arg-type]
    if corrected is not None:
        node.args = (like, size, list(corrected), *rest)
        node.meta["val"] = _call(node)
        changed.add(node)


def _may_differ(node: Node) -> bool:
    """It computes, and something that it reads is not contiguous."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten" or target.is_view:
        return False
    if torch.Tag.nondeterministic_seeded in target.tags or target._schema.is_mutable:
        return False
    if target._schema.name.removeprefix("aten::") in _DENSE:
        return False
    read = [leaf for source in node.all_input_nodes for leaf in tensor_leaves(source.meta.get("val"))]
    return any(not leaf.is_contiguous() for leaf in read) and all(
        leaf.layout is torch.strided and not leaf.is_conj() and not leaf.is_neg() for leaf in read
    )


def _run(node: Node) -> tuple[_Geometry, ...] | None:
    """The geometry of the results, from a run on zeros; None where the operator does not take them."""
    described: list[tuple[Any, ...]] = []

    def describe(source: Node) -> Any:
        value = source.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise TypeError
        described.append((tuple(value.shape), tuple(value.stride()), value.dtype, str(value.device)))
        return _Place(len(described) - 1)

    try:
        args, kwargs = map_nodes((node.args, node.kwargs), describe)
        return _ran(node.target, _frozen(args), _frozen(kwargs), tuple(described))
    except (TypeError, RuntimeError, IndexError, ValueError):
        return None


class _Place(int):
    """Stands for a tensor in an operator's arguments."""


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@functools.lru_cache(maxsize=4096)
def _ran(target: Any, args: Any, kwargs: Any, described: tuple[Any, ...]) -> tuple[_Geometry, ...]:
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), torch.no_grad():
        tensors = [
            torch.empty_strided(shape, strides, dtype=dtype, device=device).zero_()
            for shape, strides, dtype, device in described
        ]

        def thaw(value: Any) -> Any:
            if isinstance(value, _Place):
                return tensors[value]
            return [thaw(item) for item in value] if isinstance(value, tuple) else value

        result = target(*map(thaw, args), **{key: thaw(item) for key, item in kwargs})
        return tuple((tuple(leaf.shape), tuple(leaf.stride())) for leaf in tensor_leaves(result))


def _restride(node: Node, found: tuple[_Geometry, ...], changed: set[Node]) -> None:
    """Record the strides that a run has shown, where they matter."""
    value = node.meta["val"]
    leaves = tensor_leaves(value)
    if len(leaves) != len(found) or all(_alike(leaf, seen) for leaf, seen in zip(leaves, found)):
        return
    fresh = iter(
        leaf
        if _alike(leaf, (shape, strides)) or tuple(leaf.shape) != shape
        else leaf.new_empty_strided(shape, strides)
        for leaf, (shape, strides) in zip(leaves, found)
    )
    node.meta["val"] = _replaced(value, fresh)
    changed.add(node)


def _replaced(value: Any, fresh: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return next(fresh)
    return type(value)(_replaced(v, fresh) for v in value) if isinstance(value, (list, tuple)) else value


def _alike(leaf: torch.Tensor, seen: _Geometry) -> bool:
    """Nobody takes a second step along a dimension of one element."""
    shape, strides = seen
    matter = [(a, b) for n, a, b in zip(shape, leaf.stride(), strides) if n > 1]
    return tuple(leaf.shape) == shape and (not leaf.numel() or all(a == b for a, b in matter))


def _record_anew(module: GraphModule, node: Node, changed: set[Node]) -> None:
    """What the node makes of inputs whose strides were corrected."""
    before = node.meta.get("val")
    if node.target is operator.getitem:
        node.meta["val"] = node.args[0].meta["val"][node.args[1]]  # type: ignore[union-attr]
    else:
        with torch.no_grad():
            try:
                node.meta["val"] = _call(node)
            except (RuntimeError, ValueError):
                if node.target not in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
                    raise
                _copy_first(module, node)
                node.meta["val"] = _call(node)
    old, new = tensor_leaves(before), tensor_leaves(node.meta["val"])
    if any(not _alike(a, (tuple(b.shape), tuple(b.stride()))) for a, b in zip(old, new)) or _is_view(node):
        changed.add(node)


def _is_view(node: Node) -> bool:
    """Its recorded tensor shares the corrected one's storage, so what reads it has to be recorded anew as well."""
    return node.target is operator.getitem or bool(getattr(node.target, "is_view", False))


def _call(node: Node) -> Any:
    args, kwargs = map_nodes((node.args, node.kwargs), lambda n: n.meta["val"])
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _copy_first(module: GraphModule, node: Node) -> None:
    """`reshape` of a tensor that cannot be viewed so: a contiguous copy, and a view of that."""
    source = node.args[0]
    with module.graph.inserting_before(node):
        copy = module.graph.call_function(
            torch.ops.aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
        )
    copy.meta = {k: v for k, v in node.meta.items() if k != "val"}
    copy.meta["val"] = source.meta["val"].contiguous()  # type: ignore[union-attr]
    node.replace_input_with(source, copy)  # type: ignore[arg-type]
