"""Strides as the operators make them, where torch records others.

Torch traces with formulas for the shapes and strides of results. Where an operator is handed a tensor that is not
contiguous, a formula can be wrong: batch normalisation over a transposed sequence is recorded with the strides of its
input and gives a contiguous result. A plan believes what is recorded: a storage that was away comes back under the
recorded strides, which would then read other elements. And a view that the recorded strides allow fails on the real ones.

So each such operator is run once, on zeros, while torch traces: a `linear` or a `reshape` that comes after it is then
taken apart as in the eager step. What is traced before that (Dynamo's own part) is looked through once more at the end:
what follows from a result with other strides is recorded anew, and a view that the real strides do not allow becomes a
copy, which is what the eager step made there.

Private names used: `_disable_current_modes` of `torch.utils._python_dispatch`, and `FakeTensorMode.dispatch` of
`torch._subclasses.fake_tensor`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.fx import GraphModule, Node

from ..fx import map_nodes, tensor_leaves

#: Their results are dense whatever they are given, and transposed weights are most of what is not contiguous.
_DENSE = ("mm", "addmm", "bmm", "baddbmm")
_Geometry = tuple[tuple[int, ...], tuple[int, ...]]


@contextlib.contextmanager
def real_layouts() -> Iterator[None]:
    """Tensors without bytes, which torch traces with, get the strides that the operators give real ones."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    as_recorded = FakeTensorMode.dispatch

    def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = as_recorded(self, func, types, args, kwargs or {})
        read = _tensors((args, kwargs))
        if (
            not _computes(func)
            or not _some_strided(read)
            or not all(map(_is_plain, [*read, *_tensors(result)]))
        ):
            return result
        found = _run(func, args, kwargs or {}, lambda value: value)
        corrected = None if found is None else _restrided(result, found)
        return result if corrected is None else corrected

    with mock.patch.object(FakeTensorMode, "dispatch", dispatch):
        yield


def _tensors(value: Any) -> list[torch.Tensor]:
    return (
        tensor_leaves(list(value.values()) if isinstance(value, dict) else value) if value is not None else []
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Sizes are numbers, and nothing but strides says where elements lie."""
    return (
        tensor.layout is torch.strided
        and all(type(n) is int for n in (*tensor.shape, *tensor.stride()))
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


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
        if _may_differ(node) and (found := _run(node.target, node.args, node.kwargs, _recorded)) is not None:
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
    read = [leaf for source in node.all_input_nodes for leaf in tensor_leaves(source.meta.get("val"))]
    return _computes(node.target) and _some_strided(read) and all(map(_is_plain, read))


def _computes(target: Any) -> bool:
    """An operator that makes tensors of its own, the same ones each time."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten" or target.is_view:
        return False
    if torch.Tag.nondeterministic_seeded in target.tags or target._schema.is_mutable:
        return False
    return target._schema.name.removeprefix("aten::") not in _DENSE


def _some_strided(read: list[torch.Tensor]) -> bool:
    return any(not leaf.is_contiguous() for leaf in read)


def _run(target: Any, args: Any, kwargs: Any, value_of: Any) -> tuple[_Geometry, ...] | None:
    """The geometry of the results, from a run on zeros; None where the operator does not take them.

    Args:
        value_of: from what stands for a tensor in the arguments, a node or the tensor, to that.
    """
    described: list[tuple[Any, ...]] = []

    def describe(source: Any) -> Any:
        value = value_of(source)
        if not isinstance(value, torch.Tensor):
            raise TypeError
        described.append((tuple(value.shape), tuple(value.stride()), value.dtype, str(value.device)))
        return _Place(len(described) - 1)

    try:
        placed = _placed((args, kwargs), describe)
        return _ran(target, _frozen(placed[0]), _frozen(placed[1]), tuple(described))
    except (TypeError, RuntimeError, IndexError, ValueError):
        return None


def _placed(value: Any, describe: Any) -> Any:
    """The arguments with `describe` of each node or tensor in its place."""
    if isinstance(value, (torch.Tensor, Node)):
        return describe(value)
    if isinstance(value, dict):
        return {key: _placed(item, describe) for key, item in value.items()}
    return [_placed(item, describe) for item in value] if isinstance(value, (list, tuple)) else value


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


def _recorded(node: Any) -> Any:
    return node.meta.get("val")


def _restride(node: Node, found: tuple[_Geometry, ...], changed: set[Node]) -> None:
    """Record the strides that a run has shown, where they matter."""
    corrected = _restrided(node.meta["val"], found)
    if corrected is not None:
        node.meta["val"] = corrected
        changed.add(node)


def _restrided(value: Any, found: tuple[_Geometry, ...]) -> Any:
    """The value with the strides that a run has shown; None where it has them."""
    leaves = tensor_leaves(value)
    if len(leaves) != len(found) or all(_alike(leaf, seen) for leaf, seen in zip(leaves, found)):
        return None
    fresh = iter(
        leaf
        if _alike(leaf, (shape, strides)) or tuple(leaf.shape) != shape
        else leaf.new_empty_strided(shape, strides)
        for leaf, (shape, strides) in zip(leaves, found)
    )
    return _replaced(value, fresh)


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
