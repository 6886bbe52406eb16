"""One label of `labels`, and which labels another one is at least as good as."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

#: (kind, storage or op, position): "out" after the op, "free", "in" and "run" in front of it.
Event = tuple[str, int, int]
Log = tuple[Any, Event] | None
Moving = tuple[tuple[int, float], ...]
_TINY = 1e-12


class Label(NamedTuple):
    """State in front of a position.

    Attributes:
        now, out, back: when compute, the lane out and the lane in are free (the lanes are one where they are shared).
        here, copied: storages on the device (arriving ones too), storages with a whole copy in the tier; bit masks.
        writing, arriving: (storage, end) of transfers nobody has waited for yet, in the order of the lane.
        log: what was done, newest first.
    """

    now: float
    out: float
    back: float
    here: int
    copied: int
    writing: Moving
    arriving: Moving
    log: Log


def events_of(log: Log) -> tuple[Event, ...]:
    """What a log tells, oldest first."""
    events = []
    while log is not None:
        log, event = log
        events.append(event)
    return tuple(reversed(events))


@final
class LabelTable:
    """Labels of one position as arrays.

    Args:
        count: storages of the step.
        lasting: storages that every label holds until their next use, or writes.
    """

    def __init__(self, count: int, room: int, lasting: int) -> None:
        self.count, self.lasting, self.length = count, lasting, 0
        self.clocks = np.empty((room, 3))
        self.masks = np.empty((room, 4), dtype=object) if count > 62 else np.empty((room, 4), dtype=np.int64)
        self.ends = np.empty((room, 2 * count))

    def _row(self, label: Label) -> tuple[int, int, NDArray[np.float64]]:
        ends = np.full(2 * self.count, inf)
        writing = arriving = 0
        for s in range(self.count):
            if label.copied >> s & 1:
                ends[s] = label.now
            if label.here >> s & 1:
                ends[self.count + s] = label.now
        for s, end in label.writing:
            writing |= 1 << s
            ends[s] = max(end, label.now)
        for s, end in label.arriving:
            arriving |= 1 << s
            ends[self.count + s] = max(end, label.now)
        return writing, arriving, ends

    def append(self, label: Label) -> None:
        if self.length == len(self.clocks):
            self.clocks, self.masks, self.ends = (
                np.concatenate((a, np.empty_like(a))) for a in (self.clocks, self.masks, self.ends)
            )
        writing, arriving, ends = self._row(label)
        now = label.now
        self.clocks[self.length] = now, max(now, label.out), max(now, label.back)
        self.masks[self.length] = label.here, label.copied, writing, arriving
        self.ends[self.length] = ends
        self.length += 1

    def dominates(self, label: Label) -> bool:
        """One of the kept labels has all that this one has, no later."""
        if not self.length:
            return False
        writing, arriving, ends = self._row(label)
        masks, now = self.masks[: self.length], label.now
        here, copied, write, arrive = masks.T
        fits = ((label.here & ~here) == 0) & ((label.copied & ~(copied | write)) == 0)
        fits &= (arrive & ~arriving) == 0
        stuck = write & ~(writing | label.copied)
        fits &= (stuck & ~(label.here & self.lasting)) == 0
        rows = np.flatnonzero(fits)
        if not len(rows):
            return False
        clocks = np.array((now, max(now, label.out), max(now, label.back))) + _TINY
        rows = rows[(self.clocks[rows] <= clocks).all(axis=1)]
        return bool(len(rows)) and bool((self.ends[rows] <= ends + _TINY).all(axis=1).any())
