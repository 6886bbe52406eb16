"""Check a rewritten step against the captured one, without the builder's bookkeeping.

Every node of the new graphs is labelled with the storage whose bytes it holds, from the graphs alone: a placeholder
by its name, an operator by its original, a transfer by what was handed to it; and with its geometry (shape, strides,
offset, dtype, whether its bytes stand for their conjugate or negative), for which views are replayed on the meta
device, so that nothing the builder recorded is believed. Then: every original operator runs exactly once and in the
original order (repeats come after, with the same arguments); every argument and every result holds the bytes and has the
geometry that the original had; nothing random or with an effect runs twice; a repeat reads the values that the first run
read, not what something has written over them since; a transfer is settled before it is fetched and waited for before it
is used.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from ..errors import RewriteError
from ..fx import CapturedStep, RewrittenStep, RuntimeOps, map_nodes
from ..values import Op


def verify_step(step: CapturedStep, new: RewrittenStep, ops: RuntimeOps) -> None:
    """Raise unless the rewritten graphs compute what the captured graph computes.

    Raises:
        RewriteError: naming the node and what is wrong with it.
    """
    _Verifier(step, new, ops).run()


class _Verifier:
    def __init__(self, step: CapturedStep, new: RewrittenStep, ops: RuntimeOps) -> None:
        self.step, self.new, self.ops = step, new, ops
        self.bytes_of: dict[Node, int] = {}
        self.geometry: dict[Node, Any] = {}
        #: A parameter that rests on a tier was written there before the step began.
        self.slots: dict[int, str] = dict.fromkeys(new.parameters, "settle")
        self.held: dict[int, int] = {s: s for s in new.parameters}
        #: Slots that a tier holds as they are.
        self.in_tier: set[int] = set()
        self.ran: list[Node] = []
        self.op_of = {n: o for o, n in zip(step.graph.ops, step.nodes) if n is not None}
        #: How often each storage was changed in place, and what each operator saw of that in its first run.
        self.version: dict[int, int] = {}
        #: Parameters that the backward has updated, and the places of the gradients that it used for that.
        self.changed: set[int] = set()
        self.updates: set[int] = set()
        self.seen: dict[Node, tuple[int, ...]] = {}

    def run(self) -> None:
        self._inputs()
        for graph in (self.new.forward.graph, self.new.backward.graph):
            for node in graph.nodes:
                if node.op == "call_function":
                    self._visit(node)
            if graph is self.new.forward.graph:
                self._change(self.step.graph.ops[self.step.boundary])
        self._results(self.new.forward.graph, self.step.forward_outputs)
        handed = [None if i in self.updates else n for i, n in enumerate(self.step.backward_outputs)]
        self._results(self.new.backward.graph, handed)
        expected = [n for n in self.step.nodes if n is not None]
        if self.ran != expected:
            wrong = next((i for i, (a, b) in enumerate(zip(self.ran, expected)) if a is not b), -1)
            raise RewriteError(
                f"the operators no longer run once each in their order (first at position {wrong})"
            )

    def _inputs(self) -> None:
        crossing = next(n for n in self.new.forward.graph.nodes if n.op == "output").args[0]
        self.crossing = crossing[len(self.step.forward_outputs) :]
        twins = [n for n in self.new.backward.graph.nodes if n.op == "placeholder"][1:]
        self.twin = dict(zip(twins[: len(self.crossing)], self.crossing))
        fresh = [n for n in self.new.forward.graph.nodes if n.op == "placeholder"][1:]
        outer = [*zip(fresh, self.step.primals), *zip(twins[len(self.crossing) :], self.step.tangents)]
        constants = {n.target: n for n in self.step.storage if n.op == "get_attr"}
        for node in (*self.new.forward.graph.nodes, *self.new.backward.graph.nodes):
            if node.op == "get_attr" and node.target in constants:
                outer.append((node, constants[node.target]))
        for node in (*fresh, *twins):
            if node.target != node.name:
                raise RewriteError(
                    f"the input {node.name} is read under the name {node.target}, which may be another's"
                )
        for node, original in outer:
            self.geometry[node] = _blank(_recorded(original))
            storage = self.step.storage.get(original)
            if storage is not None and storage not in self.new.parameters:  # that input is empty
                self.bytes_of[node] = storage

    def _visit(self, node: Node) -> None:
        if node in self.new.origin:
            self._operator(node, self.new.origin[node])
        elif node.target in (
            self.ops.observe,
            self.ops.fetch_state,
            self.ops.write_state,
            self.ops.drop_state,
        ):
            return
        elif node.target is self.ops.update_state:
            self._update(node)
        elif node.target in vars(self.ops).values():
            self._transfer(node)
        else:  # a view or a part of a result: the bytes of its base
            self.geometry[node] = self._replay(node)
            base = next((a for a in node.all_input_nodes if self._label(a) is not None), None)
            if base is not None and node not in self.bytes_of:
                self.bytes_of[node] = self._label(base)  # type: ignore[assignment]

    def _update(self, node: Node) -> None:
        """A parameter changes: its gradient is whole, and no operator reads it from here on."""
        gradient: Any = node.args[2]
        for place in self.new.updated - self.updates:
            wanted: Any = self.step.backward_outputs[place]
            if self.step.storage[wanted] == self._label(gradient):
                self._match("an update", gradient, wanted)
                self.changed.add(self.step.storage[self.step.primals[place]])
                self.updates.add(place)
                return
        raise RewriteError(
            f"{node.name} updates a parameter with {gradient.name}, which is no gradient of one"
        )

    def _label(self, node: Node) -> int | None:
        return self.bytes_of.get(self.twin.get(node, node))

    def _replay(self, node: Node) -> Any:
        """What a view makes of its base, computed on tensors without bytes."""
        args = map_nodes(node.args, self._shape)
        kwargs = map_nodes(node.kwargs, self._shape)
        try:
            with torch.no_grad():
                return node.target(*args, **kwargs)  # type: ignore[operator]
        except (RuntimeError, IndexError, TypeError) as error:
            raise RewriteError(f"{node.name} cannot be replayed: {error}") from error

    def _shape(self, node: Node) -> Any:
        return self.geometry.get(self.twin.get(node, node))

    def _operator(self, node: Node, original: Node) -> None:
        op, again = self.op_of[original], original in self.seen
        if again and (op.random or op.effect):
            raise RewriteError(
                f"{node.name} runs twice, and it may not: it draws random numbers or has an effect"
            )
        given, wanted = node.all_input_nodes, original.all_input_nodes
        if len(given) != len(wanted):
            raise RewriteError(f"{node.name} takes {len(given)} values, the original {len(wanted)}")
        if node.target is not original.target or _constants(node) != _constants(original):
            raise RewriteError(f"{node.name} is not the operator that {original.name} was")
        for mine, theirs in zip(given, wanted):
            self._match(node.name, mine, theirs)
            if self.step.storage.get(theirs, -1) in self.changed:
                raise RewriteError(f"{node.name} reads {theirs.name} after its update")
        stale = self._stale(node, original, op) if again else False
        if not again:
            self.ran.append(original)
            self.seen[original] = self._versions(original)
            self._change(op)
        self.geometry[node] = _blank(_recorded(original))
        self._label_outputs(node, original, stale)

    def _versions(self, original: Node) -> tuple[int, ...]:
        """How often what the operator reads has been changed, input by input."""
        return tuple(self.version.get(self.step.storage.get(n, -1), 0) for n in original.all_input_nodes)

    def _change(self, op: Op) -> None:
        for storage in op.mutates:
            self.version[storage] = self.version.get(storage, 0) + 1

    def _stale(self, node: Node, original: Node, op: Op) -> bool:
        """Whether a repeat reads another version of something than the first run, which only statistics may be."""
        pairs = zip(original.all_input_nodes, self._versions(original), self.seen[original])
        changed = [source for source, now, then in pairs if now != then]
        for source in changed:
            if self.step.storage[source] not in op.any_version:
                raise RewriteError(f"{node.name} runs again after {source.name}, which it reads, was changed")
        return bool(changed)

    def _match(self, reader: str, mine: Node, theirs: Node) -> None:
        """`mine` holds the bytes of `theirs` and has its geometry."""
        if theirs in self.step.storage and self._label(mine) != self.step.storage[theirs]:
            raise RewriteError(
                f"{reader} reads storage {self._label(mine)} where the original reads {self.step.storage[theirs]}"
            )
        if not _same_geometry(self._shape(mine), _recorded(theirs)):
            raise RewriteError(
                f"{reader} reads {mine.name} in another shape than the original reads {theirs.name}"
            )

    def _results(self, graph: torch.fx.Graph, wanted: Sequence[object]) -> None:
        given = next(n for n in graph.nodes if n.op == "output").args[0]
        if len(given) < len(wanted):
            raise RewriteError(f"{len(given)} results are handed out where the original has {len(wanted)}")
        for mine, theirs in zip(given, wanted):
            if isinstance(mine, Node) and isinstance(theirs, Node):
                self._match("the caller", mine, theirs)
            elif mine is not theirs:
                raise RewriteError(f"the caller gets {mine} where the original hands out {theirs}")

    def _label_outputs(self, node: Node, original: Node, stale: bool) -> None:
        """A repeat that saw other statistics makes other statistics: of its results the first three count."""
        if original in self.step.storage:
            self.bytes_of[node] = self.step.storage[original]
        for part in original.users:
            for mine in node.users:
                same = part.target is mine.target is operator.getitem and part.args[1] == mine.args[1]
                lost = stale and part.args[1] in (3, 4, 5)
                if part in self.step.storage and same and not lost:
                    self.bytes_of[mine] = self.step.storage[part]

    def _transfer(self, node: Node) -> None:
        name = next(k for k, v in vars(self.ops).items() if v is node.target)
        slot = next(a for a in node.args[1:] if isinstance(a, int))
        state = self.slots.get(slot, "")
        order = {  # what may have been done to the storage just before
            "swap_out": ("", "encoded", "decoded"),
            "settle": ("swap_out",),
            "fetch": ("settle", "done"),
            "wait": ("fetch",),
            "encode": ("", "done", "decoded"),
            "decode": ("encoded", "arrived", "decoded"),
        }[name]
        if state == "decoded" and slot in self.in_tier:
            order = (*order, "decoded")  # as it was written before it was encoded
        if state not in order:
            raise RewriteError(f"{node.name}: {name} of storage {slot} follows {state or 'nothing'!r}")
        tensor = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], Node) else None
        if tensor is not None:
            if self._label(tensor) != slot:
                raise RewriteError(f"{node.name} sends storage {self._label(tensor)} away in place of {slot}")
            self.held[slot] = slot
            if name == "swap_out":
                self.in_tier.add(slot)
        if name == "wait":
            encoded = node.args[2] is None
            self.slots[slot] = "arrived" if encoded else "done"
            if not encoded:
                self._flat(node, slot, node.args[2])
        elif name == "decode":
            self.slots[slot] = "decoded"
            self._flat(node, slot, node.args[2])
        else:
            self.slots[slot] = "encoded" if name == "encode" else name

    def _flat(self, node: Node, slot: int, dtype: Any) -> None:
        """A restored storage: one dense run of its bytes."""
        self.bytes_of[node] = self.held[slot]
        count = self.step.graph.storages[slot].nbytes // dtype.itemsize
        self.geometry[node] = torch.empty(count, dtype=dtype, device="meta")


def _recorded(node: Node) -> Any:
    return node.meta.get("val", node.meta.get("example_value"))


def _constants(node: Node) -> Any:
    """The arguments with every node blanked."""
    return map_nodes((node.args, node.kwargs), lambda _: None)


def _blank(value: Any) -> Any:
    """The recorded value's geometry on the meta device; numbers as they are."""
    if isinstance(value, torch.Tensor):
        span = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride())) if value.numel() else 0
        base = torch.empty(value.storage_offset() + span, dtype=value.dtype, device="meta")
        view = base.as_strided(value.shape, value.stride(), value.storage_offset())
        view = torch._conj(view) if value.is_conj() else view
        return torch._neg_view(view) if value.is_neg() else view
    if isinstance(value, (list, tuple)):
        return [_blank(item) for item in value]
    return value


def _same_geometry(mine: Any, theirs: Any) -> bool:
    if not isinstance(theirs, torch.Tensor):
        return True
    return isinstance(mine, torch.Tensor) and _facts(mine) == _facts(theirs)


def _facts(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What decides which bytes a tensor reads, and as what. Nobody takes a second step along a dimension of one
    element, and torch's own operators do not agree on the stride that such a dimension has."""
    strides = [s for n, s in zip(tensor.shape, tensor.stride()) if n != 1] if tensor.numel() else []
    bits = tensor.is_conj(), tensor.is_neg()
    return tensor.shape, strides, tensor.storage_offset(), tensor.dtype, bits
