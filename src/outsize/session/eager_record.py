"""The record of a session whose steps are eager: its latest path, and all that were seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..units import format_bytes
from ..values import Plan, Profile, RunRecord, StepGraph
from .figures import planned_record, shape_record
from .paths import Path, Paths
from .state import Measured

__all__ = ["eager_record"]


def eager_record(paths: Paths, latest: Path, seen: Measured, notes: Sequence[str], budget: int) -> RunRecord:
    """Figures of the latest planned path and of the run so far; of the latest observed one where none is planned."""
    made = next((p.prepared for p in (latest, *paths.known) if p.prepared is not None), None)
    plan, graph, seconds = (
        (made.plan, made.graph, made.seconds) if made is not None else _as_it_ran(latest, budget)
    )
    counted = (
        f"{paths.observed} steps were observed, {len(paths.known)} paths are known; {paths.strays} steps took another "
        "path than the one that was expected of them"
    )
    if paths.over:
        counted += (
            f"; on paths without a plan steps were over the budget by {format_bytes(paths.over)} at most"
        )
    shapes = (
        shape_record(p.prepared, budget, inputs=p.inputs, place=p.place, steps=p.steps, peak=p.peak)
        for p in paths.known
        if p.prepared is not None and p.steps
    )
    return planned_record(
        plan,
        graph,
        seconds,
        seen,
        budget=budget,
        peak=paths.peak or seen.peak,
        shapes=tuple(shapes),
        notes=(*notes, counted),
    )


def _as_it_ran(path: Path, budget: int) -> tuple[Plan, StepGraph, tuple[float, float, float]]:
    """The step of a path without a plan."""
    graph, costs = path.step.graph, path.step.costs
    resident = path.unplanned[1] if path.unplanned is not None else 0
    graph = replace(graph, extra_resident_bytes=max(0, resident - graph.resident_bytes))
    peak, took = max(graph.plain_residency(Profile(ops=costs).workspace)), sum(c.seconds for c in costs)
    plan = Plan(
        budget_bytes=budget,
        planner="none",
        decisions=(),
        refusals=(),
        plain_peak_bytes=peak,
        predicted_peak_bytes=peak,
        plain_step_seconds=took,
        predicted_step_seconds=took,
        resident_bytes=graph.resident_bytes,
    )
    return plan, graph, (0.0, 0.0, 0.0)
