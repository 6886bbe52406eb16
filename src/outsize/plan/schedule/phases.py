"""The peak of each phase of a simulated step."""

from __future__ import annotations

from ...values import Schedule, StepGraph, Timeline


def phase_peaks(graph: StepGraph, schedule: Schedule, timeline: Timeline) -> dict[str, int]:
    """Phase → highest residency. What runs again counts where it runs: a forward's operator in the backward."""
    peaks: dict[str, int] = {}
    phase = "forward"
    for entry, nbytes in zip(schedule.entries, timeline.residency):
        if entry.kind == "op":
            phase = graph.ops[entry.op].phase
        elif phase == "outside":
            phase = "backward"
        peaks[phase] = max(nbytes, peaks.get(phase, 0))
    return peaks
