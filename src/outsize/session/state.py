"""What a session keeps of its steps: of each captured one over time, of the round under way, of the latest.

A *round* is what shares one measurement: from a forward that begins while no other one waits to the update, or to the
next such forward. Mostly it is one call, a forward and its backward. A siamese network, a contrastive loss or the
discriminator of a GAN makes several calls before the first backward; then each call has a place in the round, and what
is learned of a step is learned for each place: the first one waits while the second runs, and holds its bytes beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch

from ..device.clock import Stopwatch
from ..fx import CapturedStep
from ..prepared import Prepared
from ..runtime.recording import Recorder
from ..runtime.tiers import Tier
from ..values import OpCost, Timeline
from .again import Again, RepeatFacts
from .arrivals import Arrivals
from .density import DensityWatch
from .meter import StepMeter

__all__ = ["Call", "Measured", "Round", "Track", "begun", "transferred"]


@dataclass(kw_only=True)
class Track:
    """What is known of one captured step over time, at one place of a round.

    Attributes:
        place: how many calls of its round came before it.
        repeats: what its forward does beside computing.
        prepared: the plan in force.
        resident: the resident bytes that it was made for.
        tight: the loss had to be given less than the guess, so that its first step may show that no plan fits.
        outside: bytes that were taken outside the module while the call waited; None before that was seen.
        guess: what was planned with while it was not.
        later: bytes alive in its backward, beside the call's own, that were not there at its forward.
        bias: bytes that a step took beyond the prediction.
        gives_up: its saved values are given up as soon as the forward ends, since no plan fits beside what follows.
        again: the plan of a forward that runs again for its backward, and the resident bytes that it was made for.
        room: what to plan with as the bytes outside, best first, where other calls run while it waits.
        over: steps that went over the budget.
        peak: highest measured peak of a step.
        ran: steps that ran.
        inputs: dtypes and shapes of what the module is called with.
        warned: a step under this plan went over the budget, and that was said.
        kept: autograd kept its graph for another backward.
    """

    place: int
    densities: DensityWatch
    arrivals: Arrivals
    repeats: RepeatFacts
    prepared: Prepared | None = None
    resident: int = 0
    tight: bool = False
    outside: int | None = None
    guess: int | None = None
    later: int = 0
    bias: int = 0
    gives_up: bool = False
    again: tuple[Prepared, int] | None = None
    kept_peak: int | None = None
    room: tuple[int, ...] = ()
    stale: str = ""
    drifted: bool = False
    over: int = 0
    corrections: int = 0
    steps: int = 0
    final: bool = False
    peak: int = 0
    ran: int = 0
    inputs: str = ""
    warned: bool = False
    kept: bool = False

    @property
    def costs(self) -> tuple[OpCost, ...]:
        """Of the ops, as they were measured for the same results; empty if they were not."""
        return () if self.prepared is None or self.arrivals.changed else self.prepared.profile.ops

    def saw_obstacle(self, again: Again | None) -> None:
        """Its forward could not run again when that was wanted: no later plan counts on it."""
        if again is not None and (obstacle := again.obstacle()):
            self.repeats = replace(self.repeats, refused=obstacle)

    def uses_others(self) -> bool:
        """Whether the loss used other results than planned for, so that the step's figures say nothing of its plan."""
        if self.arrivals.changed:
            self.stale = "planned again for the results that the loss uses"
        return self.arrivals.changed


