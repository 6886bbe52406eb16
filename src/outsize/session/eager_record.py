"""The record of a session whose steps are eager: its latest path, and all that were seen."""

from __future__ import annotations

from collections.abc import Sequence

from ..units import format_bytes
from ..values import RunRecord
from .figures import planned_record, shape_record
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
        made,
        seen,
        budget=budget,
        peak=max(p.peak for p in paths.known),
        shapes=tuple(shapes),
        notes=(*notes, counted),
    )
