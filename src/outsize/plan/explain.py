"""A plan in words: one line per decision and per refusal, in step order."""

from __future__ import annotations

from ..units import format_bytes, format_seconds
from ..values import Decision, Plan, StepGraph


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

    how = {
        "swap": f"to {d.tier}, freed before {name(d.free_before)}, fetched before {name(d.fetch_before)}",
        "recompute": f"by {len(d.region)} ops before {name(d.fetch_before)}",
        "encode": f"with {d.codec} to {format_bytes(d.encoded_bytes)}",
        "encode_swap": f"with {d.codec} to {format_bytes(d.encoded_bytes)}, to {d.tier}",
    }[d.action]
    return (
        f"{d.action} {storage.name} {format_bytes(storage.nbytes)} between {name(d.after)} and {name(d.before)} "
        f"{how}: {format_seconds(d.seconds)}" + (f" ({d.reason})" if d.reason else "")
    )
