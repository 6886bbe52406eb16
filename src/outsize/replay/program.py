"""A schedule for an eager step: what to do before which operator of the forward and before which unpacking.

Nothing runs between the events of an eager step, so the entries of a schedule that stand between two ops of the graph are
done at the event before the second: an operator that is dispatched, or autograd asking for what it saved.
"""

from __future__ import annotations

import bisect
import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..values import Entry, Schedule, StepGraph
from ..values.actions import RESTORING

__all__ = ["Act", "Operator", "ReplayProgram", "Script", "build_program"]


class Operator(Protocol):
    """An operator of the forward, as it was observed."""

    @property
    def target(self) -> Any: ...
    @property
    def inputs(self) -> tuple[int, ...]: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def made(self) -> tuple[int, ...]: ...
    @property
    def stale(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Script:
    """What a step does, in the order in which it is noticed.

    Attributes:
        forward: its operators, views among them.
        saved: slot of each tensor that autograd saves, -1 where it is nobody's business.
        nbytes: of each slot.
        lasting: slots of what is alive in the backward, though it is not among what a plan acts on.
        saved_at: place of the operator that had run last when each of them was saved.
        renewed: slots that are saved, changed in place and saved again: no plan acts on them.
        rewriting: places of operators that write what was saved, without its version telling of it.
        unpacked: numbers of the saved tensors in the order in which the backward reads them.
    """

    forward: tuple[Operator, ...]
    saved: tuple[int, ...]
    saved_at: tuple[int, ...]
    renewed: frozenset[int]
    rewriting: frozenset[int]
    nbytes: tuple[int, ...]
    lasting: frozenset[int]
    unpacked: tuple[int, ...]


@dataclass(frozen=True)
class Act:
    """One entry of the schedule, by the slot of its storage or, for `clone`, the place of its operator."""

    kind: str
    slot: int
    tier: str = ""
    codec: str = ""
    nbytes: int = 0
    last: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayProgram:
    """What to do when.

    Attributes:
        script: the step that it is for.
        before: place of an operator → what is done before it runs.
        between: what is done when the forward has ended.
        unpacking: place in `script.unpacked` → what is done before that one is given back.
        recorded: places of the operators that run again.
        watched: places of those whose results they read.
        sources: slots that they read.
        acts: whether there is anything to do at all.
        targets: the operators.
        busy: places of those at which there is something to do.
        most: bytes of each saved tensor's storage, -1 where that is not looked at.
    """

    script: Script
    before: dict[int, tuple[Act, ...]]
    between: tuple[Act, ...]
    unpacking: dict[int, tuple[Act, ...]]
    recorded: frozenset[int]
    watched: frozenset[int]
    sources: frozenset[int]

    @functools.cached_property
    def acts(self) -> bool:
        """Whether the step differs from a plain one."""
        return bool(self.before or self.between or self.unpacking)

    @functools.cached_property
    def packing(self) -> dict[int, tuple[Act, ...]] | None:
        """Number of a saved tensor → what is done when it was saved, where no operator has to be seen: none runs again,
        so that what is due before one may be done at the latest saving before it. None where some have to be seen."""
        if self.recorded or self.script.rewriting or not self.script.saved_at:
            return None
        found: dict[int, tuple[Act, ...]] = {}
        for place, acts in self.before.items():
            number = max(0, bisect.bisect_left(self.script.saved_at, place) - 1)
            found[number] = (*found.get(number, ()), *acts)
        return found

    @functools.cached_property
    def targets(self) -> tuple[Any, ...]:
        return tuple(op.target for op in self.script.forward)

    @functools.cached_property
    def busy(self) -> frozenset[int]:
        return frozenset(self.before) | self.recorded | self.watched | self.script.rewriting

    @functools.cached_property
    def most(self) -> tuple[int, ...]:
        return tuple(self.script.nbytes[s] if s >= 0 else -1 for s in self.script.saved)


def build_program(
    graph: StepGraph,
    schedule: Schedule,
    script: Script,
    *,
    position: Sequence[int],
    unpacked: Sequence[tuple[int, tuple[int, ...]]],
    storage: dict[int, int],
    boundary: int,
) -> ReplayProgram:
    """Spread a schedule over the events of a step.

    Args:
        position: of each operator in the graph.
        unpacked: position of each op of the backward, and the saved tensors that it reads.
        storage: slot → storage of the graph.
        boundary: position of the `outside` op.
    """
    slot = {index: s for s, index in storage.items()}
    place = {
        at: number for number, at in enumerate(position)
    }  # views stand before the op whose position they have
    gaps = _gaps(graph, schedule, slot, place)
    before: dict[int, tuple[Act, ...]] = {}
    clock = 0
    for number, at in enumerate(position):
        due = tuple(act for p in range(clock, at + 1) for act in gaps.get(p, ()))
        clock = max(clock, at + 1)
        if due:
            before[number] = due
    between = tuple(act for p in range(clock, boundary + 1) for act in gaps.get(p, ()))
    unpacking, clock, event = {}, max(clock, boundary + 1), 0
    for at, numbers in unpacked:
        due = tuple(act for p in range(clock, at + 1) for act in gaps.get(p, ()))
        clock = max(clock, at + 1)
        if due:
            unpacking[event] = due
        event += len(numbers)
    recorded = {act.slot for acts in gaps.values() for act in acts if act.kind == "clone"}
    sources = {s for number in recorded for s in script.forward[number].inputs if s >= 0}
    watched = {n for n, op in enumerate(script.forward) if sources & {*op.made}}
    return ReplayProgram(
        script=script,
        before=before,
        between=between,
        unpacking=unpacking,
        recorded=frozenset(recorded),
        watched=frozenset(watched - recorded),
        sources=frozenset(sources),
    )


def _gaps(
    graph: StepGraph, schedule: Schedule, slot: dict[int, int], place: dict[int, int]
) -> dict[int, list[Act]]:
    """Position → what stands before its op in the schedule, the releases that it leaves unsaid among them."""
    gaps: dict[int, list[Act]] = defaultdict(list)
    last = _last_needs(graph, schedule)
    position = 0
    for number, entry in enumerate(schedule.entries):
        if entry.kind == "op":
            position = entry.op + 1
        elif entry.kind == "clone":
            gaps[position].append(Act("clone", place[entry.op]))
        else:
            act = Act(entry.kind, slot[entry.storage], entry.tier, entry.codec, entry.nbytes, entry.last)
            gaps[position].append(act)
        gaps[position] += [Act("release", slot[s]) for s in last.get(number, ()) if s in slot]
    return dict(gaps)


def _last_needs(graph: StepGraph, schedule: Schedule) -> dict[int, list[int]]:
    """Entry → storages that come back at some time, and that it is the last to need."""
    entries: Sequence[Entry] = schedule.entries
    back = {e.storage for e in entries if e.kind == "wait" or e.kind in RESTORING}
    back |= {
        s for e in entries if e.kind == "clone" for s in (*graph.ops[e.op].writes, *graph.ops[e.op].reads)
    }
    last: dict[int, int] = {}
    for number, entry in enumerate(entries):
        if entry.kind in ("op", "clone"):
            touched = (*graph.ops[entry.op].reads, *graph.ops[entry.op].writes)
        else:
            touched = (entry.storage,)
        for s in touched:
            if s in back and graph.storages[s].kind == "activation":
                last[s] = number
    needs: dict[int, list[int]] = defaultdict(list)
    for s, number in last.items():
        needs[number].append(s)
    return needs
