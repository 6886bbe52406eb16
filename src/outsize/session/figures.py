"""The record of a session: its latest step, and every shape that it has seen."""

from __future__ import annotations

from collections.abc import Sequence

from ..device.memory import peak_rss_bytes
from ..prepared import Prepared
from ..values import RunRecord, ShapeRecord
from .plans import Plans
from .state import Measured, Track

__all__ = ["run_record"]


def run_record(
    plans: Plans, latest: Track, made: Prepared, seen: Measured, notes: Sequence[str], capture_seconds: float
) -> RunRecord:
    """Figures of the latest step and of the run so far."""
    plan = made.plan
    known = [t for places in plans.tracks.values() for t in places.values()]
    tracks = known if latest in known else [*known, latest]
    return RunRecord(
        budget_bytes=plans.budget_bytes,
        plain_peak_bytes=plan.plain_peak_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        measured_peak_bytes=max(t.peak for t in tracks),
        resident_bytes=plan.resident_bytes,
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
        capture_seconds=capture_seconds,
        measure_seconds=made.measure_seconds,
        planning_seconds=made.planning_seconds,
        rewrite_seconds=made.rewrite_seconds,
        storage_names=tuple(s.name for s in made.graph.storages),
        storage_bytes=tuple(s.nbytes for s in made.graph.storages),
        encoded_bytes=seen.encoded,
        measured_timeline=seen.timeline,
        highest_peak_bytes=seen.peak,
        shapes=tuple(
            _shape(t, t.prepared, plans.budget_bytes) for t in tracks if t.prepared is not None and t.ran
        ),
        notes=(*notes, *latest.densities.notes()),
    )


def _shape(track: Track, made: Prepared, budget: int) -> ShapeRecord:
    plan = made.plan
    return ShapeRecord(
        inputs=track.inputs,
        place=track.place,
        steps=track.ran,
        budget_bytes=budget,
        plain_peak_bytes=plan.plain_peak_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        measured_peak_bytes=track.peak,
        predicted_step_seconds=plan.predicted_step_seconds,
        decisions=plan.decisions,
        runs_again=track.gives_up,
    )
