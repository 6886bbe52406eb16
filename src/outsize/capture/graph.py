"""From the joint ATen graph to the `StepGraph`: which node is an op, which a view, and which bytes each touches.

Views alias their base: two nodes whose recorded (fake) tensors share a storage touch the same bytes, so the
storage is the unit and a view is no op. The order is the order of tracing: forward first, then backward as
autograd ran it. A node belongs to the backward when it stands after everything that the forward's outputs need,
or when it depends on an incoming gradient.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..device.place import device_of
from ..errors import CaptureError
from ..fx import CapturedStep, format_target, node_inputs, tensor_leaves
from ..fx.flops import count_flops
from ..fx.operators import CHECKPOINTS, ZEROS, draws, is_mutable, is_named, written
from ..values import Op, StepGraph, Storage
from .updates import any_version, keep_old_values


def build_step(
    module: GraphModule,
    *,
    num_primals: int,
    num_forward_outputs: int,
    updates: Mapping[int, Node] | None = None,
) -> CapturedStep:
    """Read the joint graph of one step.

    Args:
        module: joint graph: placeholders are `num_primals` inputs then the incoming gradients; outputs are
            `num_forward_outputs` results of the forward then one gradient (or None) per primal.
        updates: forward result → the primal that it is written to when the forward has ended.

    Raises:
        CaptureError: a tensor's size is unknown, or it is sparse or otherwise without a plain storage.
    """
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    outputs = tuple(next(n for n in module.graph.nodes if n.op == "output").args[0])
    primals, tangents = tuple(placeholders[:num_primals]), tuple(placeholders[num_primals:])
    forward_outputs, backward_outputs = outputs[:num_forward_outputs], outputs[num_forward_outputs:]
    forward, backward = _split(module, primals, tangents, forward_outputs)
    updated = tuple(dict.fromkeys((updates or {}).values()))
    forward = [*keep_old_values(module, updated, backward), *forward]
    device = device_of(leaf for node in primals for leaf in tensor_leaves(node.meta.get("val")))
    reader = _Reader(primals, tangents, device)
    reader.enter_inputs(n for n in module.graph.nodes if n.op == "get_attr")
    for node in forward:
        reader.read(node, "forward")
    boundary = reader.enter_outside(forward_outputs, updated)
    for node in backward:
        reader.read(node, "backward")
    reader.enter_update(backward_outputs)
    return CapturedStep(
        module=module,
        graph=reader.graph(forward_outputs, backward_outputs),
        nodes=tuple(reader.nodes),
        order=tuple(forward + backward),
        storage=reader.storage,
        primals=primals,
        tangents=tangents,
        forward_outputs=forward_outputs,
        backward_outputs=backward_outputs,
        boundary=boundary,
        updated=updated,
        device=device,
    )


def _split(
    module: GraphModule, primals: Sequence[Node], tangents: Sequence[Node], forward_outputs: Sequence[object]
) -> tuple[list[Node], list[Node]]:
    computing = [n for n in module.graph.nodes if n.op not in ("placeholder", "output", "get_attr")]
    place = {n: i for i, n in enumerate(computing)}
    late = set(tangents)
    for node in computing:
        if any(i in late for i in node_inputs(node)):
            late.add(node)
    needed = [n for n in forward_outputs if isinstance(n, Node) and n in place]
    last = max((place[n] for n in needed), default=-1)
    forward: list[Node] = []
    for node in computing:
        writes_input = _mutates(node) and node not in late and node.args and node.args[0] in set(primals)
        drawn = _draws(node) and not _traced_in_backward(node)
        if node not in late and (place[node] <= last or writes_input or drawn):
            forward.append(node)
    # A mutation of an input or a draw at the graph's end may need nodes that stand between: pull them forward too.
    wanted, front = [n for n in forward if _mutates(n) or _draws(n)], set(forward)
    while wanted:
        for source in node_inputs(wanted.pop()):
            if source in place and source not in front:
                front.add(source)
                wanted.append(source)
    return [n for n in computing if n in front], [n for n in computing if n not in front]


def _draws(node: Node) -> bool:
    return draws(node.target, node.args, node.kwargs)


def _traced_in_backward(node: Node) -> bool:
    return "backward" in node.meta.get("partitioner_tag", "")


def _mutates(node: Node) -> bool:
    return is_mutable(node.target)


class _Reader:
    """Builds ops and storages while it walks the nodes in the order in which they run."""

    def __init__(self, primals: Sequence[Node], tangents: Sequence[Node], device: torch.device) -> None:
        self.ops: list[dict[str, Any]] = []
        self.nodes: list[Node | None] = []
        self.storages: list[dict[str, Any]] = []
        self.storage: dict[Node, int] = {}
        self._known: dict[int, int] = {}
        self._whole: dict[int, int] = {}
        self._keep: list[Any] = []
        self._primals, self._tangents, self._device = primals, tangents, device
        self._place = ""

    def enter_inputs(self, constants: Any) -> None:
        for node in [*self._primals, *constants]:
            for leaf in tensor_leaves(node.meta.get("val", node.meta.get("example_value"))):
                self.storage[node] = self._touch(leaf, node.name, "resident", -1)[0]

    def read(self, node: Node, phase: str) -> None:
        value = node.meta.get("val")
        self._place = _place(node)
        if node.target is operator.getitem:
            if isinstance(value, torch.Tensor):
                self.storage[node] = self._known[_key(value)]
            return
        reads = list(dict.fromkeys(self.storage[i] for i in node_inputs(node) if i in self.storage))
        for source in node_inputs(node):  # a list of tensors handed on whole
            if source not in self.storage and source.target is not operator.getitem:
                reads += [self._known[_key(leaf)] for leaf in tensor_leaves(source.meta.get("val"))]
        position, writes = len(self.ops), []
        for index in reads:
            if not _reads_sign_only(node, index, self.storage):
                self._whole[index] = position
        for leaf in tensor_leaves(value):
            index, fresh = self._touch(
                leaf, node.name, "activation", position, zeros=is_named(node.target, ZEROS)
            )
            if fresh:
                writes.append(index)
        if isinstance(value, torch.Tensor):
            self.storage[node] = self._known[_key(value)]
        mutated = [self.storage[n] for n in _mutated_inputs(node) if n in self.storage]
        if not writes and not mutated and tensor_leaves(value):
            return  # a view
        self._append(node, phase, reads, writes, mutated)

    def enter_outside(self, forward_outputs: Sequence[object], updated: Sequence[Node]) -> int:
        position = len(self.ops)
        reads = [self.storage[n] for n in forward_outputs if isinstance(n, Node) and n in self.storage]
        writes = []
        for node in self._tangents:
            for leaf in tensor_leaves(node.meta["val"]):
                index, fresh = self._touch(leaf, node.name, "activation", position)
                self.storage[node] = index
                self.storages[index]["held"] = True
                writes += [index] if fresh else []
        changed = [self.storage[n] for n in updated if n in self.storage]
        self._pseudo("outside", [*reads, *changed], writes, changed)
        return position

    def enter_update(self, backward_outputs: Sequence[object]) -> None:
        reads = [self.storage[n] for n in backward_outputs if isinstance(n, Node) and n in self.storage]
        self._pseudo("update", reads, [], [])

    def graph(self, forward_outputs: Sequence[object], backward_outputs: Sequence[object]) -> StepGraph:
        for outputs, kind in ((backward_outputs, "gradient"), (forward_outputs, "output")):
            for node in outputs:
                if isinstance(node, Node) and node in self.storage:
                    storage = self.storages[self.storage[node]]
                    if storage["kind"] != "resident":
                        storage["kind"] = kind
        uses: list[list[int]] = [[] for _ in self.storages]
        for op in self.ops:
            for index in op["reads"]:
                uses[index].append(op["index"])
        return StepGraph(
            ops=tuple(Op(**op) for op in self.ops),
            storages=tuple(
                Storage(**s, uses=tuple(uses[s["index"]]), mask_from=self._mask_from(s["index"], uses))
                for s in self.storages
            ),
        )

    def _mask_from(self, index: int, uses: list[list[int]]) -> int:
        """The position from which on only the storage's sign pattern is read, or -1."""
        first = self._whole.get(index, self.storages[index]["producer"]) + 1
        return first if any(use >= first for use in uses[index]) else -1

    def _append(
        self, node: Node, phase: str, reads: list[int], writes: list[int], mutated: list[int]
    ) -> None:
        self.ops.append(
            {
                "index": len(self.ops),
                "name": node.name,
                "target": format_target(node.target),
                "phase": phase,
                "reads": tuple(dict.fromkeys(reads)),
                "writes": tuple(writes),
                "mutates": tuple(mutated),
                "any_version": tuple(self.storage[n] for n in any_version(node) if n in self.storage),
                "signature": signature(node),
                "flops": count_flops(node),
                "random": _draws(node),
                "effect": _mutates(node) or "c10d" in str(node.target),
                "checkpoint": is_named(node.target, CHECKPOINTS) and phase == "forward",
            }
        )
        self.nodes.append(node)

    def _pseudo(self, name: str, reads: list[int], writes: list[int], mutated: list[int]) -> None:
        self.ops.append(
            {
                "index": len(self.ops),
                "name": name,
                "target": name,
                "phase": name,
                "reads": tuple(dict.fromkeys(reads)),
                "writes": tuple(writes),
                "mutates": tuple(dict.fromkeys(mutated)),
                "signature": name,
                "effect": True,
            }
        )
        self.nodes.append(None)

    def _touch(
        self, leaf: torch.Tensor, name: str, kind: str, producer: int, *, zeros: bool = False
    ) -> tuple[int, bool]:
        if leaf.layout is not torch.strided:
            raise CaptureError(
                f"{name} is a {leaf.layout} tensor, which has no single storage to plan: use a dense one (sparse=False "
                f"for an embedding), or keep it outside the module{self._place}"
            )
        key = _key(leaf)
        if key in self._known:
            return self._known[key], False
        nbytes = _static(leaf.untyped_storage().nbytes())
        if nbytes is None:
            raise CaptureError(
                f"the size of {name} is not known before the step runs (data-dependent shape {tuple(leaf.shape)}); "
                "outsize plans bytes, so use a masked form of a fixed size (torch.where, masked_fill) there, or move it "
                f"out of forward(){self._place}"
            )
        index = len(self.storages)
        self._known[key] = index
        self._keep.append(leaf)
        suffix = f".{sum(s['producer'] == producer for s in self.storages[-8:])}" if producer >= 0 else ""
        self.storages.append(
            {
                "index": index,
                "name": name + (suffix if suffix not in ("", ".0") else ""),
                "nbytes": nbytes if leaf.device.type in (self._device.type, "meta") else 0,
                "kind": kind,
                "producer": producer,
                "dtype": str(leaf.dtype).removeprefix("torch."),
                "zeros": zeros,
            }
        )
        return index, True


