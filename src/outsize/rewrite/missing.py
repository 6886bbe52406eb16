"""The backward of a step some of whose results got no gradient.

Autograd hands a loss's gradient only to the results that the loss used. For the others the eager step computes nothing:
parameters that only they reach keep `grad = None`, and where a gradient would have been the sum of two, it is the one
that came. The captured backward was traced as if every result had one. What depends on missing gradients alone is
missing too and is left out, with whatever served nothing else; a sum of a missing gradient and one that came is that
one; any other operator that takes both reads zeros in the missing one's place, as the eager formulas do.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _BoxedCodeGen

from ..fx import CapturedStep, RewrittenStep, RuntimeOps, node_inputs
from ..values import StepGraph

_ADD, _SUB = torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor


class _Trail:
    """Which nodes are missing, by data flow from the tangents, those through a tier or a codec included.

    Attributes:
        gone: nodes that nothing is computed for.
        passed: a sum of one gradient that is there and one that is not → the former.
    """

    def __init__(self, tangents: Iterable[Node], missing: Collection[Node], ops: RuntimeOps | None) -> None:
        self.gone: set[Node] = set(missing)
        self.passed: dict[Node, Node] = {}
        self._late: set[Node] = set(tangents)
        self._late_slots: set[int] = set()
        self._gone_slots: set[int] = set()
        self._ops = ops

    def follow(self, node: Node) -> None:
        """Say what becomes of the next node, in the order in which they run."""
        if self._ops is not None and node.target in vars(self._ops).values():
            self._transfer(node, self._ops)
            return
        late = [n for n in node_inputs(node) if n in self._late]
        if not late:
            return
        self._late.add(node)
        there = [n for n in late if n not in self.gone]
        if not there:
            self.gone.add(node)
        elif len(there) < len(late) and self._adds(node):
            self.passed[node] = there[0]

    def _adds(self, node: Node) -> bool:
        """Whether the node is the sum of one gradient that is there and one that is not."""
        if node.target not in (_ADD, _SUB) or node.kwargs or len(node.args) != 2:
            return False
        left, right = node.args
        if node.target is _SUB and left in self.gone:
            return False
        return isinstance(left, Node) and isinstance(right, Node) and _shape(left) == _shape(right)

    def _transfer(self, node: Node, ops: RuntimeOps) -> None:
        if node.target is ops.update_state:
            if node.args[2] in self.gone:
                self.gone.add(node)
            return
        carries = node.target in (ops.swap_out, ops.encode, ops.observe)
        tensor, slot = (node.args[1], node.args[2]) if carries else (None, node.args[1])
        assert isinstance(slot, int)
        if tensor in self._late:
            self._late_slots.add(slot)
        if tensor in self.gone:
            self._gone_slots.add(slot)
        if slot in self._late_slots:
            self._late.add(node)
        if slot in self._gone_slots:
            self.gone.add(node)


def _shape(node: Node) -> object:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def without_missing(
    step: RewrittenStep, ops: RuntimeOps, tangents: int, missing: frozenset[int]
) -> GraphModule:
    """The step's backward for when some tangents are missing: it is handed None for them and gives None where the eager
    step gives none.

    Args:
        ops: the runtime's operators.
        tangents: how many the backward takes, behind everything else.
        missing: those that are, by their place among the tangents.
    """
    graph = step.backward.graph
    inputs = [n for n in graph.nodes if n.op == "placeholder"][-tangents:]
    trail = _Trail(inputs, {inputs[i] for i in missing}, ops)
    new, known = Graph(), dict[Node, Any]()
    for node in graph.nodes:
        if node.op == "output":
            new.output(tuple(None if n in trail.gone else _known(n, known) for n in node.args[0]))
            continue
        if node.op == "placeholder":
            known[node] = new.node_copy(node)
            continue
        trail.follow(node)
        if node in trail.passed:
            known[node] = _in_place_of(new, node, known[trail.passed[node]])
        elif node not in trail.gone:
            known[node] = new.node_copy(node, lambda n: _zeros(new, n) if n in trail.gone else known[n])
    _sweep(new, ops)
    _let_go(new)
    new.set_codegen(_BoxedCodeGen())
    new.lint()
    return GraphModule(step.backward, new)


def _known(node: object, known: dict[Node, Any]) -> Any:
    return known[node] if isinstance(node, Node) else node


def _zeros(graph: Graph, node: Node) -> Node:
    """Zeros of one element's bytes, which stand for a missing gradient."""
    value = node.meta["val"]
    return graph.call_function(zeros, (list(value.shape), value.dtype, value.device))


