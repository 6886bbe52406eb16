"""From an observation to a `StepGraph` and what its ops cost.

Ops of the forward are operators. Those of the backward are nodes of autograd's graph, from one that reads what was saved
to the next, since only there can a plan act. A storage that autograd saved is held by the user's code up to a last touch
(`Storage.held_until`); where no operator reads it then, a pseudo-op `release` does. What autograd did not save goes when
the user's code lets go of it, and no plan acts on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..fx import format_target
from ..fx.operators import CHECKPOINTS, is_named
from ..values import Op, OpCost, StepGraph, Storage
from .ledger import Entry
from .record import Forward, Node, Observation

__all__ = ["Observed", "build_observed"]

#: Storages smaller than this get no op of their own for the moment when the user's code lets go of them.
SMALL = 64 * 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """A step that was observed, ready to be planned and replayed.

    Attributes:
        graph: ops and storages.
        costs: of each op.
        boundary: position of the `outside` op.
        forward: the operators as they ran, views among them.
        position: of each of them in the graph; of a view, that of the next op.
        saved: slot of each tensor that autograd saved, -1 where it is nobody's business.
        saved_at: place of the operator that had run last when each of them was saved.
        renewed: slots that were saved, changed in place and saved again, so that no plan acts on them.
        rewriting: places of operators that write what autograd has saved, without its version telling of it.
        storage: slot → storage of the graph.
        nbytes: of each slot.
        lasting: slots of what is alive in the backward though it is not among the saved tensors that a plan acts on.
        unpacked: position of each op of the backward that reads saved tensors, with their numbers.
        densities: storage → share of elements that are not zero.
        kept: autograd kept what was saved for another backward (`retain_graph=True`).
        leaves: gradients that the backward makes, for leaves that had none.
        device: the step's.
    """

    graph: StepGraph
    costs: tuple[OpCost, ...]
    boundary: int
    forward: tuple[Forward, ...]
    position: tuple[int, ...]
    saved: tuple[int, ...]
    saved_at: tuple[int, ...]
    renewed: frozenset[int]
    rewriting: frozenset[int]
    storage: dict[int, int]
    nbytes: tuple[int, ...]
    lasting: frozenset[int]
    unpacked: tuple[tuple[int, tuple[int, ...]], ...]
    densities: dict[int, float] = field(default_factory=dict)
    kept: bool = False
    leaves: int = 0
    device: torch.device

    def is_same(self, other: Observed) -> bool:
        """Whether both took one path. Their sizes may differ."""
        return (
            len(self.saved) == len(other.saved)
            and self.leaves == other.leaves
            and all(a == b or min(a, b) < 0 for a, b in zip(self.saved, other.saved))
            and self.unpacked_numbers == other.unpacked_numbers
            and len(self.forward) == len(other.forward)
            and all(
                a.target is b.target and a.inputs == b.inputs and a.made == b.made
                for a, b in zip(self.forward, other.forward)
            )
        )

    @property
    def unpacked_numbers(self) -> tuple[int, ...]:
        """The saved tensors that the backward reads, in order."""
        return tuple(n for _, numbers in self.unpacked for n in numbers)

    def joined(self, other: Observed) -> Observed:
        """The same path, seen twice: the larger sizes count, and the lower costs where the sizes are equal, since what a
        first step takes once is no part of the later ones."""
        if self.kept != other.kept:
            return replace(self, kept=True).joined(replace(other, kept=True))
        if self.nbytes == other.nbytes:
            return self.with_costs_of(other) if len(self.costs) == len(other.costs) else other
        one, two = (self, other) if sum(self.nbytes) > sum(other.nbytes) else (other, self)
        return one.with_sizes({s: n for s, n in enumerate(two.nbytes) if s < len(one.nbytes)})

    def with_sizes(self, nbytes: dict[int, int]) -> Observed:
        """With so many bytes in these slots, where they have fewer."""
        more = {s: n for s, n in nbytes.items() if n > self.nbytes[s]}
        if not more:
            return self
        storages = list(self.graph.storages)
        for slot, size in more.items():
            if (index := self.storage.get(slot)) is not None and storages[index].kind != "resident":
                storages[index] = replace(storages[index], nbytes=size)
        sizes = tuple(more.get(s, n) for s, n in enumerate(self.nbytes))
        return replace(self, nbytes=sizes, graph=replace(self.graph, storages=tuple(storages)))

    def with_costs_of(self, other: Observed) -> Observed:
        """With the lower cost of each op."""
        costs = (
            OpCost(
                seconds=min(a.seconds, b.seconds), workspace_bytes=min(a.workspace_bytes, b.workspace_bytes)
            )
            for a, b in zip(self.costs, other.costs)
        )
        return replace(self, costs=tuple(costs))


def build_observed(seen: Observation) -> Observed:
    """Read an observation as a step."""
    return _Builder(seen).build()


def _beside_gradients(nodes: Sequence[Node]) -> int:
    """The most that the nodes of one op take beside the gradients that they leave, which count from its beginning."""
    most = made = 0
    for node in nodes:
        made += node.gradients
        most = max(most, node.workspace + made)
    return max(0, most - made)


class _Builder:
    def __init__(self, seen: Observation) -> None:
        self.seen, self.entries = seen, seen.ledger.entries
        self.ops: list[dict[str, Any]] = []
        self.costs: list[OpCost] = []
        self.storages: list[dict[str, Any]] = []
        self.uses: dict[int, list[int]] = defaultdict(list)
        self.held: dict[int, int] = {}  #: slot → storage
        self.seconds: dict[str, float] = {}
        self.workspace: dict[str, int] = {}
        for op in seen.forward:
            self.seconds[op.signature] = min(op.seconds, self.seconds.get(op.signature, op.seconds))
            self.workspace[op.signature] = min(op.workspace, self.workspace.get(op.signature, op.workspace))
        self.dying: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.born >= 0 and entry.died >= 0:
                self.dying[entry.died].append(entry)

    def build(self) -> Observed:
        for entry in self.entries:
            if entry.born < 0:
                self.held[entry.slot] = self._storage(entry, "resident", -1, entry.nbytes if entry.own else 0)
        position = []
        for place, op in enumerate(self.seen.forward):
            position.append(len(self.ops))
            self._operator(op, place)
            self._release(place)
        boundary = self._outside()
        unpacked = self._backward()
        self._op("update", "update", "update", reads=self._unread(boundary), effect=True)
        storages = (Storage(**s, uses=tuple(self.uses[s["index"]])) for s in self.storages)
        graph = StepGraph(ops=tuple(Op(**op) for op in self.ops), storages=tuple(storages))
        return Observed(
            graph=graph,
            costs=tuple(self.costs),
            boundary=boundary,
            forward=tuple(self.seen.forward),
            position=tuple(position),
            saved=tuple(self.seen.saved),
            saved_at=tuple(self.seen.saved_at),
            renewed=self.seen.renewed,
            rewriting=self.seen.rewriting,
            storage=self.held,
            nbytes=tuple(e.nbytes for e in self.entries),
            lasting=frozenset(
                e.slot
                for e in self.entries
                if e.born >= 0 and not e.saved and (e.died < 0 or e.died >= self.seen.boundary)
            ),
            unpacked=tuple(unpacked),
            densities={self.held[s]: d for s, d in self.seen.densities.items() if s in self.held},
            kept=self.seen.kept,
            leaves=sum(node.gradients > 0 for node in self.seen.backward),
            device=self.seen.device,
        )

    def _operator(self, op: Forward, place: int) -> None:
        if not op.made and not op.changed and any(s >= 0 for s in op.outputs):
            return  # a view
        position = len(self.ops)
        for slot in op.made:
            entry = self.entries[slot]
            kind = "activation" if entry.died >= 0 else "output"
            self.held[slot] = self._storage(entry, kind, position, entry.nbytes, held=True)
        self._op(
            op.name,
            format_target(op.target),
            "forward",
            reads=[self.held[s] for s in op.inputs if s >= 0 and s in self.held],
            writes=[self.held[s] for s in op.made],
            mutates=[self.held[s] for s in op.changed if s in self.held],
            any_version=[self.held[s] for s in op.stale if s in self.held],
            signature=op.signature,
            flops=op.flops,
            random=op.random,
            effect=op.effect,
            checkpoint=is_named(op.target, CHECKPOINTS),
            seconds=self.seconds[op.signature],
            workspace=self.workspace[op.signature] + op.other,
        )

    def _release(self, place: int) -> None:
        """What the user's code lets go of after this operator."""
        released = []
        for entry in self.dying.get(place, ()):
            if (index := self.held.get(entry.slot)) is None:
                continue
            late = not self.uses[index] or self.uses[index][-1] < len(self.ops) - 1
            if entry.saved and entry.nbytes and not self._changes(entry):
                made_now = self.storages[index]["producer"] == len(self.ops) - 1
                self.storages[index] |= {"held": False, "held_until": len(self.ops) - 1}
                if late and not made_now:
                    self.storages[index]["held_until"] = len(self.ops)
                    released.append(index)
            elif entry.nbytes >= SMALL and late:
                released.append(index)
        if released:
            self._op(f"release_{place}", "release", "forward", reads=released, effect=True)

    def _unread(self, boundary: int) -> list[int]:
        """What was saved for results that no loss uses, and perhaps for others as well: it stays on the device as long as
        autograd has it, whatever reads it before. That ends with the forward's results, or not within the step: the
        storages that last so long."""
        first = self.seen.boundary + 1
        read = {n: first + place for place, node in enumerate(self.seen.backward) for n in node.unpacked}
        lasting = []
        for entry in self.entries:
            index = self.held.get(entry.slot)
            if index is None or entry.born < 0 or all(n in read for n in entry.saved):
                continue
            places = [read[n] for n in entry.saved if n in read]
            if 0 <= entry.let_go <= (max(places) + 1 if places else self.seen.boundary - 1):
                continue  # gone when all that reads it had run
            self.storages[index] |= {"held": True, "held_until": -1}
            if entry.let_go == self.seen.boundary:
                op = self.ops[boundary]
                if index not in op["reads"]:
                    op["reads"] = (*op["reads"], index)
                    self.uses[index] = sorted({*self.uses[index], boundary})
            else:
                lasting.append(index)
        return lasting

    def _changes(self, entry: Entry) -> bool:
        """Whether a saved storage was changed afterwards."""
        return entry.slot in self.seen.renewed or any(c > entry.saved_at[0] for c in entry.changed)

    def _outside(self) -> int:
        boundary = self.seen.boundary
        first = next((i for i, n in enumerate(self.seen.backward) if n.unpacked), len(self.seen.backward))
        leading = self.seen.backward[:first]
        reads = [
            self.held[e.slot]
            for place in range(boundary, boundary + first + 1)
            for e in self.dying.get(place, ())
            if e.slot in self.held
        ]
        position = len(self.ops)
        made = self._gradients(leading, position)
        self._op(
            "outside",
            "outside",
            "outside",
            reads=reads,
            writes=made,
            effect=True,
            seconds=self.seen.outside_seconds + sum(n.seconds for n in leading),
            workspace=max(self.seen.outside, _beside_gradients(leading)),
        )
        return position

    def _gradients(self, nodes: list[Node], position: int) -> list[int]:
        nbytes = sum(n.gradients for n in nodes)
        if not nbytes:
            return []
        entry = Entry(slot=-1, name=f"gradients_{position}", nbytes=nbytes, dtype="uint8", born=position)
        return [self._storage(entry, "gradient", position, nbytes)]

    def _backward(self) -> list[tuple[int, tuple[int, ...]]]:
        groups: list[list[tuple[int, Node]]] = []
        for place, node in enumerate(self.seen.backward):
            if node.unpacked:
                groups.append([(place, node)])
            elif groups:
                groups[-1].append((place, node))
        unpacked = []
        fastest: dict[str, float] = {}
        for node in self.seen.backward:
            key = self._node_key(node)
            fastest[key] = min(node.seconds, fastest.get(key, node.seconds))
        for group in groups:
            position = len(self.ops)
            numbers = tuple(group[0][1].unpacked) + tuple(n for _, node in group[1:] for n in node.unpacked)
            slots = [self.seen.saved[n] for n in numbers if self.seen.saved[n] >= 0]
            reads = [self.held[s] for s in slots if s in self.held]
            for place, _ in group:
                dying = self.dying.get(self.seen.boundary + 1 + place, ())
                reads += [self.held[e.slot] for e in dying if e.slot in self.held]
            nodes = [node for _, node in group]
            made = self._gradients(nodes, position)
            self._op(
                f"{nodes[0].name}_{position}",
                nodes[0].name,
                "backward",
                reads=reads,
                writes=made,
                signature=self._node_key(nodes[0]),
                effect=True,
                seconds=sum(fastest[self._node_key(n)] for n in nodes),
                workspace=_beside_gradients(nodes),
            )
            unpacked.append((position, numbers))
        return unpacked

    def _node_key(self, node: Node) -> str:
        slots = (self.seen.saved[n] for n in node.unpacked)
        return f"{node.name}({', '.join(str(self.entries[s].nbytes) for s in slots if s >= 0)})"

    def _storage(self, entry: Entry, kind: str, producer: int, nbytes: int, *, held: bool = False) -> int:
        index = len(self.storages)
        self.storages.append(
            {
                "index": index,
                "name": entry.name,
                "nbytes": nbytes,
                "kind": kind,
                "producer": producer,
                "dtype": entry.dtype,
                "zeros": entry.zeros,
                "held": held,
            }
        )
        return index

    def _op(
        self,
        name: str,
        target: str,
        phase: str,
        *,
        reads: list[int] | None = None,
        writes: list[int] | None = None,
        seconds: float = 0.0,
        workspace: int = 0,
        **more: Any,
    ) -> None:
        position = len(self.ops)
        unique = tuple(dict.fromkeys(reads or ()))
        for index in unique:
            self.uses[index].append(position)
        for key in ("mutates", "any_version"):
            more[key] = tuple(s for s in dict.fromkeys(more.get(key, ())) if s in unique)
        self.ops.append(
            {
                "index": position,
                "name": name,
                "target": target,
                "phase": phase,
                "reads": unique,
                "writes": tuple(writes or ()),
                **more,
            }
        )
        self.costs.append(OpCost(seconds=seconds, workspace_bytes=workspace))
