"""Rebuild the step's graph from a schedule: the original operators, with transfers, codecs and repeats in between.

A schedule says, entry by entry, which bytes are on the device. The builder walks it once and keeps, for every
storage, the *version* that is valid now: version 0 is what the original operator made; each restoration (a read
from a tier, a decode, a repeated operator) makes the next. A tensor of a restored version is
`as_strided(restored, size, stride, offset)` with the geometry that the original tensor was recorded with (conjugated or
negated where that one only says so of its bytes), so one rule serves every chain of views, and a storage that is viewed
twice is moved once.

Values that the backward needs cross the boundary as the forward's trailing outputs. The names of the runtime's
operators stand in `RuntimeOps`; this room inserts them and never runs them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _BoxedCodeGen

from ..errors import RewriteError
from ..fx import CapturedStep, RewrittenStep, RuntimeOps, map_nodes, tensor_leaves
from ..values import Entry, Schedule


def rewrite_step(
    step: CapturedStep,
    schedule: Schedule,
    ops: RuntimeOps,
    *,
    observe: frozenset[int] = frozenset(),
    updates: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    parameters: Mapping[int, str] | None = None,
) -> RewrittenStep:
    """Lower a schedule onto the captured graph.

    Args:
        observe: storages whose density is sampled when they are made.
        updates: position of an op in the backward → updates that run before it: slot of the state, place of the gradient
            among the backward's results.
        parameters: storages that rest on a tier when the step begins → their names.

    Raises:
        RewriteError: the schedule uses bytes that are not there, a defect of the planner.
    """
    return _Builder(step, ops, observe, updates or {}, parameters or {}).build(schedule)


class _Builder:
    def __init__(
        self,
        step: CapturedStep,
        ops: RuntimeOps,
        observe: frozenset[int],
        updates: Mapping[int, Sequence[tuple[int, int]]],
        parameters: Mapping[int, str],
    ) -> None:
        self.parameters = parameters
        self.updates = updates
        self.updated = frozenset(place for some in updates.values() for _, place in some)
        self.step, self.ops, self.observe = step, ops, observe
        self.graphs = (Graph(), Graph())
        self.side = 0
        self.origin: dict[Node, Node] = {}
        self.version: dict[int, int] = dict.fromkeys(parameters, -1)
        self.restored: dict[tuple[int, int], Node] = {}
        self.values: dict[tuple[Node, int], Node] = {}
        self.home: dict[Node, int] = {}
        self.crossed: dict[Node, Node] = {}
        self.frames = tuple(_placeholder(g, "frame") for g in self.graphs)
        for node in step.primals:
            self._input(node, 0)
        self._anchor = self.graphs[1].call_function(len, ((),))  # crossing placeholders go before this mark

    def build(self, schedule: Schedule) -> RewrittenStep:
        for entry in schedule.entries:
            if entry.op == self.step.boundary:
                self._finish_forward()
            elif entry.op == len(self.step.nodes) - 1:
                break
            elif entry.storage >= len(self.step.graph.storages):  # of an optimizer
                self._state(entry)
            else:
                getattr(self, f"_{entry.kind}")(entry)
        gradients = enumerate(self.step.backward_outputs)
        results = tuple(None if place in self.updated else self._output(n) for place, n in gradients)
        self.graphs[1].output(results)
        self.graphs[1].erase_node(self._anchor)
        crossing = list(self.crossed)
        self.graphs[0].output((*self.results, *crossing))
        originals = {new: old for (old, version), new in self.values.items() if version == 0}
        return RewrittenStep(
            forward=self._module(0),
            backward=self._module(1),
            crossing=tuple(originals.get(n) for n in crossing),
            origin=self.origin,
            read_again=self._read_again(crossing),
            updated=self.updated,
            parameters=self.parameters,
        )

    def _read_again(self, crossing: list[Node]) -> frozenset[int]:
        """Which crossing values operators of the forward read that run again behind it."""
        twins = {self.crossed[node]: place for place, node in enumerate(crossing)}
        first = set(self.step.nodes[: self.step.boundary])
        behind: dict[Node, set[int]] = {twin: {place} for twin, place in twins.items()}
        read: set[int] = set()
        for node in self.graphs[1].nodes:
            if node.op == "call_function":
                seen = {place for source in node.all_input_nodes for place in behind.get(source, ())}
                if node not in self.origin:  # a view of what it reads
                    behind[node] = seen
                elif self.origin[node] in first:
                    read |= seen
        return frozenset(read)

    def _module(self, side: int) -> GraphModule:
        graph = self.graphs[side]
        graph.set_codegen(_BoxedCodeGen())
        graph.lint()
        return GraphModule(self.step.module, graph)

    def _finish_forward(self) -> None:
        self.results = tuple(self._output(n) for n in self.step.forward_outputs)
        self.side = 1
        for node in self.step.tangents:
            self._input(node, 1)

    def _input(self, node: Node, side: int) -> Node:
        new = _placeholder(self.graphs[side], node.name)
        new.meta = dict(node.meta)
        self.values[node, 0] = new
        self.home[new] = side
        return new

    # One method per kind of entry.

    def _state(self, entry: Entry) -> None:
        """Its update waits for the read, and what drops it for the write."""
        moves = {
            "fetch": self.ops.fetch_state,
            "swap_out": self.ops.write_state,
            "drop": self.ops.drop_state,
        }
        if entry.kind in moves:
            self._call(moves[entry.kind], entry.storage)

    def _op(self, entry: Entry) -> None:
        for slot, place in self.updates.get(entry.op, ()):
            gradient = self.step.backward_outputs[place]
            assert isinstance(gradient, Node)
            self._call(self.ops.update_state, slot, self.value(gradient))
        self._run(self._node(entry.op), again=False)

    def _clone(self, entry: Entry) -> None:
        self._run(self._node(entry.op), again=True)

    def _swap_out(self, entry: Entry) -> None:
        if entry.nbytes:
            self._call(self.ops.swap_out, None, entry.storage, entry.tier)
        else:
            self._call(self.ops.swap_out, self._any_tensor(entry.storage), entry.storage, entry.tier)

    def _settle(self, entry: Entry) -> None:
        self._call(self.ops.settle, entry.storage)

    def _drop(self, entry: Entry) -> None:
        self.version[entry.storage] = -1 - abs(self.version.get(entry.storage, 0))

    def _fetch(self, entry: Entry) -> None:
        storage = self.step.graph.storages[entry.storage]
        self._call(self.ops.fetch, entry.storage, entry.nbytes or storage.nbytes)

    def _wait(self, entry: Entry) -> None:
        if entry.nbytes:
            self._call(self.ops.wait, entry.storage, None)
        else:
            self._restore(entry.storage, self._call(self.ops.wait, entry.storage, self._dtype(entry.storage)))

    def _encode(self, entry: Entry) -> None:
        tensor = self._any_tensor(entry.storage)
        self._call(self.ops.encode, tensor, entry.storage, entry.codec, entry.nbytes)

    def _decode(self, entry: Entry) -> None:
        node = self._call(self.ops.decode, entry.storage, self._dtype(entry.storage), entry.last)
        self._restore(entry.storage, node)

    # Helpers.

    def _node(self, position: int) -> Node:
        node = self.step.nodes[position]
        if node is None:
            raise RewriteError(f"position {position} has no operator to run")
        return node

    def _call(self, function: Callable[..., Any], *args: Any) -> Node:
        node = self.graphs[self.side].call_function(function, (self.frames[self.side], *args))
        self.home[node] = self.side
        return node

    def _dtype(self, storage: int) -> torch.dtype:
        kind: torch.dtype = getattr(torch, self.step.graph.storages[storage].dtype)
        return kind

    def _restore(self, storage: int, node: Node) -> None:
        self.version[storage] = abs(self.version.get(storage, 0)) + (self.version.get(storage, 0) >= 0)
        self.restored[storage, self.version[storage]] = node

    def _run(self, node: Node, *, again: bool) -> None:
        new = self._emit(node)
        parts = (
            [n for n in node.users if n.target is operator.getitem]
            if isinstance(node.meta.get("val"), (list, tuple))
            else []
        )
        made = [(part, self._place(part, part.target, (new, part.args[1]), {})) for part in parts]
        outputs = made if parts else [(node, new)]
        self.origin[new] = node
        for original, value in outputs:
            storage = self.step.storage.get(original)
            fresh = storage is not None and self.step.graph.storages[storage].producer >= 0
            if again and fresh and storage is not None:
                if self.version.get(storage, 0) < 0:
                    self._restore(storage, value)
            elif not again:
                self.values[original, 0] = value
                if fresh and storage in self.observe:
                    self._call(self.ops.observe, value, storage)

    def _emit(self, node: Node) -> Node:
        args, kwargs = map_nodes(node.args, self.value), map_nodes(node.kwargs, self.value)
        return self._place(node, node.target, args, kwargs)

    def _place(self, like: Node, target: Any, args: Any, kwargs: Any) -> Node:
        graph = self.graphs[self.side]
        kind = "call_function" if like.op == "placeholder" else like.op  # a view of an input that was fetched
        new = graph.create_node(kind, target, args, kwargs, name=like.name)
        new.meta = {k: v for k, v in like.meta.items() if k in ("val", "tensor_meta", "stack_trace")}
        self.home[new] = self.side
        return new

    def value(self, node: Node) -> Node:
        """The new node that holds the original node's value now, on this side of the boundary."""
        storage = self.step.storage.get(node)
        version = self.version.get(storage, 0) if storage is not None else 0
        if version < 0:
            raise RewriteError(f"{node.name} is read while its bytes are away")
        new = self.values.get((node, version))
        if new is None:
            new = self._derive(node, storage, version)
            self.values[node, version] = new
        return self._here(new)

    def _derive(self, node: Node, storage: int | None, version: int) -> Node:
        if storage is None or version == 0:  # a view, a constant or a number: replayed where it is needed
            return self._emit(node)
        base, leaf = self._here(self.restored[storage, version]), tensor_leaves(node.meta["val"])[0]
        if _same_geometry(base.meta.get("val"), leaf):
            return base
        strided, dtype = torch.ops.aten.as_strided.default, self._dtype(storage)
        if leaf.dtype != dtype:  # of one dense run: a Fourier transform's last dimension need not be one
            count = self.step.graph.storages[storage].nbytes // dtype.itemsize
            flat = self._place(node, strided, (base, [count], [1], 0), {})
            base = self._place(node, torch.ops.aten.view.dtype, (flat, leaf.dtype), {})
        geometry = (list(leaf.shape), list(leaf.stride()), int(leaf.storage_offset()))
        view = self._place(node, strided, (base, *geometry), {})
        if leaf.is_conj():
            view = self._place(node, torch.ops.aten._conj.default, (view,), {})
        if leaf.is_neg():
            view = self._place(node, torch.ops.aten._neg_view.default, (view,), {})
        return view

    def _here(self, node: Node) -> Node:
        """`node`, or its stand-in behind the boundary."""
        if self.home[node] == self.side:
            return node
        if self.home[node] > self.side:
            raise RewriteError(f"{node.name} is made in the backward and needed in the forward")
        if node not in self.crossed:
            with self.graphs[1].inserting_before(self._anchor):
                twin = _placeholder(self.graphs[1], node.name)
            twin.meta = dict(node.meta)
            self.home[twin] = 1
            self.crossed[node] = twin
        return self.crossed[node]

    def _any_tensor(self, storage: int) -> Node:
        """Some tensor over the storage's bytes as they are now."""
        version = self.version.get(storage, 0)
        if version > 0:
            return self._here(self.restored[storage, version])
        for (original, made), new in self.values.items():
            if made == 0 and self.step.storage.get(original) == storage:
                return self._here(new)
        raise RewriteError(f"storage {storage} has no tensor to act on")

    def _output(self, node: object) -> Any:
        return self.value(node) if isinstance(node, Node) else node


def _placeholder(graph: Graph, name: str) -> Node:
    """An input. The generated code reads it into a variable of its target's name and calls it by its own from then on:
    where a repeated operator had that name before, the variable would be another input's."""
    node = graph.placeholder(name)
    node.target = node.name
    return node


def _same_geometry(value: Any, leaf: torch.Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == leaf.dtype
        and value.shape == leaf.shape
        and value.stride() == leaf.stride()
        and value.storage_offset() == leaf.storage_offset()
        and value.is_conj() == leaf.is_conj()
        and value.is_neg() == leaf.is_neg()
    )
