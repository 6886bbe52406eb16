"""One module under one budget: when to plan, with which resident bytes, and what the steps then measured.

Planning waits for the first forward: only then are the inputs, the gradients of an earlier step and the optimizer's
state there to be counted. A plan is made anew when the resident bytes grow beyond those it was made for, and once
when the first measured step shows more bytes than were predicted (the loss outside the module, above all).
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch

from .device.memory import PeakMeter, bytes_in_use, peak_rss_bytes
from .fx import CapturedStep, RewrittenStep
from .measure.optimizer import state_bytes
from .runtime.executor import Host
from .runtime.tiers import Tier
from .values import Plan, Profile, RunRecord, StepGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A captured step with everything that was decided for it."""

    graph: StepGraph
    profile: Profile
    plan: Plan
    rewritten: RewrittenStep
    phase_peaks: dict[str, int]
    measure_seconds: float
    planning_seconds: float
    rewrite_seconds: float


#: (step, extra resident bytes, bytes measured outside the module, bias) → what to run.
Prepare = Callable[[CapturedStep, int, int, int], Prepared]


@dataclass(kw_only=True)
class _Track:
    """What is known of one captured step over time."""

    prepared: Prepared | None = None
    resident: int = 0
    outside_bytes: int | None = None
    bias: int = 0
    corrected: bool = False


@dataclass(kw_only=True)
class _Measured:
    """Figures of the latest step and the highest peak so far under the current plan."""

    peak: int = 0
    seconds: float = 0.0
    stall: float = 0.0
    bytes_out: int = 0
    bytes_in: int = 0
    steps: int = 0


@dataclass(kw_only=True)
class _Running:
    """The step under way."""

    track: _Track
    resident: int
    base: int
    start: float
    counters: tuple[int, int, float]
    peaks: dict[str, int] = field(default_factory=dict)