def zeros(shape: list[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of zeros that takes no memory."""
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def _in_place_of(graph: Graph, total: Node, part: Node) -> Node:
    """The one gradient that came, laid out as the sum was recorded: what follows reads it that way."""
    value, given = total.meta["val"], part.meta.get("val")
    if isinstance(given, torch.Tensor) and _layout(given) == _layout(value):
        return part
    node = graph.call_function(laid_out, (part, list(value.shape), list(value.stride()), value.dtype))
    node.meta = {"val": value}
    return node


def laid_out(tensor: torch.Tensor, shape: list[int], stride: list[int], dtype: torch.dtype) -> torch.Tensor:
    """The tensor's values in a storage of their own, with these strides."""
    return torch.empty_strided(shape, stride, dtype=dtype, device=tensor.device).copy_(tensor)


def _layout(value: torch.Tensor) -> tuple[object, ...]:
    whole = value.untyped_storage().nbytes()
    return (
        value.shape,
        value.stride(),
        value.storage_offset(),
        value.dtype,
        whole,
        value.is_conj(),
        value.is_neg(),
    )


def _sweep(graph: Graph, ops: RuntimeOps) -> None:
    """Take out what served missing gradients only: operators whose result nobody reads, and reads from a tier."""
    unread: set[object] = set()
    for node in reversed(list(graph.nodes)):
        if node.users or node.op in ("placeholder", "output"):
            continue
        if node.target is ops.wait and node.args[2] is not None:
            unread.add(node.args[1])
        elif node.target is ops.fetch and node.args[1] in unread:
            unread.discard(node.args[1])
        elif node.target in vars(ops).values() or not _pure(node):
            continue
        graph.erase_node(node)


def _let_go(graph: Graph) -> None:
    """What was saved for operators that are left out: generated code holds an input that nothing reads to its end."""
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    if unread := [n for n in inputs if not n.users]:
        with graph.inserting_after(inputs[-1]):
            graph.call_function(let_go, tuple(unread))


def let_go(*_: object) -> None:
    """The last use of its arguments."""


def _pure(node: Node) -> bool:
    if isinstance(node.target, torch._ops.OpOverload):
        random = torch.Tag.nondeterministic_seeded in node.target.tags
        return (
            not node.target._schema.is_mutable and not random and node.target.namespace in ("aten", "prims")
        )
    return node.op == "get_attr" or node.target in (operator.getitem, zeros, laid_out)


def without_bytes(
    step: CapturedStep, graph: StepGraph, absent: frozenset[int]
) -> tuple[StepGraph, frozenset[int]]:
    """The graph of a step in which some tangents are not expected: they, and what is missing with them, take no bytes.

    The operators stay, so that the plan's backward can run them if a gradient comes all the same.

    Args:
        graph: of the step, positions and storages as in `step.graph`.
        absent: tangents that are not expected, by their place.

    Returns:
        The graph, and the positions of the operators that will not run.
    """
    if not absent:
        return graph, frozenset()
    trail = _Trail(step.tangents, {step.tangents[i] for i in absent}, None)
    for node in step.order:
        trail.follow(node)
    idle = frozenset(i for i, n in enumerate(step.nodes) if n in trail.gone)
    empty = {s for i in idle for s in graph.ops[i].writes}
    empty |= {step.storage[step.tangents[i]] for i in absent}
    # Results that share one tangent's storage with one that is expected keep it.
    empty -= {step.storage[t] for i, t in enumerate(step.tangents) if i not in absent}
    storages = tuple(replace(s, nbytes=0) if s.index in empty else s for s in graph.storages)
    passed = frozenset(i for i, n in enumerate(step.nodes) if n in trail.passed)
    return replace(graph, storages=storages), idle | passed
