"""The step as a data-flow graph (N, E): nodes (f, I, O) and hyperedges (s, H).  (Method 2, claims 6 to 9.)

A node is an `Op`: f is `target`, I is `reads`, O is `writes`. A hyperedge is a `Storage`: s is its producer's
output and H its `uses`, so a storage with many uses is one hyperedge. The unit is the storage, not the tensor:
views cost nothing, have no node, and count as uses of their storage where an operator reads them.

Ops stand in the order in which they run: forward, one `outside` op for what happens between forward and backward
(the loss, when it is not part of the module), backward, and the optimizer's updates: one `update` op, and one more for
each parameter whose state may rest on a tier. A position is an index into `ops`.

Steps follow each other, so the order is a ring: what is alive at a step's end is alive at the next one's start. The
place between the two is the *turn*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..files import shown
from .ranges import Count, Index, MaybeIndex

Phase = Literal["forward", "outside", "backward", "update"]
Kind = Literal["resident", "state", "parameter", "activation", "output", "gradient"]


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operator of the step.

    Attributes:
        index: its position.
        name: unique and readable (`convolution_12`).
        target: the operator (`aten.convolution.default`), or `outside` / `update`.
        phase: where it runs.
        reads: storages it reads, each once, in order of first appearance.
        writes: storages it creates.
        mutates: storages that it changes in place (they are in `reads` too). The `outside` op changes the inputs and
            buffers that the forward updates, which torch writes when the forward has ended.
        any_version: storages that it reads and whose values do not matter to the results that a rerun keeps: running
            statistics in training.
        signature: operators with equal signatures cost the same (target, shapes, strides, dtypes, constants).
        flops: floating-point operations, 0 where they do not matter.
        random: it draws from a generator, so it may not run twice.
        effect: it does something besides its outputs (mutation, collective), so it may not run twice.
        checkpoint: it heads a unit (method 4): convolution, matrix product, attention.
    """

    index: Index
    name: str
    target: str
    phase: Phase
    reads: tuple[Index, ...]
    writes: tuple[Index, ...]
    mutates: tuple[Index, ...] = ()
    any_version: tuple[Index, ...] = ()
    signature: str = ""
    flops: Count = 0
    random: bool = False
    effect: bool = False
    checkpoint: bool = False


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Bytes that several tensors may view: one hyperedge.

    Attributes:
        index: its number.
        name: unique and readable, the name of the op that makes it.
        nbytes: its size.
        kind: `resident` lives for the whole step (parameters, buffers, inputs: never acted on); so does `state`, what an
            optimizer keeps of a parameter, but that may rest on a tier over the turn, and `parameter`, one that nobody
            trains, which may rest there between any two of its uses; `output` is handed to the caller and lives from
            its producer to the end of the step; `gradient` is handed to autograd and lives from its producer to the
            end; `activation` is everything else.
        producer: position of the op that creates it, -1 for what is there from the start.
        uses: positions of the ops that read it, ascending.
        dtype: of the tensor that created it (`float32`).
        zeros: it comes out of a ReLU or a dropout, so a zero-removing codec is worth trying.
        mask_from: position from which on only the sign pattern is read (a ReLU's backward), -1 if never.
        held: somebody outside the graph holds it too, so no action frees it.
        held_until: position of the touch up to which somebody outside holds it, so that no action frees it before; -1
            where nobody does.
    """

    index: Index
    name: str
    nbytes: Count
    kind: Kind
    producer: MaybeIndex
    uses: tuple[Index, ...]
    dtype: str = "float32"
    zeros: bool = False
    mask_from: MaybeIndex = -1
    held: bool = False
    held_until: MaybeIndex = -1

    @property
    def lasts(self) -> bool:
        """Whether it is there from one step to the next."""
        return self.kind in ("resident", "state", "parameter")


@dataclass(frozen=True, kw_only=True)
class StepGraph:
    """Ops in order and the storages they pass on.

    Attributes:
        ops: the nodes; `ops[i].index == i`.
        storages: the hyperedges; `storages[s].index == s`.
        extra_resident_bytes: resident bytes that no op touches (optimizer state, unused parameters).
        name: of the step, for people.
    """

    ops: tuple[Op, ...]
    storages: tuple[Storage, ...]
    extra_resident_bytes: Count = 0
    name: str = "step"

    def misfit(self) -> str:
        """How ops and storages do not describe one step; empty where they do."""
        if wrong := [i for i, op in enumerate(self.ops) if op.index != i]:
            return f"ops[{wrong[0]}] has the index {self.ops[wrong[0]].index}"
        if wrong := [i for i, s in enumerate(self.storages) if s.index != i]:
            return f"storages[{wrong[0]}] has the index {self.storages[wrong[0]].index}"
        uses: list[list[int]] = [[] for _ in self.storages]
        producer = [-1] * len(self.storages)
        for op in self.ops:
            touched = (*op.reads, *op.writes, *op.mutates)
            if max(touched, default=-1) >= len(self.storages):
                return f"{shown(op.name)} touches storage {max(touched)} of {len(self.storages)}"
            if len({*op.reads}) != len(op.reads) or not {*op.mutates} <= {*op.reads}:
                return f"{shown(op.name)} reads a storage twice, or changes one that it does not read"
            for storage in op.reads:
                uses[storage].append(op.index)
            for storage in op.writes:
                if producer[storage] >= 0:
                    return f"storage {storage} is made twice"
                producer[storage] = op.index
        for s in self.storages:
            if s.producer != producer[s.index] or s.lasts != (s.producer < 0):
                return f"storage {s.index} ({s.kind}) is said to come from op {s.producer}"
            if list(s.uses) != uses[s.index]:
                return f"storage {s.index} is said to be read by other ops than read it"
        return ""

    @property
    def resident_bytes(self) -> int:
        """Bytes alive for the whole unplanned step."""
        return self.extra_resident_bytes + sum(s.nbytes for s in self.storages if s.lasts)

    def death(self, storage: Storage) -> int:
        """The last position at which the unplanned step holds the storage.

        Args:
            storage: one of the graph's.

        Returns:
            a position.
        """
        if storage.kind != "activation":
            return len(self.ops) - 1
        return max(storage.uses, default=storage.producer)

    def plain_residency(self, workspace: tuple[int, ...] | None = None) -> list[int]:
        """Bytes alive while each op runs in the unplanned step, `workspace[i]` of op i included.

        Args:
            workspace: temporary bytes by position; None counts none.

        Returns:
            bytes by position.
        """
        change = [0] * (len(self.ops) + 1)
        for storage in self.storages:
            if not storage.lasts:
                change[storage.producer] += storage.nbytes
                change[self.death(storage) + 1] -= storage.nbytes
        alive, curve = self.resident_bytes, []
        for position in range(len(self.ops)):
            alive += change[position]
            curve.append(alive + (workspace[position] if workspace else 0))
        return curve

    def candidates(self) -> Iterator[Storage]:
        """The storages that a plan may act on."""
        return (s for s in self.storages if s.kind == "activation" and s.nbytes > 0 and not s.held)
