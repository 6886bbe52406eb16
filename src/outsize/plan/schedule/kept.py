"""What a backward needs at once when autograd keeps the graph for another one: nothing that was saved goes meanwhile."""

from __future__ import annotations

from ...values import Entry, Profile, Schedule, StepGraph
from ...values.actions import REDUCING, RESTORING
from .simulate import last_needs, simulate


def kept_peak(graph: StepGraph, profile: Profile, schedule: Schedule) -> int:
    """Peak bytes from the boundary on where what is on the device there, dense or encoded, stays to the end.

    What the schedule frees and makes again meanwhile is there twice.
    """
    residency = simulate(graph, profile, schedule).residency
    last = last_needs(graph, schedule.entries)
    held: set[int] = set()
    encoded: dict[int, int] = {}
    saved: set[int] | None = None
    peak = extra = 0
    for number, entry in enumerate(schedule.entries):
        if saved is not None:
            peak = max(peak, residency[number] + extra)
        gone, form = _step(graph, entry, number, last, held, encoded)
        if saved is None:
            if entry.kind == "op" and graph.ops[entry.op].phase == "outside":
                saved, forms = set(held), dict(encoded)
                peak = residency[number]
            continue
        for storage in gone & saved:
            saved.discard(storage)
            extra += graph.storages[storage].nbytes
        if form is not None:
            extra += forms.pop(form, 0)
    return peak


def _step(
    graph: StepGraph,
    entry: Entry,
    number: int,
    last: list[int],
    held: set[int],
    encoded: dict[int, int],
) -> tuple[set[int], int | None]:
    """Follow one entry: the storages whose dense bytes go after it, and the one whose encoded form does."""
    form = None
    touched = {entry.storage} if entry.op < 0 else {*graph.ops[entry.op].reads, *graph.ops[entry.op].writes}
    if entry.op >= 0:
        held.update(s for s in graph.ops[entry.op].writes if graph.storages[s].kind == "activation")
    elif entry.kind in RESTORING or (entry.kind == "fetch" and not entry.nbytes):
        held.add(entry.storage)
    if entry.kind in REDUCING:
        encoded[entry.storage] = entry.nbytes
    if (entry.kind == "settle" and entry.nbytes) or (entry.kind in RESTORING and entry.last):
        form = entry.storage if encoded.pop(entry.storage, 0) else None
    gone = {s for s in touched & held if entry.kind == "drop" or last[s] <= number}
    held -= gone
    return gone, form
