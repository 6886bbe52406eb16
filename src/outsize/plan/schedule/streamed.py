"""Parameters that rest on a tier come for each op that reads them, and go right after it.

They are put into a schedule that is finished without them, because an op that runs again in the backward reads its
parameters there, and only the finished schedule knows where that is. A decision says from which op on the read for a use
may begin; for an op that runs again it begins right before it. Nothing is written: the tier's copy is always the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import final

from ...errors import PlanError
from ...values import Decision, Entry, StepGraph

__all__ = ["refuse_malformed_parameter", "with_parameters"]

Placed = list[tuple[Entry, int]]


def refuse_malformed_parameter(graph: StepGraph, d: Decision, name: str) -> None:
    """It comes for one of its uses; for the first one over the turn.

    Raises:
        PlanError: it does not.
    """
    uses = graph.storages[d.storage].uses
    if d.action != "swap":
        raise PlanError(f"{name}: a parameter is swapped or left alone")
    if d.before not in uses or not 0 <= d.fetch_before <= d.before:
        raise PlanError(
            f"{name}: it is fetched before {d.fetch_before} for {d.before}, which is none of its uses"
        )
    if d.before != uses[0] and d.fetch_before <= uses[uses.index(d.before) - 1]:
        raise PlanError(f"{name}: it is fetched before {d.fetch_before}, where an earlier use still holds it")


def with_parameters(graph: StepGraph, decisions: Sequence[Decision], placed: Placed) -> Placed:
    """The schedule with what brings parameters and drops them.

    Args:
        decisions: on parameters, one for each use that they come for.
        placed: the entries of everything else, each with its position.
    """
    if not decisions:
        return placed
    weaver = _Weaver(graph, decisions)
    for entry, place in placed:
        weaver.entry(entry, place)
    weaver.drop_all()
    return weaver.placed


@final
class _Weaver:
    """Follows the entries and knows which parameters are on the device."""

    def __init__(self, graph: StepGraph, decisions: Sequence[Decision]) -> None:
        self.graph, self.placed = graph, Placed()
        self.tier = {d.storage: d.tier for d in decisions}
        self.early: dict[int, list[Decision]] = defaultdict(list)
        for d in decisions:
            if d.fetch_before < d.before:
                self.early[d.fetch_before].append(d)
        #: Storage → uses after which it goes: those before one that it comes back for.
        self.last: dict[int, set[int]] = defaultdict(set)
        for d in decisions:
            uses = graph.storages[d.storage].uses
            self.last[d.storage].add(uses[uses.index(d.before) - 1])
        self.here: set[int] = set()
        self.arriving: set[int] = set()
        #: To be dropped before the next entry that does not read them.
        self.done: dict[int, int] = {}
        self.place = -1

    def entry(self, entry: Entry, place: int) -> None:
        reads = self.graph.ops[entry.op].reads if entry.op >= 0 else ()
        wanted = [s for s in reads if s in self.tier]
        self._drop({s: p for s, p in self.done.items() if s not in wanted})
        if place > self.place:
            self.place = place
            for d in sorted(self.early.get(place, ()), key=lambda d: d.before):
                self._fetch(d.storage, place)
        borrowed = [s for s in wanted if s in self.done or s not in self.here | self.arriving]
        for s in wanted:
            self._bring(s, place)
        self.placed.append((entry, place))
        for s in wanted:
            if (entry.kind == "op" and entry.op in self.last[s]) or (entry.kind == "clone" and s in borrowed):
                self.done[s] = place
            else:
                self.done.pop(s, None)

    def _fetch(self, s: int, place: int) -> None:
        if s not in self.here and s not in self.arriving:
            self.arriving.add(s)
            self.placed.append((Entry(kind="fetch", storage=s, tier=self.tier[s]), place))

    def _bring(self, s: int, place: int) -> None:
        if s not in self.here:
            self._fetch(s, place)
            self.arriving.discard(s)
            self.here.add(s)
            self.placed.append((Entry(kind="wait", storage=s), place))

    def _drop(self, done: dict[int, int]) -> None:
        for s, place in done.items():
            del self.done[s]
            self.here.discard(s)
            self.placed.append((Entry(kind="drop", storage=s), place))

    def drop_all(self) -> None:
        """The step ends."""
        self._drop(dict(self.done))
