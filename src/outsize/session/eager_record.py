"""The record of a session whose steps are eager: its latest path, and all that were seen."""

from __future__ import annotations

from collections.abc import Sequence

from ..device.memory import peak_rss_bytes
from ..prepared import PreparedReplay
from ..units import format_bytes
from ..values import RunRecord, ShapeRecord
from .paths import Path, Paths
from .state import Measured

__all__ = ["eager_record"]


def eager_record(
    paths: Paths, latest: Path, seen: Measured, notes: Sequence[str], budget: int
) -> RunRecord | None:
    """Figures of the latest planned path and of the run so far; None before anything was planned."""
    made = next((p.prepared for p in (latest, *paths.known) if p.prepared is not None), None)
    if made is None:
        return None
    plan = made.plan
    counted = (
        f"{paths.observed} steps were observed, {len(paths.known)} paths are known; {paths.strays} steps took another "
        "path than the one that was expected of them"
    )
    if paths.over:
        counted += (
            f"; on paths without a plan steps were over the budget by {format_bytes(paths.over)} at most"
        )
    return RunRecord(
        budget_bytes=budget,
        plain_peak_bytes=plan.plain_peak_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        measured_peak_bytes=max(p.peak for p in paths.known),
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
        measure_seconds=made.measure_seconds,
        planning_seconds=made.planning_seconds,
        rewrite_seconds=made.rewrite_seconds,
        storage_names=tuple(s.name for s in made.graph.storages),
        storage_bytes=tuple(s.nbytes for s in made.graph.storages),
        encoded_bytes=seen.encoded,
        highest_peak_bytes=seen.peak,
        shapes=tuple(
            _shape(p, p.prepared, budget) for p in paths.known if p.prepared is not None and p.steps
        ),
        notes=(*notes, counted),
    )


def _shape(path: Path, made: PreparedReplay, budget: int) -> ShapeRecord:
    plan = made.plan
    return ShapeRecord(
        inputs=path.inputs,
        place=path.place,
        steps=path.steps,
        budget_bytes=budget,
        plain_peak_bytes=plan.plain_peak_bytes,
        predicted_peak_bytes=plan.predicted_peak_bytes,
        measured_peak_bytes=path.peak,
        predicted_step_seconds=plan.predicted_step_seconds,
        decisions=plan.decisions,
    )
