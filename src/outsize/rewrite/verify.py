"""Check a rewritten step against the captured one, without the builder's bookkeeping.

Every node of the new graphs is labelled with the storage whose bytes it holds, from the graphs alone: a placeholder
by its name, an operator by its original, a transfer by what was handed to it. Then: every original operator runs
exactly once and in the original order (repeats come after, with the same arguments); every argument holds the bytes
and has the geometry that the original had; nothing random or with an effect runs twice; a transfer is settled before
it is fetched and waited for before it is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..errors import RewriteError
from ..fx import CapturedStep, RewrittenStep, RuntimeOps, tensor_leaves


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
        self.slots: dict[int, str] = {}
        self.held: dict[int, int] = {}
        self.ran: list[Node] = []

    def run(self) -> None:
        self._inputs()
        for node in (*self.new.forward.graph.nodes, *self.new.backward.graph.nodes):
            if node.op == "call_function":
                self._visit(node)
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
        for node, original in outer:
            if original in self.step.storage:
                self.bytes_of[node] = self.step.storage[original]
        constants = {n.target: s for n, s in self.step.storage.items() if n.op == "get_attr"}
        for node in (*self.new.forward.graph.nodes, *self.new.backward.graph.nodes):
            if node.op == "get_attr" and node.target in constants:
                self.bytes_of[node] = constants[node.target]

    def _visit(self, node: Node) -> None:
        if node in self.new.origin:
            self._operator(node, self.new.origin[node])
        elif node.target is self.ops.observe:
            return
        elif node.target in vars(self.ops).values():
            self._transfer(node)
        else:  # a view or a part of a result: the bytes of its base
            base = next((a for a in node.all_input_nodes if self._label(a) is not None), None)
            if base is not None and node not in self.bytes_of:
                self.bytes_of[node] = self._label(base)  # type: ignore[assignment]

    def _label(self, node: Node) -> int | None:
        return self.bytes_of.get(self.twin.get(node, node))

    def _operator(self, node: Node, original: Node) -> None:
        again = original in self.ran
        op = (
            next((o for o, n in zip(self.step.graph.ops, self.step.nodes) if n is original), None)
            if again
            else None
        )
        if op is not None and (op.random or op.effect):
            raise RewriteError(
                f"{node.name} runs twice, and it may not: it draws random numbers or has an effect"
            )
        if not again:
            self.ran.append(original)
        given, wanted = node.all_input_nodes, original.all_input_nodes
        if len(given) != len(wanted):
            raise RewriteError(f"{node.name} takes {len(given)} values, the original {len(wanted)}")
        for mine, theirs in zip(given, wanted):
            if theirs in self.step.storage and self._label(mine) != self.step.storage[theirs]:
                raise RewriteError(
                    f"{node.name} reads storage {self._label(mine)} where the original reads {self.step.storage[theirs]}"
                )
            if not _same_shape(mine.meta.get("val"), theirs.meta.get("val")):
                raise RewriteError(
                    f"{node.name} reads {mine.name} in another shape than the original reads {theirs.name}"
                )
        self._label_outputs(node, original)

    def _label_outputs(self, node: Node, original: Node) -> None:
        if original in self.step.storage:
            self.bytes_of[node] = self.step.storage[original]
        for part in original.users:
            for mine in node.users:
                same = str(part.target) == str(mine.target) and part.args[1:] == mine.args[1:]
                if part in self.step.storage and "getitem" in str(part.target) and same:
                    self.bytes_of[mine] = self.step.storage[part]

    def _transfer(self, node: Node) -> None:
        name = next(k for k, v in vars(self.ops).items() if v is node.target)
        slot = next(a for a in node.args[1:] if isinstance(a, int))
        state = self.slots.get(slot, "")
        order = {
            "swap_out": ("", "encoded", "decoded"),
            "settle": ("swap_out",),
            "fetch": ("settle", "done"),
            "wait": ("fetch",),
            "encode": ("", "done"),
            "decode": ("encoded", "arrived", "decoded"),
        }[name]
        if state not in order:
            raise RewriteError(f"{node.name}: {name} of storage {slot} follows {state or 'nothing'!r}")
        tensor = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], Node) else None
        if tensor is not None:
            if self._label(tensor) != slot:
                raise RewriteError(f"{node.name} sends storage {self._label(tensor)} away in place of {slot}")
            self.held[slot] = slot
        if name == "wait":
            encoded = node.args[2] is None
            self.slots[slot] = "arrived" if encoded else "done"
            if not encoded:
                self.bytes_of[node] = self.held[slot]
        elif name == "decode":
            self.slots[slot] = "decoded"
            self.bytes_of[node] = self.held[slot]
        else:
            self.slots[slot] = "encoded" if name == "encode" else name


def _same_shape(mine: Any, theirs: Any) -> bool:
    a, b = tensor_leaves(mine), tensor_leaves(theirs)
    if isinstance(theirs, torch.Tensor):
        return (
            len(a) == 1
            and a[0].shape == b[0].shape
            and a[0].stride() == b[0].stride()
            and a[0].dtype == b[0].dtype
        )
    return True