def _place(node: Node) -> str:
    """Where in the user's code the node comes from, as a line to append; empty where torch recorded nothing."""
    frames = [
        f
        for f in (node.meta.get("stack_trace") or "").split('File "')[1:]
        if "/torch/" not in f.split('"')[0]
    ]
    return f'\nFile "{frames[-1].rstrip()}' if frames else ""


def _static(size: Any) -> int | None:
    """The number, also where torch keeps it as a symbol that another operator has since fixed; None if none has."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _key(leaf: torch.Tensor) -> int:
    return int(leaf.untyped_storage()._cdata)


def _reads_sign_only(node: Node, storage: int, known: dict[Node, int]) -> bool:
    """Whether the node needs of that storage only where it is above zero: a ReLU's backward does."""
    if node.target is not torch.ops.aten.threshold_backward.default or node.args[2] != 0:
        return False
    gradient, result = node.args[0], node.args[1]
    return known.get(result) == storage and known.get(gradient) != storage  # type: ignore[arg-type]


def _mutated_inputs(node: Node) -> list[Node]:
    return [n for n in written(node.target, node.args, node.kwargs) if isinstance(n, Node)]


def signature(node: Node) -> str:
    """Equal for operators that cost the same: target, argument shapes, strides and dtypes, constants."""

    def describe(argument: Any) -> str:
        if isinstance(argument, Node):
            leaves = tensor_leaves(argument.meta.get("val"))
            if isinstance(argument.meta.get("val"), torch.Tensor):
                leaf = leaves[0]
                return f"{str(leaf.dtype)[6:]}{tuple(leaf.shape)}{tuple(leaf.stride())}"
            return str(argument.meta.get("val"))
        if isinstance(argument, (list, tuple)):
            return "[" + ",".join(map(describe, argument)) + "]"
        return repr(argument)

    parts = [describe(a) for a in node.args] + [f"{k}={describe(v)}" for k, v in sorted(node.kwargs.items())]
    return f"{format_target(node.target)}({', '.join(parts)})"
