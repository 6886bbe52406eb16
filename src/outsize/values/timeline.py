"""What a schedule does over time: lanes and residency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .ranges import Count, MaybeIndex, Moment, Seconds

Lane = Literal["compute", "out", "in"]


@dataclass(frozen=True, kw_only=True)
class LaneSpan:
    """A piece of work on a lane.

    Attributes:
        lane: `compute`, `out` (device to tier) or `in` (tier to device).
        start: in seconds from the step's start.
        end: where it has ended, in seconds.
        entry: position of the entry in the schedule, else -1.
        label: what it is, for people.
    """

    lane: Lane
    start: Moment
    end: Moment
    entry: MaybeIndex
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Simulated or measured run of a schedule.

    Attributes:
        seconds: end of the last piece of work.
        stall_seconds: time the compute lane waited for a transfer.
        residency: bytes alive while each entry runs (workspace included), one per entry.
        starts: start of each entry on the compute lane, one per entry.
        spans: work per lane.
    """

    seconds: Seconds
    stall_seconds: Seconds
    residency: tuple[Count, ...]
    starts: tuple[Moment, ...]
    spans: tuple[LaneSpan, ...] = ()

    def misfit(self) -> str:
        """How the parts do not belong together; empty where they do."""
        if len(self.residency) != len(self.starts):
            return f"{len(self.residency)} residencies at {len(self.starts)} starts"
        return ""

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at once."""
        return max(self.residency, default=0)