@final
class Session(Host):
    """Owns the tiers, the meter and the current plans of one module."""

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        tiers: dict[str, Tier],
        prepare: Prepare,
        budget_bytes: int,
    ) -> None:
        self._module, self._optimizer = weakref.ref(module), optimizer
        self._tiers, self._prepare, self.budget_bytes = tiers, prepare, budget_bytes
        self._tracks: weakref.WeakKeyDictionary[CapturedStep, _Track] = weakref.WeakKeyDictionary()
        self._latest: _Track | None = None
        self._running: _Running | None = None
        self._meter: PeakMeter | None = None
        self.measured = _Measured()
        self.capture_seconds = 0.0
        self.notes: list[str] = []
        self._promised = state_bytes(optimizer) if optimizer is not None else 0
        if optimizer is not None:
            optimizer.register_step_post_hook(self._after_update)

    @property
    def tiers(self) -> dict[str, Tier]:
        return self._tiers

    @property
    def prepared(self) -> Prepared | None:
        """What the latest step ran with; None before the first."""
        return self._latest.prepared if self._latest is not None else None

    # The step, phase by phase.

    def begin(self, step: CapturedStep, args: list[Any]) -> RewrittenStep:
        track = self._tracks.setdefault(step, _Track())
        resident = self._resident(args)
        if track.prepared is None or resident > track.resident or self._wrong(track):
            track.resident = max(resident, track.resident)
            extra = max(0, track.resident - step.graph.resident_bytes)
            track.prepared = self._prepare(step, extra, track.outside_bytes or 0, track.bias)
            self.measured.peak = 0
        self._latest = track
        self._start(track, resident)
        return track.prepared.rewritten

    def _start(self, track: _Track, resident: int) -> None:
        self._stop_meter()
        self._meter = PeakMeter().start()
        self._running = _Running(
            track=track,
            resident=resident,
            base=bytes_in_use(),
            start=time.perf_counter(),
            counters=self._counters(),
        )

    def forward_done(self) -> None:
        self._end_phase("forward")

    def backward_begins(self) -> None:
        self._end_phase("outside")

    def backward_done(self) -> None:
        self._end_phase("backward")
        run = self._running
        if run is None:
            return
        self.measured.seconds = time.perf_counter() - run.start
        out, into, stall = (b - a for a, b in zip(run.counters, self._counters()))
        self.measured.bytes_out, self.measured.bytes_in, self.measured.stall = int(out), int(into), stall
        self.measured.steps += 1
        self._note_peak(run)
        if self._optimizer is None:
            self._finish()

    def _after_update(self, *_: Any) -> None:
        if self._running is not None and "backward" in self._running.peaks:
            self._end_phase("update")
            self._note_peak(self._running)
            self._finish()

    def _end_phase(self, phase: str) -> None:
        if self._running is not None and self._meter is not None:
            peak = self._running.resident + self._meter.reset() - self._running.base
            self._running.peaks[phase] = max(peak, self._running.peaks.get(phase, 0))

    def _note_peak(self, run: _Running) -> None:
        self.measured.peak = max(self.measured.peak, *run.peaks.values())

    def _finish(self) -> None:
        run, self._running = self._running, None
        self._stop_meter()
        if run is None or run.track.prepared is None:
            return
        self._learn(run.track, run)

    def _stop_meter(self) -> None:
        if self._meter is not None:
            self._meter.stop()
            self._meter = None

    def _learn(self, track: _Track, run: _Running) -> None:
        """Correct the prediction once from the first measured step."""
        if track.outside_bytes is None and track.prepared is not None and "outside" in run.peaks:
            predicted = track.prepared.phase_peaks
            track.outside_bytes = max(0, run.peaks["outside"] - predicted.get("outside", 0))
            worst = max(run.peaks.values())
            track.bias = max(0, worst - track.prepared.plan.predicted_peak_bytes)

    def _wrong(self, track: _Track) -> bool:
        """Whether the first measurement asks for another plan; said in the notes, and only once."""
        if track.corrected or track.prepared is None or self.budget_bytes >= self.measured.peak:
            return False
        track.corrected = True
        self.notes.append(
            f"the first step reached {self.measured.peak} bytes, over the budget of {self.budget_bytes}: "
            "planned again with what was measured"
        )
        return True

    def _counters(self) -> tuple[int, int, float]:
        seen = [tier.counters() for tier in self._tiers.values()]
        return (
            sum(c.bytes_out for c in seen),
            sum(c.bytes_in for c in seen),
            sum(c.stall_seconds for c in seen),
        )

    # What is resident.

    def _resident(self, args: Iterable[Any]) -> int:
        """Bytes of the module, its gradients, the optimizer's state and the inputs, each storage once."""
        held: dict[int, int] = {}
        for tensor in (*self._owned(), *args):
            if isinstance(tensor, torch.Tensor):
                held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return sum(held.values()) + max(self._promised, self._state_bytes())

    def _owned(self) -> Iterable[torch.Tensor]:
        module = self._module()
        if module is None:
            return
        for parameter in module.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad
        yield from module.buffers()

    def _state_bytes(self) -> int:
        if self._optimizer is None:
            return 0
        states = self._optimizer.state.values()
        tensors = [v for state in states for v in state.values() if isinstance(v, torch.Tensor)]
        return sum(t.untyped_storage().nbytes() for t in tensors)

    # What happened.

    def record(self) -> RunRecord | None:
        """The figures so far, or None before the first step."""
        if self._latest is None or self._latest.prepared is None:
            return None
        made, plan, seen = self._latest.prepared, self._latest.prepared.plan, self.measured
        return RunRecord(
            budget_bytes=self.budget_bytes,
            plain_peak_bytes=plan.plain_peak_bytes,
            predicted_peak_bytes=plan.predicted_peak_bytes,
            measured_peak_bytes=seen.peak,
            resident_bytes=plan.resident_bytes,
            swapped_out_bytes=seen.bytes_out,
            swapped_in_bytes=seen.bytes_in,
            stall_seconds=seen.stall,
            predicted_step_seconds=plan.predicted_step_seconds,
            measured_step_seconds=seen.seconds,
            decisions=plan.decisions,
            refusals=plan.refusals,
            planner=plan.planner,
            plain_step_seconds=plan.plain_step_seconds,
            recomputed_flops=plan.recomputed_flops,
            plain_flops=plan.plain_flops,
            rss_peak_bytes=peak_rss_bytes(),
            steps=seen.steps,
            capture_seconds=self.capture_seconds,
            measure_seconds=made.measure_seconds,
            planning_seconds=made.planning_seconds,
            rewrite_seconds=made.rewrite_seconds,
            storage_names=tuple(s.name for s in made.graph.storages),
            storage_bytes=tuple(s.nbytes for s in made.graph.storages),
            notes=tuple(self.notes),
        )


def with_resident(graph: StepGraph, extra: int) -> StepGraph:
    """The graph with so many resident bytes that no op touches."""
    return replace(graph, extra_resident_bytes=extra)
