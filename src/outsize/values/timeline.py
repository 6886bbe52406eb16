"""What a schedule does over time: lanes and residency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Lane = Literal["compute", "out", "in"]


@dataclass(frozen=True, kw_only=True)
class LaneSpan:
    """A piece of work on a lane: `[start, end)` in seconds from the step's start."""

    lane: Lane
    start: float
    end: float
    entry: int
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

    seconds: float
    stall_seconds: float
    residency: tuple[int, ...]
    starts: tuple[float, ...]
    spans: tuple[LaneSpan, ...] = ()

    @property
    def peak_bytes(self) -> int:
        return max(self.residency, default=0)