@dataclass(kw_only=True)
class Call:
    """One forward and its backwards, in one round.

    Attributes:
        step: the captured step.
        made: the plan that its forward ran under.
        start: bytes of the step alive when its forward began.
        end: those alive when it had ended.
        begun: its first backward began.
        done: it had a backward.
        taught: what it took outside was learned from it already.
        split: part of it ran in another round, so its figures teach nothing.
        given_up: bytes of saved values that it let go of while it waited; its forward runs again.
        extra: bytes alive when its backward began, beyond those that the plan knows of.
        peaks: phase → highest bytes of the step.
        reran: its forward ran again.
        keeps: whether autograd keeps the graph and the saved values, as the plan has room for.
        kept: its latest backward was one with `retain_graph=True`, so that another one may come.
    """

    track: Track
    step: CapturedStep
    made: Prepared
    start: int
    end: int = 0
    begun: bool = False
    done: bool = False
    split: bool = False
    taught: bool = False
    given_up: int = 0
    extra: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    reran: bool = False
    keeps: bool = True
    kept: bool = False

    def saw(self, phase: str, peak: int) -> None:
        """A part of a phase has ended; its peak."""
        self.peaks[phase] = max(peak, self.peaks.get(phase, 0))


@dataclass(kw_only=True)
class Measured:
    """Figures of the latest step."""

    peak: int = 0
    time: Stopwatch | None = None
    stall: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0
    encoded: int = 0
    steps: int = 0
    timeline: Timeline | None = None

    def saw(self, under_way: Round, counters: tuple[int, int, float]) -> None:
        """A backward has ended, with the transfers so far."""
        under_way.time.stop()
        self.time, self.steps = under_way.time, self.steps + 1
        out, into, self.stall = (b - a for a, b in zip(under_way.counters, counters))
        self.bytes_out, self.bytes_in = int(out), int(into)

    @property
    def seconds(self) -> float:
        """Of the latest step."""
        return self.time.seconds if self.time is not None else 0.0


@dataclass(kw_only=True)
class Round:
    """The calls under way.

    Attributes:
        unborn: bytes of optimizer state that the update is yet to make, those that rest on a tier left out.
        state: bytes of the state that may move and that the plan keeps on the device, made yet or not.
        calls: in the order of their forwards.
        given: what the latest forward was given, until its frame takes it.
        peak: highest bytes so far.
        updated: an optimizer has updated the module in it.
        recorder: what records the round's first step, if anything does.
    """

    meter: StepMeter
    unborn: int
    time: Stopwatch
    counters: tuple[int, int, float]
    calls: list[Call] = field(default_factory=list)
    given: Again | None = None
    updated: bool = False
    state: int = 0
    recorder: Recorder | None = None
    peak: int = 0

    @property
    def now(self) -> int:
        """Bytes of the step alive now, those of the state to come included."""
        return self.meter.now + self.unborn

    @property
    def unplanned(self) -> int:
        """Of those, what no plan decides on: without the state that it may keep or move."""
        return self.now - self.state

    def lend(self, nbytes: int, here: int) -> None:
        """State that the plan keeps goes to rest until the update; of its bytes, so many were made by now."""
        self.state -= nbytes
        self.unborn -= nbytes - here

    @property
    def complete(self) -> bool:
        """Whether its first call, which a recorder records, has had its backward."""
        return bool(self.calls) and self.calls[0].done

    def between(self, what: str) -> None:
        """For a recording: what ran since the last operator."""
        if self.recorder is not None:
            self.recorder.between(what)

    def note_peaks(self) -> int:
        """Its peak so far, which the tracks of its calls take note of."""
        for call in self.calls:
            if call.done:
                call.track.peak = max([call.track.peak, *call.peaks.values()])
        return self.peak

    def close(self) -> None:
        """The round is given up."""
        self.meter.stop()
        if self.recorder is not None:
            self.recorder.close()


def begun(device: torch.device, tiers: Mapping[str, Tier], held: int, unborn: int, state: int) -> Round:
    """A round begins with so many bytes on the device; of those that it counts as there, so many are yet to be made."""
    time, meter = Stopwatch(device), StepMeter(held, device)
    return Round(meter=meter, unborn=unborn, state=state, time=time, counters=transferred(tiers.values()))


def transferred(tiers: Iterable[Tier]) -> tuple[int, int, float]:
    """Bytes out, bytes in and seconds waited for, so far."""
    seen = [tier.counters() for tier in tiers]
    return (
        sum(c.bytes_out for c in seen),
        sum(c.bytes_in for c in seen),
        sum(c.stall_seconds for c in seen),
    )
