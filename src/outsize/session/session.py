"""One module under one budget: its calls, what is resident beside them, and what they measured.

Planning waits for the first forward: only then are the inputs, the gradients of an earlier step and the optimizer's
state there to be counted. A plan is made anew when the resident bytes grow beyond those it was made for, when a
measured step shows more bytes than were predicted (the loss outside the module, above all), and when the densities of
encoded storages have moved (`density.py`).

A call that waits for its backward while others run holds bytes beside them. Nobody knows of that before it happens, so
the first round makes room as it goes: what waits gives up what it saved, and its forward runs again (`again.py`). From
then on the plans know how much must be left for whom (`learn.py`).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, final

import torch

from ..device import allocator
from ..device.place import CPU
from ..errors import BudgetError
from ..fx import CapturedStep, RewrittenStep
from ..prepared import Prepare, Prepared
from ..runtime.executor import Host, repeat_forward
from ..runtime.frame import Frame, storage_bytes
from ..runtime.recording import Recorder
from ..runtime.tiers import Tier
from ..values import RunRecord
from .again import Again
from .figures import run_record
from .learn import learn
from .meter import StepMeter, pause_all, resume
from .optimizers import Optimizers
from .parameters import Parameters
from .plans import OBJECT_SPREAD, Plans
from .refuse import beside_waiting, check_beside, check_loss, no_room_beside, no_room_kept
from .residents import buffers, named_bytes, shapes
from .state import Call, Measured, Round, Track, begun, transferred
from .streams import StateStreams
from .updates import Updating, left_out
from .waiting import Waiting


@final
class Session(Host, Updating):
    """Owns the tiers, the meter and the current plans of one module."""

    _all: ClassVar[weakref.WeakSet[Session]] = weakref.WeakSet()

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        tiers: dict[str, Tier],
        prepare: Prepare,
        budget_bytes: int,
        device: torch.device = CPU,
        *,
        repeats: bool = True,
        residents: str = "keep",
    ) -> None:
        self._module, self.device = weakref.ref(module), device
        self.optimizers = Optimizers(optimizer, device, tiers, residents=residents)
        self.streams: StateStreams = self.optimizers.streams
        self._tiers, self.budget_bytes = tiers, budget_bytes
        self.notes: list[str] = []
        self.parameters: Parameters = Parameters(tiers, device, moves=residents == "frozen")
        moving = self.optimizers, self.parameters
        self.plans = Plans(prepare, tiers, budget_bytes, *moving, self.notes, repeats=repeats)
        self._latest: Track | None = None
        self._round: Round | None = None
        self._paused: tuple[StepMeter, ...] = ()
        #: Counts all that the process holds over a whole run, where a library's loop said when it began.
        self.run_meter: StepMeter | None = None
        #: Whether the step that begins next is to be recorded.
        self.recording = False
        self.measured, self.capture_seconds = Measured(), 0.0
        #: Steps that began under plan.
        self.calls = self.backwards = 0
        self._waiting = Waiting(self.plans)
        self._all.add(self)

    @property
    def tiers(self) -> dict[str, Tier]:
        return self._tiers

    @property
    def sampling(self) -> bool:
        return self._latest is None or self._latest.densities.sampling

    @property
    def recorder(self) -> Recorder | None:
        """Records the first call of a round."""
        return self._round.recorder if self._round and len(self._round.calls) == 1 else None

    @property
    def prepared(self) -> Prepared | None:
        """What the latest step ran with."""
        return self._latest.prepared if self._latest else None

    # The step, phase by phase.

    def called(self) -> None:
        """The module is called: until `runs`, it is captured and planned, which counts in no step."""
        self._paused += pause_all()

    def runs(self) -> None:
        """From now on the module computes, or its call is over."""
        resume(self._paused)
        self._paused = ()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Planning in the middle of a step counts in none."""
        self.called()
        try:
            yield
        finally:
            self.runs()

    def begin(self, step: CapturedStep, args: list[Any]) -> RewrittenStep:
        if self._round is not None and (self._round.updated or not self._waiting.any_in(self._round)):
            self._finish()
        track = self.plans.track(step, len(self._round.calls) if self._round is not None else 0)
        track.inputs = track.inputs or shapes(args, self._module())
        under_way = self._round is not None
        self.plans.refresh(self._module(), args, place=track.place, under_way=under_way)
        made = self._planned(step, track, args)
        self.streams.begin(made, under_way=under_way)
        self.parameters.begin(made)
        self._latest, self.calls = track, self.calls + 1
        self.runs()
        resident = self._resident(args)
        for other in list(self._all):
            if other is not self and other.device == self.device:
                other.make_room(made.plan.predicted_peak_bytes - resident)
        self._start(track, step, made, args)
        return made.rewritten

    def _planned(self, step: CapturedStep, track: Track, args: list[Any]) -> Prepared:
        """A plan beside what waits; where none fits, what waits gives up its saved values."""
        while True:
            try:
                return self.plans.bring(step, track, self._resident(args))
            except BudgetError as error:
                if type(error) is not BudgetError:
                    raise
                if self._give_up(error.smallest_feasible_bytes - self.budget_bytes):
                    continue
                if not self.optimizers.leave_out():
                    resident = self._resident(args)
                    raise beside_waiting(
                        error, self._waiting.untouched(), step, resident, self.plans
                    ) from None
                warned = self.measured.peak > self.budget_bytes  # of its first update
                self.notes.append(left_out(self.optimizers.beside, error, warn=not warned))

    def _resident(self, args: Iterable[Any]) -> int:
        """Bytes that are there when a call begins: those known by name; all that were counted in the round, if those
        are more than objects more; or all that the run holds, in steps of that, so that few of them figure anew."""
        away, spread = self.parameters.bytes_away, OBJECT_SPREAD  # the graph has their bytes
        known = self.resident_bytes(args) + away - self.optimizers.beside
        if self._round is not None:
            counted = self._round.unplanned - self.optimizers.beside
            return counted if counted > known + 2 * spread else known
        run, more = self.run_meter, self.optimizers.unborn() - self.optimizers.beside
        held = run.now + more - self.streams.bytes_here + away if run else 0
        return max(known, -(-held // spread) * spread)

    def _start(self, track: Track, step: CapturedStep, made: Prepared, args: list[Any]) -> None:
        known = self.resident_bytes(args)
        if self._round is None:
            unborn, here, kept = self.optimizers.unborn(), self.streams.bytes_here, self.streams.kept_bytes
            held, made_later = known - unborn + here, unborn + max(0, kept - here)
            self.optimizers.begin()
            self._round = begun(self.device, self._tiers, held, made_later, kept)
            if self.recording:
                self.recording, meter = False, self._round.meter
                names, tiers = [s.name for s in made.graph.storages], self._tiers.values()
                self._round.recorder = Recorder(names, tiers, lambda: meter.offset, self.device)
        else:
            self._segment("outside")
            self._round.meter.count(max(0, known + self._round.state - self._round.now))
        self._round.calls.append(Call(track=track, step=step, made=made, start=self._round.now))
        self._round.given = Again(step, track.repeats, args)

    def _segment(self, phase: str, call: Call | None = None) -> None:
        """A part of the round has ended, and its peak is known: for the other calls that wait it was outside."""
        under_way = self._round
        if under_way is None or not under_way.meter.runs:
            return
        peak = under_way.meter.end()
        under_way.peak = max(peak, under_way.peak)
        if call is not None:
            call.saw(phase, peak)
        for other in under_way.calls:
            if other is not call and (phase == "update" or (other.end and (not other.done or other.kept))):
                other.saw("update" if phase == "update" else "outside", peak)

    def forward_done(self, frame: Frame) -> None:
        under_way = self._round
        if under_way is None or under_way.given is None:
            return
        call = under_way.calls[-1]
        self._segment("forward", call)
        call.end = under_way.now
        frame.held_bytes = max(0, call.end - call.start)
        frame.again, under_way.given = under_way.given, None
        frame.inputs = frame.again.storages()
        self._waiting.add(frame, call)
        if call.track.gives_up:
            self._waiting.let_go(frame, call)

    def backward_begins(self, frame: Frame, tangents: list[Any], *, keep: bool) -> tuple[Frame, bool]:
        call = self._waiting.of(frame)
        if call is None:
            return frame, keep
        call.track.arrivals.saw(tangents)
        self.parameters.backward_begins()
        under_way = self._joined(call)
        self.streams.backward_begins(last=not keep and not self._waiting.any_in(under_way, but=call))
        self._segment("outside")
        under_way.between("outside the module")
        if not call.done:
            with self.aside():
                check_loss(call, under_way, self.plans)
        call.begun = True
        if not frame.given_up and not self._fits(frame, call, keep=keep):
            if keep and self._fits(frame, call, keep=False):
                call.keeps = False
                return frame, False
            self._waiting.let_go(frame, call)
        if not frame.given_up:
            return frame, keep
        return self._again(frame, call, tangents), False

    def _joined(self, call: Call) -> Round:
        """The round under way, with this call in it: a backward may come after the update, or again."""
        if self._round is None:
            call.split = True
            held = self.resident_bytes(()) + self.streams.bytes_here
            self._round = begun(self.device, self._tiers, held, 0, self.streams.kept_bytes)
        if call not in self._round.calls:
            call.split = True
            self._round.calls.append(call)
        return self._round

    def _fits(self, frame: Frame, call: Call, *, keep: bool) -> bool:
        """Whether a backward fits beside all that is alive now; what waits makes room. True where nothing helps.

        Raises:
            BudgetError: it does not, under no plan, and its forward may not run again.
        """
        assert self._round is not None
        made, boundary = call.made, call.step.boundary
        alive = made.phase_peaks["outside"] - made.profile.ops[boundary].workspace_bytes
        more = self._round.now - self.optimizers.beside - alive
        call.extra = max(call.extra, more)
        peak = self.plans.kept_peak(call.track, made) if keep else made.phase_peaks.get("backward", 0)
        over = 0 if self.plans.closed else peak + max(0, more) - self.budget_bytes
        # Objects come and go; what other calls hold, and the gradients of another backward, is worth making room for.
        spread = 0 if len(self._round.calls) > 1 or keep or call.done else OBJECT_SPREAD
        if over <= spread or self._give_up(over, but=frame) >= over:
            return True
        if self._waiting.may_give_up(frame):
            return False
        call.track.saw_obstacle(frame.again)
        if over <= OBJECT_SPREAD:
            return True
        if keep and not call.done:
            raise no_room_kept(call, self.budget_bytes, peak + max(0, more), self.plans)
        with self.aside():
            check_beside(call, more, self.plans)
        return True

    def _again(self, frame: Frame, call: Call, tangents: list[Any]) -> Frame:
        """The forward of a call runs again, under a plan for what is alive beside it now."""
        assert self._round is not None
        assert frame.again is not None
        self.plans.keep_parameters()
        args, made = frame.again.args(), None
        while made is None:
            resident = max(0, self._round.unplanned - self.optimizers.beside - storage_bytes(tangents))
            try:
                with self.aside():
                    made = self.plans.again(call.step, call.track, resident)
            except BudgetError as error:
                if not self._give_up(error.smallest_feasible_bytes - self.budget_bytes, but=frame):
                    raise no_room_beside(error, self.budget_bytes, len(self._waiting)) from None
        call.reran = True
        self._round.lend(*self.streams.make_room(made))
        with frame.again.replayed():
            return repeat_forward(call.step, made.rewritten, self._tiers, args)

    def backward_done(self, frame: Frame, *, kept: bool) -> None:
        call = self._waiting.of(frame) if kept else self._waiting.gone(frame)
        if call is None or self._round is None:
            return
        if not frame.reported:  # another backward of the same step shows nothing new
            frame.reported = True
            call.track.densities.saw(frame.densities, frame.overflowed)
            self.measured.encoded = frame.encoded_bytes
        if kept and not call.keeps and not frame.given_up:
            self._waiting.let_go(frame, call)
        self._segment("backward", call)
        call.done, call.kept, call.track.kept = True, kept, call.track.kept or kept
        self.streams.backward_done()
        under_way, self.backwards = self._round, self.backwards + 1
        self.measured.saw(under_way, transferred(self._tiers.values()))
        call.track.ran += 1
        self.note_peak(under_way.note_peaks())
        if not self.optimizers and not self._waiting.any_in(under_way):
            self._finish()

    @property
    def stepping(self) -> bool:
        return self._round is not None

    def updated(self, *, all_stepped: bool) -> None:
        if self._round is not None and any(call.done for call in self._round.calls):
            self._segment("update")
            self._round.updated = True
            self._round.between("update")
            self.note_peak(self._round.note_peaks())
            if all_stepped:
                self._finish()

    def note_peak(self, peak: int) -> int:
        self.measured.peak = max(self.measured.peak, peak)
        if (latest := self._latest) is not None:
            latest.peak = max(latest.peak, peak)
        return peak

    def _finish(self) -> None:
        under_way, self._round = self._round, None
        allocator.trim()
        if under_way is None:
            return
        self.note_peak(under_way.note_peaks())
        under_way.meter.stop()
        if under_way.recorder is not None:
            if under_way.complete:
                self.measured.timeline = under_way.recorder.close()
            else:
                under_way.recorder.close()
                self.recording = True  # a recording that was given up begins anew
        learn(under_way, self.plans)

    # What waits.

    def make_room(self, growth: int) -> None:
        """Another module's step begins and takes so many bytes. Once that was seen, the plans have room for it."""
        unseen = any(call.track.outside is None for _, call in self._waiting.untouched())
        if self._round is not None and unseen:
            self._give_up(self._round.now + growth - self.budget_bytes)

    def _give_up(self, needed: int, *, but: Frame | None = None) -> int:
        """As `Waiting.give_up`; what comes free is the steps' own, also in the middle of planning."""
        paused = bool(self._paused)
        self.runs()
        freed = self._waiting.give_up(needed, but=but)
        if paused:
            self.called()
        return freed

    def close(self) -> None:
        """Let go of plans, graphs and tiers. A step whose backward is yet to come keeps what it needs."""
        if self._round is not None:
            self._round.close()
        self.streams.close()
        self.parameters.close()
        for tier in () if self._waiting else self._tiers.values():
            tier.close()
        self.plans.close()
        self._round, self._latest, self._tiers = None, None, {}

    # What is resident.

    def buffers(self) -> dict[int, str]:
        return buffers(self._module())

    def resident_bytes(self, args: Iterable[Any]) -> int:
        """Bytes of the module, its gradients, the optimizer's state and the inputs, each storage once."""
        inputs, saved = self._waiting.held()
        held = named_bytes(self._module(), args, self.device) | inputs | self.optimizers.storages()
        inside = self.optimizers.workspace if self.optimizers.runs_steps else 0
        return sum(held.values()) + self.optimizers.unborn() + inside + saved

    # What happened.

    def record(self) -> RunRecord | None:
        """The figures so far, or None before the first step."""
        made = self.prepared
        if self._latest is None or made is None:
            return None
        return run_record(self.plans, self._latest, made, self.measured, self.notes, self.capture_seconds)
