"""A plan says what happens to each storage; the executor wants one list of entries. Lowering is the only translation.

Before op p run, in this order: settles and drops whose bytes must be free at p; fetches issued at p (earliest
deadline first); what the recomputed region at p reads; the region, with a drop after the last op that reads what
is recomputed later and op p does not touch; decodes; the waits that are left. Then op p. Then the reductions
after it. All regions restored at p are one group: its ops run once each, in their original order,
and an intermediate lives until the last of the group's ops that reads it.

Every residency of a storage that is not its last ends in an explicit `drop`, so that the implicit release ("after the
last entry that needs it") has one meaning. A storage whose bytes are already in the tier, unchanged, is not
written again: its second swap is a drop and a fetch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ...errors import PlanError
from ...values import Decision, Entry, Plan, Schedule, StepGraph
from ...values.actions import ACTIONS, ENCODING, REMAKING, RESTORING, TRAVELLING
from ...values.schedule import EntryKind
from .streamed import refuse_malformed_parameter, with_parameters


def lower(graph: StepGraph, plan: Plan) -> Schedule:
    """The plan's entries, in the order in which the executor runs them.

    Raises:
        PlanError: a decision's positions are out of order, or it acts on something that is no activation.
    """
    return lower_decisions(graph, plan.decisions)


def lower_decisions(graph: StepGraph, decisions: tuple[Decision, ...]) -> Schedule:
    """`lower` for decisions that have no plan around them yet."""
    return lower_placed(graph, decisions)[0]


def lower_placed(graph: StepGraph, decisions: tuple[Decision, ...]) -> tuple[Schedule, list[int]]:
    """The schedule, and for each entry the op position before or after which it stands."""
    for decision in decisions:
        _refuse_malformed(graph, decision)
    apart = [d for d in decisions if graph.storages[d.storage].kind == "parameter"]
    builder = _Builder(graph, tuple(d for d in decisions if d not in apart) if apart else decisions)
    for position in range(len(graph.ops)):
        builder.position(position)
    builder.turn()
    placed = with_parameters(graph, apart, builder.with_drops())
    return Schedule(entries=tuple(entry for entry, _ in placed)), [place for _, place in placed]


def _refuse_malformed(graph: StepGraph, d: Decision) -> None:
    if not 0 <= d.storage < len(graph.storages):
        raise PlanError(f"a decision acts on storage {d.storage}, and the step has {len(graph.storages)}")
    storage = graph.storages[d.storage]
    name = f"{d.action} of {storage.name!r} (storage {d.storage})"
    if storage.kind == "state":
        _refuse_malformed_state(graph, d, name)
        return
    if storage.kind == "parameter":
        refuse_malformed_parameter(graph, d, name)
        return
    if storage.kind != "activation":
        raise PlanError(
            f"{name}: it is {storage.kind}, only activations, state and frozen parameters may be acted on"
        )
    if not 0 <= d.after < d.free_before <= d.fetch_before <= d.before < len(graph.ops):
        raise PlanError(
            f"{name}: needs after < free_before <= fetch_before <= before within the step, "
            f"got {d.after}, {d.free_before}, {d.fetch_before}, {d.before}"
        )
    if odd := [op for op in d.region if not 0 <= op < len(graph.ops)]:
        raise PlanError(f"{name}: its region holds op {odd[0]}, and the step has {len(graph.ops)}")


def _refuse_malformed_state(graph: StepGraph, d: Decision, name: str) -> None:
    """Its span wraps around the turn."""
    if d.action != "swap":
        raise PlanError(f"{name}: state is swapped or left alone")
    if not 0 <= d.fetch_before <= d.before <= d.after < d.free_before <= len(graph.ops):
        raise PlanError(
            f"{name}: needs fetch_before <= before <= after < free_before within the step, "
            f"got {d.fetch_before}, {d.before}, {d.after}, {d.free_before}"
        )


class _Builder:
    """Collects entries position by position."""

    def __init__(self, graph: StepGraph, decisions: tuple[Decision, ...]) -> None:
        self.graph = graph
        self.entries: list[Entry] = []
        self.places: list[int] = []  #: position of each entry
        self.reduce_at = _by(decisions, "after")
        self.free_at = _by((d for d in decisions if d.action in TRAVELLING), "free_before")
        self.fetch_at = _by((d for d in decisions if d.action in TRAVELLING), "fetch_before")
        self.wait_at = _by((d for d in decisions if d.action in TRAVELLING), "before")
        self.decode_at = _by((d for d in decisions if d.action in ENCODING - TRAVELLING), "fetch_before")
        clones: dict[int, set[int]] = defaultdict(set)
        for d in decisions:
            if d.action in REMAKING:
                clones[d.fetch_before].update(d.region)
        self.groups: dict[int, Sequence[int]] = {
            position: sorted(region) for position, region in clones.items()
        }
        self.spans = _by(decisions, "storage")
        self.version = [0] * len(graph.storages)
        self.copies: dict[tuple[int, str], tuple[int, str, int]] = {}
        self.writing: set[int] = set()

    def emit(self, position: int, entry: Entry) -> None:
        self.entries.append(entry)
        self.places.append(position)

    def position(self, p: int) -> None:
        for d in self.free_at.get(p, ()):
            self._free(p, d)
        fetched = self.fetch_at.get(p, ())
        for d in sorted(fetched, key=lambda d: d.before) if fetched else ():
            self.emit(p, _entry("fetch", d, tier=d.tier))
        group = self.groups.get(p, ())
        wanted = {s for op in group for s in self.graph.ops[op].reads} if group else set()
        restores = [*self.decode_at.get(p, ()), *self.wait_at.get(p, ())]
        for d in restores:
            if d.storage in wanted:
                self._restore(p, d)
        done = self._done_with(p, group) if group else {}
        for op in group:
            self.emit(p, Entry(kind="clone", op=op))
            for storage in done.get(op, ()):
                self.emit(p, Entry(kind="drop", storage=storage))
        for d in restores:
            if d.storage not in wanted:
                self._restore(p, d)
        self.emit(p, Entry(kind="op", op=p))
        for storage in self.graph.ops[p].mutates:
            self.version[storage] += 1
        early = {s for storages in done.values() for s in storages}
        for d in self.reduce_at.get(p, ()):
            if d.storage not in early:
                self._reduce(p, d)

    def turn(self) -> None:
        """The step ends: what leaves over the turn has left."""
        for d in self.free_at.get(len(self.graph.ops), ()):
            self._free(len(self.graph.ops), d)

    def _done_with(self, p: int, group: Sequence[int]) -> dict[int, list[int]]:
        """Op of the group → storages that go for recomputation right after it, since op p does not touch them."""
        touched = {*self.graph.ops[p].reads, *self.graph.ops[p].writes}
        going = {
            d.storage for d in self.reduce_at.get(p, ()) if d.action in REMAKING and d.storage not in touched
        }
        last = {s: op for op in group for s in self.graph.ops[op].reads if s in going}
        done: dict[int, list[int]] = defaultdict(list)
        for s, op in last.items():
            done[op].append(s)
        return done

    def _reduce(self, p: int, d: Decision) -> None:
        if (reduces := ACTIONS[d.action].reduces) is not None:
            self.emit(p, _entry(reduces, d, codec=d.codec))
            self.emit(p, Entry(kind="drop", storage=d.storage))
        elif d.action in REMAKING:
            self.emit(p, Entry(kind="drop", storage=d.storage))
        if d.action in TRAVELLING:
            form = (self.version[d.storage], d.codec, d.encoded_bytes)
            if d.action == "swap" and self.copies.get((d.storage, d.tier)) == form:
                return
            self.copies[(d.storage, d.tier)] = form
            self.writing.add(d.storage)
            self.emit(p, _entry("swap_out", d, tier=d.tier))

    def _free(self, p: int, d: Decision) -> None:
        if d.storage in self.writing:
            self.writing.remove(d.storage)
            self.emit(p, _entry("settle", d))
        if d.action == "swap":
            self.emit(p, Entry(kind="drop", storage=d.storage))

    def _restore(self, p: int, d: Decision) -> None:
        if d.action in TRAVELLING:
            self.emit(p, _entry("wait", d))
        if (restores := ACTIONS[d.action].restores) is not None:
            self.emit(p, Entry(kind=restores, storage=d.storage, codec=d.codec))

    def with_drops(self) -> list[tuple[Entry, int]]:
        """The entries, with a drop after every residency that is neither the last nor explicitly ended."""
        again = {s for ops in self.groups.values() for op in ops for s in self.graph.ops[op].writes}
        events: dict[int, list[tuple[int, str]]] = {
            s: [] for s in again if self.graph.storages[s].kind == "activation"
        }
        self._note_readers()
        absent = {s: self._absences(s) for s in events}
        for number, (entry, p) in enumerate(zip(self.entries, self.places)):
            self._note_events(events, absent, number, entry, p)
        behind: dict[int, list[int]] = defaultdict(list)
        for storage, trace in events.items():
            for (number, what), (_, following) in pairwise(trace):
                if following == "create" and what != "drop":
                    behind[number].append(storage)
        result = []
        for number, (entry, place) in enumerate(zip(self.entries, self.places)):
            result.append((entry, place))
            result += [(Entry(kind="drop", storage=s), place) for s in behind.get(number, ())]
        return result

    def _note_readers(self) -> None:
        """Storage → last position whose group reads it without making it."""
        self.read_again: dict[int, int] = {}
        for p, group in self.groups.items():
            made = set(group)
            for op in group:
                for s in self.graph.ops[op].reads:
                    if self.graph.storages[s].producer not in made:
                        self.read_again[s] = max(p, self.read_again.get(s, -1))

    def _note_events(
        self,
        events: dict[int, list[tuple[int, str]]],
        absent: dict[int, tuple[int, list[tuple[int, int]]]],
        number: int,
        entry: Entry,
        p: int,
    ) -> None:
        if entry.op >= 0:
            op = self.graph.ops[entry.op]
            for s in op.reads:
                if s in events:
                    events[s].append((number, "need"))
            for s in op.writes:
                if s in events and (entry.kind == "op" or _is_absent(absent[s], p)):
                    events[s].append((number, "create"))
        elif entry.storage in events:
            if entry.kind in RESTORING or (entry.kind == "fetch" and not entry.nbytes):
                events[entry.storage].append((number, "create"))
            elif entry.kind == "drop":
                events[entry.storage].append((number, "drop"))
            elif not entry.nbytes:
                events[entry.storage].append((number, "need"))

    def _absences(self, s: int) -> tuple[int, list[tuple[int, int]]]:
        """Last position that keeps the storage without recomputing it, and the positions its decisions clear."""
        storage = self.graph.storages[s]
        spans = [(d.free_before, d.fetch_before - (d.action in TRAVELLING)) for d in self.spans.get(s, ())]
        last = max(storage.uses, default=storage.producer)
        last = max(last, self.read_again.get(s, last))
        return last, spans


def _is_absent(absences: tuple[int, list[tuple[int, int]]], p: int) -> bool:
    last, spans = absences
    return p > last or any(start <= p <= end for start, end in spans)


def _by(decisions: Iterable[Decision], field: str) -> dict[int, list[Decision]]:
    groups: dict[int, list[Decision]] = defaultdict(list)
    for d in decisions:
        groups[getattr(d, field)].append(d)
    return dict(groups)


def _entry(kind: EntryKind, d: Decision, *, tier: str = "", codec: str = "") -> Entry:
    nbytes = d.encoded_bytes if d.action in ENCODING else 0
    return Entry(kind=kind, storage=d.storage, nbytes=nbytes, tier=tier, codec=codec)
