"""What a plan keeps beyond its last use, and what for.

A region that runs again reads what is still there. Where that includes a storage that the plain step would have freed,
the schedule keeps it (or the plan brings it back from a tier, or whole from its encoded form): retention has no entry
of its own, and this says where it happens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...values import Decision, StepGraph
from ...values.actions import REMAKING


@dataclass(frozen=True, kw_only=True)
class Retained:
    """A storage that is wanted after its last use.

    Attributes:
        until: position before which a region reads it last.
        made: storages that are made of it then, in order of first appearance.
    """

    storage: int
    until: int
    made: tuple[int, ...]

    def words(self, graph: StepGraph) -> str:
        """For the reader of a report: what it is kept for, and until when."""
        name = graph.storages[self.made[0]].name
        more = f" and {len(self.made) - 1} more" if len(self.made) > 1 else ""
        return f"kept for {name}{more}, made again before {graph.ops[self.until].name}"


def retained(graph: StepGraph, decisions: Sequence[Decision]) -> dict[int, Retained]:
    """By storage, what regions read after its last use without making it themselves."""
    groups: dict[int, set[int]] = defaultdict(set)
    for d in decisions:
        if d.action in REMAKING:
            groups[d.fetch_before].update(d.region)
    until: dict[int, int] = {}
    made: dict[int, dict[int, None]] = defaultdict(dict)
    for position in sorted(groups):
        for op in sorted(groups[position]):
            for s in graph.ops[op].reads:
                storage = graph.storages[s]
                dead = storage.kind == "activation" and graph.death(storage) < position
                if dead and storage.producer not in groups[position]:
                    until[s] = position
                    made[s].update(dict.fromkeys(graph.ops[op].writes))
    return {s: Retained(storage=s, until=until[s], made=tuple(made[s])) for s in until if made[s]}


def with_reasons(graph: StepGraph, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    """The decisions, those on a storage that nobody reads any more with what it is kept for."""
    kept = retained(graph, decisions)
    return tuple(
        replace(d, reason=kept[d.storage].words(graph))
        if d.storage in kept and d.before > graph.death(graph.storages[d.storage]) and not d.reason
        else d
        for d in decisions
    )
