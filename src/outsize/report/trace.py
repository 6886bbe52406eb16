"""A timeline in the Trace Event format, which chrome://tracing and ui.perfetto.dev read.

One thread per lane with its spans (`"ph": "X"`), and one counter with the bytes alive (`"ph": "C"`). Times are in
microseconds, as the format wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..values import Timeline

_LANES = {"compute": 1, "out": 2, "in": 3}


def trace_events(timeline: Timeline, *, process: int = 1, name: str = "step") -> list[dict[str, Any]]:
    """The events of one timeline, as one process."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
    ]
    for lane, thread in _LANES.items():
        events.append(
            {"ph": "M", "pid": process, "tid": thread, "name": "thread_name", "args": {"name": lane}}
        )
    for span in timeline.spans:
        events.append(
            {
                "ph": "X",
                "pid": process,
                "tid": _LANES[span.lane],
                "name": span.label or span.lane,
                "cat": span.lane,
                "ts": span.start * 1e6,
                "dur": (span.end - span.start) * 1e6,
                "args": {"entry": span.entry},
            }
        )
    for start, alive in zip(timeline.starts, timeline.residency):
        events.append(
            {
                "ph": "C",
                "pid": process,
                "tid": 0,
                "name": "bytes alive",
                "ts": start * 1e6,
                "args": {"bytes": alive},
            }
        )
    return events


def trace_json(timelines: Mapping[str, Timeline]) -> str:
    """A trace file with one process per named timeline."""
    events = [
        event
        for number, (name, timeline) in enumerate(timelines.items(), start=1)
        for event in trace_events(timeline, process=number, name=name)
    ]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
