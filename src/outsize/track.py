"""What a session keeps of its steps: of each captured one over time, of the one under way, of the latest."""

from __future__ import annotations

from dataclasses import dataclass

from .arrivals import Arrivals
from .codecs import DensityMeter
from .density import DensityWatch
from .device.clock import Stopwatch
from .fx import CapturedStep
from .metering import StepMeter
from .prepared import Prepared
from .runtime.recording import Recorder
from .values import OpCost, Timeline

__all__ = ["Measured", "Running", "Track"]


@dataclass(kw_only=True)
class Track:
    """What is known of one captured step over time."""

    densities: DensityWatch
    arrivals: Arrivals
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

    @staticmethod
    def of(step: CapturedStep, shown: DensityMeter) -> Track:
        """Of a step that has not run."""
        return Track(densities=DensityWatch(step.graph, shown), arrivals=Arrivals(step))

    @property
    def costs(self) -> tuple[OpCost, ...]:
        """Of the ops, as they were measured for the same results; empty if they were not."""
        return () if self.prepared is None or self.arrivals.changed else self.prepared.profile.ops

    @property
    def unsure(self) -> bool:
        """Whether its first backward may show that no plan fits."""
        return self.tight and self.outside is None and not self.arrivals.changed

    def uses_others(self) -> bool:
        """Whether the loss used other results than planned for, so that the step's figures say nothing of its plan."""
        if self.arrivals.changed:
            self.stale = "planned again for the results that the loss uses"
        return self.arrivals.changed

    def planned(self) -> None:
        """A plan was made with what is known now."""
        self.stale, self.drifted = "", False
        self.densities.planned()
        self.arrivals.planned()


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
