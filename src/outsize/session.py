"""One module under one budget: when to plan, with which resident bytes, and what the steps then measured.

Planning waits for the first forward: only then are the inputs, the gradients of an earlier step and the optimizer's
state there to be counted. A plan is made anew when the resident bytes grow beyond those it was made for, when a
measured step shows more bytes than were predicted (the loss outside the module, above all), and when the densities of
encoded storages have moved (`density.py`).
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, final

import torch

from .codecs import DensityMeter
from .device import allocator
from .device.clock import Stopwatch
from .device.memory import peak_rss_bytes
from .device.place import CPU
from .errors import BudgetError
from .fx import CapturedStep, RewrittenStep
from .measure.optimizer import UpdateBytes, state_bytes, update_bytes
from .metering import StepMeter, pause_others, resume
from .prepared import Learned, Prepare, Prepared, guessed_outside
from .runtime.executor import Host
from .runtime.frame import Frame
from .runtime.recording import Recorder
from .runtime.tiers import Tier
from .track import Measured, Running, Track
from .values import RunRecord

#: Plans made anew because a step went over its budget. A second one was needed where both ends of a step were over.
MOST_CORRECTIONS = 3
#: Share of the budget that is reserved in vain before the densities seen are worth another plan.
ROOM_WORTH_A_PLAN = 0.02
#: Another plan is made where the loss took this share of the budget, or of the predicted peak, more or less than planned.
LOSS_WORTH_A_PLAN = 0.01
#: Bytes of objects by which steps differ: the budget that an error names has room for them, and one step that is over
#: by no more is no reason to plan again (a process's table that doubles in the middle of it); a second one is.
OBJECT_SPREAD = 2**16
#: Shares of the guess for a loss not seen yet that are tried where the whole of it does not fit.
SMALLER_GUESSES = (2 / 3, 1 / 3, 0.0)


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
        device: torch.device = CPU,
    ) -> None:
        self._module, self._optimizer, self.device = weakref.ref(module), optimizer, device
        self._tiers, self._prepare, self.budget_bytes = tiers, prepare, budget_bytes
        self._tracks: weakref.WeakKeyDictionary[CapturedStep, Track] = weakref.WeakKeyDictionary()
        self._latest: Track | None = None
        self._running: Running | None = None
        self._paused: tuple[StepMeter, ...] = ()
        #: Whether the step that begins next is to be recorded.
        self.recording = False
        self.measured = Measured()
        self.capture_seconds = 0.0
        self.notes: list[str] = []
        self._shown = DensityMeter(margin=0.0)
        self._waiting: weakref.WeakKeyDictionary[Frame, Track] = weakref.WeakKeyDictionary()
        self._update = update_bytes(optimizer) if optimizer is not None else UpdateBytes()
        if optimizer is not None:
            optimizer.register_step_post_hook(self._after_update)

    @property
    def tiers(self) -> dict[str, Tier]:
        return self._tiers

    @property
    def sampling(self) -> bool:
        return self._latest is None or self._latest.densities.sampling

    @property
    def recorder(self) -> Recorder | None:
        return self._running.recorder if self._running is not None else None

    @property
    def prepared(self) -> Prepared | None:
        """What the latest step ran with; None before the first."""
        return self._latest.prepared if self._latest is not None else None

    @property
    def update_workspace(self) -> int:
        """Bytes that the optimizer's step needs for a moment."""
        return self._update.workspace

    # The step, phase by phase.

    def called(self) -> None:
        """The module is called: until `runs`, it is captured and planned, which counts in no other's step."""
        self._paused = pause_others(self._running.meter if self._running is not None else None)

    def runs(self) -> None:
        """From now on the module computes, or its call is over."""
        resume(self._paused)
        self._paused = ()

    def begin(self, step: CapturedStep, args: list[Any]) -> RewrittenStep:
        track = self._tracks.get(step)
        if track is None:
            track = self._tracks[step] = Track.of(step, self._shown)
        resident = self.resident_bytes(args)
        if track.prepared is None or resident > track.resident:
            track.resident = max(resident, track.resident)
            track.prepared = self._plan(step, track)
        elif track.stale or self._drifted(track, track.prepared):
            track.prepared = self._plan_again(step, track, track.prepared)
        self._latest = track
        self.runs()
        self._start(track, step, resident, args)
        return track.prepared.rewritten

    def _plan(self, step: CapturedStep, track: Track) -> Prepared:
        prepared = self._prepared_for(step, track)
        self.notes += [track.stale] if track.stale else []
        track.planned()
        encodes = any(d.encoded_bytes for d in prepared.plan.decisions)
        # What is denser than planned goes to a tier, whose threads must have started before the step is counted.
        for tier in self._tiers.values():
            tier.reserve(prepared.plan.swapped_bytes or int(encodes))
        gc.collect()  # planning leaves graphs in cycles, which would come free in the middle of the step's count
        # Pages of the steps before would stand in the first one's resident set.
        allocator.trim(everything=True)
        self.measured.peak = track.steps = 0
        return prepared

    def _learned(self, step: CapturedStep, track: Track) -> Learned:
        return Learned(
            resident=max(0, track.resident - step.graph.resident_bytes),
            outside=track.outside,
            update=self.update_workspace,
            bias=track.bias,
            densities=track.densities.expected(),
            costs=track.costs,
            absent=track.arrivals.absent,
        )

    def _prepared_for(self, step: CapturedStep, track: Track) -> Prepared:
        """With what is known; where only the guess of what the loss takes does not fit, with a smaller one."""
        learned = self._learned(step, track)
        try:
            return self._prepare(step, learned)
        except BudgetError as error:
            if type(error) is not BudgetError or track.outside is not None:
                raise
            whole = guessed_outside(step, learned.absent)
            for guess in (int(share * whole) for share in SMALLER_GUESSES):
                if error.smallest_feasible_bytes - (whole - guess) > self.budget_bytes:
                    continue  # no position needs less by more than that
                try:
                    prepared = self._prepare(step, replace(learned, outside=guess))
                except BudgetError:
                    continue
                track.tight = True
                return prepared
            raise

    def _plan_again(self, step: CapturedStep, track: Track, before: Prepared) -> Prepared:
        """With what was learned; if no plan fits that, the one in force has served so far and stays."""
        try:
            return self._plan(step, track)
        except BudgetError as error:
            if track.tight and self.measured.peak > self.budget_bytes:  # the guess for the loss was too small
                raise
            if track.drifted and track.densities.refused():
                return self._plan_again(step, track, before)
            note = f"{track.stale}, in vain, so the plan before stays: {error}"
            warnings.warn(note, RuntimeWarning, stacklevel=2)
            self.notes.append(note)
            track.final = not track.drifted
            track.stale, track.drifted = "", False
            return before

    def _drifted(self, track: Track, made: Prepared) -> bool:
        """Whether the densities have moved so far that another plan is worth its time."""
        worth = int(self.budget_bytes * ROOM_WORTH_A_PLAN)
        track.stale = "" if track.final else track.densities.reason(made.plan, worth)
        track.drifted = bool(track.stale)
        return track.drifted

    def _start(self, track: Track, step: CapturedStep, resident: int, args: list[Any]) -> None:
        if self._running is not None:
            # A recording that was given up begins anew.
            self.recording |= self._running.stop()
        unborn = max(0, self._update.state - self._state_bytes())
        self._running = Running(
            track=track,
            step=step,
            meter=StepMeter(resident - unborn, self.device),
            unborn=unborn,
            time=Stopwatch(self.device),
            counters=self._counters(),
            inputs=frozenset(a.untyped_storage()._cdata for a in args if isinstance(a, torch.Tensor)),
        )
        if self.recording:
            self.recording, meter = False, self._running.meter
            names = [s.name for s in step.graph.storages]
            self._running.recorder = Recorder(names, self._tiers.values(), lambda: meter.offset, self.device)

    def forward_done(self, frame: Frame) -> None:
        if self._running is not None:
            self._running.meter.end("forward", then="outside")
            frame.held_bytes = self._running.meter.grown
            frame.inputs = {s: n for s, n in frame.saved_storages().items() if s in self._running.inputs}
        if self._latest is not None:
            self._waiting[frame] = self._latest

    def backward_begins(self, frame: Frame, missing: frozenset[int]) -> None:
        if (waiting := self._waiting.get(frame)) is not None:
            waiting.arrivals.saw(missing)
        run = self._running
        if run is None:
            return
        run.meter.end("outside", then="backward")
        if run.recorder is not None:
            run.recorder.between("outside the module")
        made, unknown = run.track.prepared, run.track.unsure
        if made is not None and unknown and run.meter.peaks.get("outside", 0) > self.budget_bytes:
            self._learn_outside(run.track, made, run)
            run.track.outside = (run.track.outside or 0) + OBJECT_SPREAD
            self.called()
            try:
                self._prepare(
                    run.step, self._learned(run.step, run.track)
                )  # a BudgetError where nothing fits
            finally:
                self.runs()

    def backward_done(self, frame: Frame, *, kept: bool) -> None:
        track = self._waiting.get(frame) if kept else self._waiting.pop(frame, None)
        if track is not None and not frame.reported:  # another backward of the same step shows nothing new
            frame.reported = True
            track.densities.saw(frame.densities, frame.overflowed)
            self.measured.encoded = frame.encoded_bytes
        run = self._running
        if run is None:
            return
        run.meter.end("backward", then="update")
        run.time.stop()
        self.measured.time = run.time
        out, into, stall = (b - a for a, b in zip(run.counters, self._counters()))
        self.measured.bytes_out, self.measured.bytes_in, self.measured.stall = int(out), int(into), stall
        self.measured.steps += 1
        self._note_peak(run)
        if self._optimizer is None:
            self._finish()

    def _after_update(self, *_: Any) -> None:
        if self._running is not None and "backward" in self._running.meter.peaks:
            self._running.meter.end("update")
            if self._running.recorder is not None:
                self._running.recorder.between("update")
            self._note_peak(self._running)
            self._finish()

    def _note_peak(self, run: Running) -> None:
        self.measured.peak = max(self.measured.peak, *run.meter.peaks.values())

    def _finish(self) -> None:
        run, self._running = self._running, None
        allocator.trim()
        if run is None:
            return
        run.meter.stop()
        if run.recorder is not None:
            self.measured.timeline = run.recorder.close()
        self._learn(run.track, run)

    def _learn(self, track: Track, run: Running) -> None:
        """From a measured step: bytes outside the module, and whether to plan again."""
        if (made := track.prepared) is None or track.final or track.uses_others():
            return
        if fresh := track.outside is None:
            self._learn_outside(track, made, run)
        # The plan counts the optimizer's state from the start; a first step has it from its update only.
        peaks = {p: n + (run.unborn if p != "update" else 0) for p, n in run.meter.peaks.items()}
        worst, track.steps = max(peaks.values()), track.steps + 1
        # What a process allocates once in a first step no plan can shrink; the loss's bytes are known from it on.
        if worst <= self.budget_bytes or (track.steps == 1 and (fresh or worst != peaks.get("outside"))):
            return
        track.over += 1
        again = track.over > 1 or worst > self.budget_bytes + OBJECT_SPREAD
        if again and track.corrections < MOST_CORRECTIONS:
            track.corrections += 1
            track.bias += max(
                0, *(peaks.get(p, 0) - made.phase_peaks.get(p, 0) for p in ("forward", "backward"))
            )
            more = {p: max(0, peaks.get(p, 0) - made.phase_peaks.get(p, 0)) for p in ("outside", "update")}
            track.outside = None if track.outside is None else track.outside + more["outside"]
            self._update = replace(self._update, workspace=self._update.workspace + more["update"])
            track.stale = (
                f"a step reached {worst} bytes, over the budget of {self.budget_bytes}: "
                "planned again with what was measured"
            )

    def _learn_outside(self, track: Track, made: Prepared, run: Running) -> None:
        """Replace the guess of what the loss takes by what it took; plan again where that frees room.

        What is kept free for objects stays free beside it: later steps had up to 70 KB more of them than the first.
        """
        if "outside" not in run.meter.peaks:
            return
        boundary = next(op.index for op in made.graph.ops if op.phase == "outside")
        guess = made.profile.ops[boundary].workspace_bytes
        spare = made.phase_peaks.get("outside", 0) - made.object_bytes
        track.outside = max(0, guess + run.unborn + run.meter.peaks["outside"] - spare)
        worth = LOSS_WORTH_A_PLAN * min(self.budget_bytes, made.plan.predicted_peak_bytes)
        if abs(guess - track.outside) > worth:
            track.stale = "planned again with the bytes that the loss took"

    def _counters(self) -> tuple[int, int, float]:
        seen = [tier.counters() for tier in self._tiers.values()]
        return (
            sum(c.bytes_out for c in seen),
            sum(c.bytes_in for c in seen),
            sum(c.stall_seconds for c in seen),
        )

    # What is resident.

    def buffers(self) -> dict[int, str]:
        module = self._module()
        named = module.named_buffers() if module is not None else ()
        return {b.untyped_storage()._cdata: f"the buffer {name!r}" for name, b in named}

    def resident_bytes(self, args: Iterable[Any]) -> int:
        """Bytes of the module, its gradients, the optimizer's state and the inputs, each storage once."""
        held: dict[int, int] = {}
        for tensor in (*self._owned(), *args):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == self.device.type:
                held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        # Forwards whose backward has yet to come keep their inputs and saved values meanwhile.
        for frame in self._waiting:
            held |= frame.inputs
        waiting = sum(frame.held_bytes for frame in self._waiting)
        return sum(held.values()) + max(self._update.state, self._state_bytes()) + waiting

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
        return 0 if self._optimizer is None else state_bytes(self._optimizer)

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
            encoded_bytes=seen.encoded,
            measured_timeline=seen.timeline,
            notes=(*self.notes, *self._latest.densities.notes()),
        )
