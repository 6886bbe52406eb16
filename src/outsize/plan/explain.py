"""A plan in words: one line per decision and per refusal, in step order."""

from __future__ import annotations

from ..units import format_bytes, format_seconds
from ..values import Decision, Plan, StepGraph
from ..values.actions import ACTIONS


def explain(graph: StepGraph, plan: Plan) -> list[str]:
    """One line per decision, then one per refusal."""
    lines = [_decision(graph, d) for d in sorted(plan.decisions, key=lambda d: (d.after, d.before))]
    for refusal in plan.refusals:
        storage = graph.storages[refusal.storage]
        detail = f" ({refusal.detail})" if refusal.detail else ""
        lines.append(f"keep {storage.name} {format_bytes(storage.nbytes)}: {refusal.reason}{detail}")
    return lines


def _decision(graph: StepGraph, d: Decision) -> str:
    storage = graph.storages[d.storage]

    def name(position: int) -> str:
        return graph.ops[position].name if position < len(graph.ops) else "the turn to the next step"

    does, how = ACTIONS[d.action], []
    if does.remakes:
        how.append(f"by {len(d.region)} ops before {name(d.fetch_before)}")
    if does.encodes:
        how.append(f"with {d.codec} to {format_bytes(d.encoded_bytes)}")
    if does.travels:
        how.append(f"to {d.tier}")
        if not does.encodes:
            how.append(f"freed before {name(d.free_before)}, fetched before {name(d.fetch_before)}")
    return (
        f"{d.action} {storage.name} {format_bytes(storage.nbytes)} between {name(d.after)} and {name(d.before)} "
        f"{', '.join(how)}: {format_seconds(d.seconds)}" + (f" ({d.reason})" if d.reason else "")
    )
