"""What a session keeps of its steps: of each captured one over time, of the one under way, of the latest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..device.clock import Stopwatch
from ..fx import CapturedStep
from ..prepared import Prepared
from ..runtime.recording import Recorder
from ..runtime.tiers import Tier
from ..values import Timeline
from .density import DensityWatch
from .meter import StepMeter

__all__ = ["Measured", "Running", "Track", "transferred"]


@dataclass(kw_only=True)
class Track:
    """What is known of one captured step over time."""

    densities: DensityWatch
    prepared: Prepared | None = None
    resident: int = 0
    #: Whether the loss had to be given less than the guess, so that its first step may show that no plan fits.
    tight: bool = False
    outside: int | None = None
    bias: int = 0
    stale: str = ""
    drifted: bool = False
    #: Steps that went over the budget.
    over: int = 0
    corrections: int = 0
    steps: int = 0
    final: bool = False


@dataclass(kw_only=True)
class Measured:
    """Figures of the latest step and the highest peak so far under the current plan."""

    peak: int = 0
    time: Stopwatch | None = None
    stall: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0
    encoded: int = 0
    steps: int = 0
    timeline: Timeline | None = None

    @property
    def seconds(self) -> float:
        """Of the latest step."""
        return self.time.seconds if self.time is not None else 0.0


@dataclass(kw_only=True)
class Running:
    """The step under way.

    `unborn` are the bytes of optimizer state that its update is yet to make, `inputs` the storages that it was given,
    `recorder` what records it, if anything does.
    """

    track: Track
    step: CapturedStep
    meter: StepMeter
    unborn: int
    time: Stopwatch
    counters: tuple[int, int, float]
    inputs: frozenset[int]
    recorder: Recorder | None = None

    def stop(self) -> bool:
        """The step is given up. Whether a recording of it was under way."""
        self.meter.stop()
        recorded = self.recorder is not None and self.recorder.runs
        if self.recorder is not None:
            self.recorder.close()
        return recorded


def transferred(tiers: Iterable[Tier]) -> tuple[int, int, float]:
    """Bytes out, bytes in and seconds waited for, so far."""
    seen = [tier.counters() for tier in tiers]
    return (
        sum(c.bytes_out for c in seen),
        sum(c.bytes_in for c in seen),
        sum(c.stall_seconds for c in seen),
    )
