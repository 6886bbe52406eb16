"""When does a swap write, free, fetch and wait, so that it hides behind compute?  (Method 2, claim 21.)

A chosen span (after, before) must be off the device where the curve needs it; around that it may stay longer (while
its write is under way) or come back sooner (while its read is under way) as far as there is room under the budget.
Two sweeps hand the room out. Forward in time, the out lane serves the writes in order and a storage keeps its bytes
until its write has ended; where that would exceed the budget the compute lane has to stall, so the oldest write is
settled there (serialization edge). Backward in time the same sweep places the reads (prefetching edge): a read is a
write seen in reverse. A span whose bytes would never leave is given back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ... import native
from ...values import Decision, LinkRate
from ..model import Floats, Ints, Model, Spans, cleared


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Positions of each span's edges, `free == fetch` where the bytes never leave."""

    free: Ints
    fetch: Ints


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What transfers are placed on, position by position.

    Attributes:
        seconds: compute time.
        room: bytes under the budget that are still free when every span is away for its whole length.
        lead: see `PlanSettings.lead`.
        mutated: storages that change in place, so that each of their swaps writes.
    """

    seconds: Floats
    room: Ints
    lead: float
    mutated: frozenset[int]


def ground_of(model: Model, spans: Spans) -> Ground:
    """The unplanned step with these spans, and nothing else, taken out."""
    strict = model.curve - cleared(len(model.curve), spans.after + 1, spans.before, spans.nbytes)
    return Ground(
        seconds=model.seconds,
        room=np.maximum(model.target - strict, 0),
        lead=model.settings.lead,
        mutated=model.mutated,
    )


def place(ground: Ground, spans: Spans, link: LinkRate) -> Timing:
    """Serialization and prefetching edges for spans that are swapped over one link."""
    seconds, last = ground.seconds, len(ground.seconds) - 1
    out = link.latency_seconds + spans.nbytes / link.out_bytes_per_second
    out = np.where(_needs_no_write(ground, spans), 0.0, out)
    back = link.latency_seconds + spans.nbytes / link.in_bytes_per_second
    free = _gone(seconds, spans.after, spans.before, spans.nbytes, out, ground.room)
    room = ground.room - cleared(last + 1, spans.after + 1, free, spans.nbytes)
    back = np.where(free < spans.before, back, 0.0)
    mirrored = _gone(seconds[::-1], last - spans.before, last - free + 1, spans.nbytes, back, room[::-1])
    fetch = last - mirrored + 1
    room = room - cleared(last + 1, fetch, spans.before, spans.nbytes)
    return Timing(free=free, fetch=_lead(ground, spans, free, fetch, back, room))


def _needs_no_write(ground: Ground, spans: Spans) -> NDArray[np.bool_]:
    """True where an earlier span of the same, never mutated storage has left its bytes in the tier."""
    seen: set[int] = set()
    result = np.zeros(len(spans), dtype=np.bool_)
    for item in np.argsort(spans.after, kind="stable").tolist():
        storage = int(spans.storage[item])
        result[item] = storage in seen and storage not in ground.mutated
        seen.add(storage)
    return result


def _gone(seconds: Floats, release: Ints, limit: Ints, nbytes: Ints, length: Floats, room: Ints) -> Ints:
    """For each item the position from which its bytes are gone: transferred, or forced out by the room.

    An item is handed to the lane after op `release`, which serves in that order; its bytes stay at the positions
    up to the returned one (exclusive), never past `limit`.
    """
    order = np.lexsort((-limit, release))
    if native.kernels is None:
        return _gone_here(order, seconds, release, limit, nbytes, length, room)
    gone = np.empty(len(order), dtype=np.int64)
    doubles = [np.ascontiguousarray(a, dtype=np.float64) for a in (seconds, length)]
    ints = [np.ascontiguousarray(a, dtype=np.int64) for a in (release, order, limit, nbytes, room)]
    places = [a.ctypes.data for a in (doubles[0], *ints[:4], doubles[1], ints[4], gone)]
    native.kernels.plan_gone(len(order), len(seconds), *places)
    return gone


def _gone_here(
    ordered: Ints, seconds: Floats, release: Ints, limit: Ints, nbytes: Ints, length: Floats, room: Ints
) -> Ints:
    """`_gone` without the C module, and its oracle."""
    order = ordered.tolist()
    gone = limit.copy()
    pending: deque[tuple[int, float]] = deque()
    waiting: set[int] = set()
    held, now, lane, following = 0, 0.0, 0.0, 0
    limits, sizes, releases = limit.tolist(), nbytes.tolist(), release.tolist()
    lengths, space = length.tolist(), room.tolist()
    ending: dict[int, list[int]] = {}
    for item, position in enumerate(limits):
        ending.setdefault(position, []).append(item)
    for position, duration in enumerate(seconds.tolist()):
        for item in ending.get(position, ()):
            if item in waiting:
                waiting.remove(item)
                held -= sizes[item]
        while pending and (pending[0][0] not in waiting or pending[0][1] <= now or held > space[position]):
            item, end = pending.popleft()
            if item in waiting:
                waiting.remove(item)
                held -= sizes[item]
                now = max(now, end)
                gone[item] = position
        now += duration
        while following < len(order) and releases[order[following]] == position:
            item = order[following]
            following += 1
            if lengths[item] == 0.0:
                gone[item] = min(position + 1, limits[item])
                continue
            lane = max(lane, now) + lengths[item]
            pending.append((item, lane))
            waiting.add(item)
            held += sizes[item]
    return gone


def _lead(ground: Ground, spans: Spans, free: Ints, fetch: Ints, back: Floats, room: Ints) -> Ints:
    """Issue reads earlier than they strictly need, first deadline first, where room is left."""
    starts = np.concatenate(([0.0], np.cumsum(ground.seconds)))[:-1]
    order = np.lexsort((spans.before, fetch))
    if native.kernels is None:
        return _lead_here(ground, spans, free, fetch, back, room, starts, order)
    result, used = np.empty(len(order), dtype=np.int64), np.array(room, dtype=np.int64)
    in_order, freed, fetched, nbytes = (
        np.ascontiguousarray(a, dtype=np.int64) for a in (order, free, fetch, spans.nbytes)
    )
    lengths = np.ascontiguousarray(back, dtype=np.float64)
    native.kernels.plan_lead(
        len(order), len(starts), starts.ctypes.data, in_order.ctypes.data, freed.ctypes.data, fetched.ctypes.data,
        nbytes.ctypes.data, lengths.ctypes.data, used.ctypes.data, result.ctypes.data, ground.lead,
    )  # fmt: skip
    return result


def _lead_here(
    ground: Ground,
    spans: Spans,
    free: Ints,
    fetch: Ints,
    back: Floats,
    room: Ints,
    starts: Floats,
    order: Ints,
) -> Ints:
    """`_lead` without the C module, and its oracle."""
    result, room = fetch.copy(), room.copy()
    earliest = 0
    for item in order.tolist():
        wish = starts[fetch[item]] - (ground.lead - 1) * back[item]
        lowest = max(int(np.searchsorted(starts, wish, side="right")) - 1, int(free[item]), earliest)
        position, size = int(fetch[item]), int(spans.nbytes[item])
        if lowest < position and free[item] < position:
            short = np.flatnonzero(room[lowest:position] < size)
            start = lowest + (int(short[-1]) + 1 if len(short) else 0)
            room[start:position] -= size
            result[item] = start
        earliest = max(earliest, int(result[item]))
    return result


def swap_decisions(
    model: Model, spans: Spans, timing: Timing, tier: str, reasons: list[str]
) -> list[Decision]:
    """One decision per span whose bytes really leave."""
    link = model.profile.links[tier]
    decisions = []
    for item in np.lexsort((spans.before, spans.after)).tolist():
        size = int(spans.nbytes[item])
        if timing.free[item] >= timing.fetch[item]:
            continue
        decisions.append(
            Decision(
                storage=int(spans.storage[item]),
                action="swap",
                after=int(spans.after[item]),
                before=int(spans.before[item]),
                free_before=int(timing.free[item]),
                fetch_before=int(timing.fetch[item]),
                tier=tier,
                seconds=link.out_seconds(size) + link.in_seconds(size),
                reason=reasons[item],
            )
        )
    return decisions
