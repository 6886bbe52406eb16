"""The record of a session: its latest step, and every shape that it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..device.memory import peak_rss_bytes
from ..prepared import Prepared, PreparedReplay
from ..values import Plan, RunRecord, ShapeRecord, StepGraph
from .plans import Plans
from .state import Measured, Track

__all__ = ["planned_record", "run_record", "shape_record"]


def run_record(
    plans: Plans, latest: Track, made: Prepared, seen: Measured, notes: Sequence[str], capture_seconds: float
) -> RunRecord:
    """Figures of the latest step and of the run so far."""
    known = [t for places in plans.tracks.values() for t in places.values()]
    tracks = known if latest in known else [*known, latest]
    budget = plans.budget_bytes
    shapes = (
        shape_record(
            t.prepared,
            budget,
            inputs=t.inputs,
            place=t.place,
            steps=t.ran,
            peak=t.peak,
            runs_again=t.gives_up,
        )
        for t in tracks
        if t.prepared is not None and t.ran
    )
    record = planned_record(
        made.plan,
        made.graph,
        made.seconds,
        seen,
        budget=budget,
        peak=max(t.peak for t in tracks),
        shapes=tuple(shapes),
        notes=(*notes, *latest.densities.notes()),
    )
    return replace(record, capture_seconds=capture_seconds, measured_timeline=seen.timeline)


def planned_record(
    plan: Plan,
    graph: StepGraph,
    seconds: tuple[float, float, float],
    seen: Measured,
    *,
    budget: int,
    peak: int,
    shapes: tuple[ShapeRecord, ...],
    notes: tuple[str, ...],
) -> RunRecord:
    """What a plan foresaw and what its steps measured, by whichever door they came; `seconds` are those of measuring,
    planning and rewriting."""
    return RunRecord(
        budget_bytes=budget,
        plain_peak_bytes=plan.plain_peak_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        measured_peak_bytes=peak,
        resident_bytes=plan.resident_bytes,
        state_bytes=plan.state_bytes,
        state_resting_bytes=plan.state_resting_bytes,
        parameter_bytes=plan.parameter_bytes,
        parameter_resting_bytes=plan.parameter_resting_bytes,
        swapped_out_bytes=seen.bytes_out,
        swapped_in_bytes=seen.bytes_in,
        stall_seconds=seen.stall,
        predicted_step_seconds=plan.predicted_step_seconds,
        measured_step_seconds=seen.seconds,
        decisions=plan.decisions,
        refusals=plan.refusals,
        planner=plan.planner,
        plain_step_seconds=plan.plain_step_seconds,
        recomputed_flops=plan.recomputed_flops,
        plain_flops=plan.plain_flops,
        rss_peak_bytes=peak_rss_bytes(),
        steps=seen.steps,
        measure_seconds=seconds[0],
        planning_seconds=seconds[1],
        rewrite_seconds=seconds[2],
        storage_names=tuple(s.name for s in graph.storages),
        storage_bytes=tuple(s.nbytes for s in graph.storages),
        encoded_bytes=seen.encoded,
        highest_peak_bytes=seen.peak,
        shapes=shapes,
        notes=notes,
    )


def shape_record(
    made: Prepared | PreparedReplay,
    budget: int,
    *,
    inputs: str,
    place: int,
    steps: int,
    peak: int,
    runs_again: bool = False,
) -> ShapeRecord:
    """The same of one shape or path."""
    plan = made.plan
    return ShapeRecord(
        inputs=inputs,
        place=place,
        steps=steps,
        budget_bytes=budget,
        plain_peak_bytes=plan.plain_peak_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        measured_peak_bytes=peak,
        predicted_step_seconds=plan.predicted_step_seconds,
        decisions=plan.decisions,
        runs_again=runs_again,
    )
