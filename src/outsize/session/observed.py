"""One module whose steps run in eager PyTorch under one budget: the first of each path observed, the others replayed.

The captured door (`session.py`) knows a step before it runs. This one knows it after it ran, so it works the other way
round: a call is observed, its path is planned, and the next call that looks like it follows the plan. A step that takes
another path gives way as it goes: what autograd has saved is written to the tier, oldest first, while the bytes alive
come near the budget.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, final

import torch

from ..device import allocator
from ..errors import BudgetError
from ..observe import Observer, build_observed
from ..prepared import Learned, PreparedReplay, PrepareObserved
from ..replay import Replayed
from ..runtime.tiers import Tier
from ..values import RunRecord
from .eager import EagerCall, EagerRound, learn_path, warn_over
from .eager_record import eager_record
from .meter import StepMeter, pause_all, resume
from .optimizers import Optimizers
from .paths import GROWN, SIGHTINGS, Path, Paths, pattern_of
from .plans import OBJECT_SPREAD
from .relief import Relief
from .residents import named_bytes, shapes
from .state import Measured, transferred
from .updates import Updating

__all__ = ["ObservedSession"]


@final
class ObservedSession(Updating):
    """Owns tiers, meter and paths of one module.

    Args:
        spare: makes a tier for steps that no plan covers, where plans may not swap.
        why: the reason that it is not captured, for the report.
        strict: a path that cannot be kept under the budget is an error.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: Any,
        tiers: dict[str, Tier],
        prepare: PrepareObserved,
        budget_bytes: int,
        device: torch.device,
        *,
        spare: Callable[[], dict[str, Tier]],
        why: str,
        strict: bool,
    ) -> None:
        self._module, self.device = weakref.ref(module), device
        self.optimizers = Optimizers(optimizer, device)
        self._tiers, self.budget_bytes, self.prepare = tiers, budget_bytes, prepare
        self.notes: list[str] = [f"door: observed ({why})"]
        self.recording = False
        self._relief = Relief(budget_bytes, tiers, spare, strict=strict)
        self.paths, self.measured = Paths(), Measured()
        self._round: EagerRound | None = None
        self._latest: Path | None = None
        self._running: int | None = None
        #: Counts all bytes of a run, where an integration keeps one.
        self.run_meter: StepMeter | None = None
        self._over = 0
        self.calls = self.backwards = 0

    # A call.

    def call(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the module in eager PyTorch, observed or under a plan."""
        if self._running is not None:  # in itself, or by another thread meanwhile
            return module._call_impl(*args, **kwargs)
        self._running = threading.get_ident()
        try:
            return self._call(module, args, kwargs)
        except BaseException:
            self._abandon()
            raise
        finally:
            self._running = None

    def _call(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pattern, tensors = pattern_of(module, args, kwargs)
        if self._round is not None and (self._round.updated or not any(c.waits for c in self._round.calls)):
            self._finish()
        path = self.paths.likely(pattern)
        held = named_bytes(module, tensors, self.device)
        known, resident = self._with_state(held), set(held)
        made = self._planned(path, known) if path is not None else None
        under_way = self._begin(tensors, known)
        call: Observer | Replayed
        if made is None or path is None:
            entry = EagerCall(pattern=pattern, inputs=shapes(tensors, module))
            call = Observer(
                resident, self.device, under_way, room=self._room, tier=self._tier, give_way=self._give_way,
                begun=functools.partial(self._begins, entry), ended=functools.partial(self._observed_ends, entry),
            )  # fmt: skip
        else:
            entry = EagerCall(pattern=pattern, inputs=path.inputs, path=path, made=made)
            call = Replayed(
                made.program, resident, self.device, self._tiers,
                diverged=self._strayed, room=self._give_way, begun=functools.partial(self._replay_begins, entry),
            )  # fmt: skip
        entry.keeper, entry.resident = weakref.ref(call), known
        under_way.calls.append(entry)
        under_way.current, under_way.phase = entry, "forward"
        self._latest, self.calls = entry.path or self._latest, self.calls + 1
        with call.forward():
            result = module._call_impl(*args, **kwargs)
        if isinstance(call, Observer):
            call.forward_done(result, tensors)
        else:
            call.forward_done()
        under_way.peak()
        under_way.phase = "outside"
        return result

    def _begin(self, tensors: list[torch.Tensor], known: int) -> EagerRound:
        if self._round is None:
            unborn = self.optimizers.unborn()
            self.optimizers.begin()
            counters = transferred(self._tiers.values())
            self._round = EagerRound(known - unborn, unborn, self.device, counters)
        else:
            self._round.peak()
            more = sum(named_bytes(None, tensors, self.device).values())
            self._round.meter.count(max(0, min(more, known - self._round.now)))
        return self._round

    def _planned(self, path: Path, resident: int) -> PreparedReplay | None:
        """The plan of a path for so many resident bytes; None where it has to be observed once more."""
        held = 0
        if self._round is not None:
            held = self._round.now + self._round.unborn
        elif self.run_meter is not None:
            held = self.run_meter.now + self.optimizers.unborn() - self.optimizers.beside
        # In steps, so that the objects by which rounds differ do not make the plan anew.
        resident = max(resident, -(-held // OBJECT_SPREAD) * OBJECT_SPREAD)
        if path.prepared is not None and not path.stale and resident <= path.resident:
            return path.prepared
        if (
            path.sightings < 2 * path.refused
            and not path.stale
            and path.keeps(self.budget_bytes, resident - OBJECT_SPREAD)
        ):
            return None
        paused = pause_all()
        try:
            try:
                made = self.prepare(path.step, self.learned(path, max(resident, path.resident)))
            except BudgetError:
                if path.stale == GROWN and resident <= path.resident:
                    path.stale = ""
                    return path.prepared  # with which a larger step makes room as it goes
                if not path.keeps(self.budget_bytes, resident - OBJECT_SPREAD):
                    raise
                path.refused = path.sightings
                return None  # it makes room as it goes, as it has done
            if made.plan.decisions and path.sightings < SIGHTINGS and self._tiers:
                return None
            self.adopt(path, made, resident)
        finally:
            resume(paused)
        return made

    def adopt(self, path: Path, made: PreparedReplay, resident: int) -> None:
        """A plan for so many resident bytes comes into force."""
        for tier in self._tiers.values():
            tier.reserve(made.plan.swapped_bytes)
        allocator.trim(everything=True)
        if path.stale and path.stale != GROWN:
            self.notes.append(path.stale)
        path.prepared, path.resident, path.stale = made, max(resident, path.resident), ""
        path.refused = 0
        path.peak, path.warned = 0, False

    def learned(self, path: Path, resident: int) -> Learned:
        """All that is known of a path before it is planned, with so many resident bytes."""
        return Learned(
            resident=max(0, resident - path.step.graph.resident_bytes),
            outside=path.outside,
            update=self.optimizers.workspace,
            bias=path.bias,
            densities=path.step.densities,
        )

    # What happens in the call.

    def _tier(self) -> Tier | None:
        return self._relief.tier()

    def _room(self) -> int:
        """Bytes that saved tensors may still take."""
        return self._relief.room(self._round, self.paths) if self._round is not None else 0

    def _strayed(self) -> None:
        self.paths.strayed()

    def _give_way(self, needed: int) -> None:
        """A step without a plan goes on: what is saved leaves while the budget is near."""
        if self._round is not None:
            self._relief.give_way(self._round, self.paths, needed, self.optimizers.beside)

    def _begins(self, entry: EagerCall) -> None:
        """The backward of a call begins: autograd asks for the first of what it saved."""
        under_way = self._round
        if under_way is None:
            return
        under_way.peak()
        under_way.phase, under_way.current = "backward", entry
        entry.under_way = entry.keeper()

    def _replay_begins(self, entry: EagerCall) -> None:
        try:
            torch.autograd.Variable._execution_engine.queue_callback(
                functools.partial(self._replay_ends, entry)
            )
        except RuntimeError:  # somebody looks at a node, and no backward runs
            return
        self._begins(entry)

    def _replay_ends(self, entry: EagerCall) -> None:
        keeper, entry.under_way = entry.under_way, None
        if not isinstance(keeper, Replayed) or self._round is None or entry.done:
            return
        entry.done, entry.followed = True, keeper.follows and not keeper.outgrew
        keeper.done()
        self.measured.encoded = keeper.encoded_bytes
        if keeper.follows and entry.path is not None:
            self.paths.took(entry.path)
            if keeper.outgrew:
                entry.path.grew(keeper.grown)
        self._backward_ends(self._round)

    def _observed_ends(self, entry: EagerCall) -> None:
        keeper, entry.under_way = entry.under_way, None
        if not isinstance(keeper, Observer) or self._round is None or entry.done:
            return
        entry.done = True
        paused = pause_all()
        try:
            if (seen := keeper.observation()) is not None:
                self._latest = self.paths.saw(entry.pattern, build_observed(seen), entry.inputs)
                entry.path = self._latest
        finally:
            resume(paused)
        self._backward_ends(self._round)

    def _backward_ends(self, under_way: EagerRound) -> None:
        under_way.peak()
        under_way.phase = "outside"
        under_way.time.stop()
        out, into, stall = (b - a for a, b in zip(under_way.counters, transferred(self._tiers.values())))
        measured = self.measured
        measured.time, measured.stall = under_way.time, stall
        measured.bytes_out, measured.bytes_in = int(out), int(into)
        measured.steps += 1
        self.backwards += 1
        if not self.optimizers and not any(c.waits for c in under_way.calls):
            self._finish()

    def _abandon(self) -> None:
        """A call was interrupted: the round is given up, and the next one begins anew."""
        if self._round is not None:
            self._round.meter.stop()
            self._round = None

    def _finish(self) -> None:
        under_way, self._round = self._round, None
        if under_way is None:
            return
        under_way.current = None
        under_way.peak()
        under_way.meter.stop()
        if any(c.made is None or c.made.plan.decisions for c in under_way.calls):
            allocator.trim()  # a step that nothing was done to takes the same pages again
        self.note_peak(under_way.highest)
        if self.calls > len(under_way.calls):  # a first step is observed, whatever it takes
            self.paths.peak = max(self.paths.peak, under_way.reached)
        for call in under_way.calls:
            if call.done and call.path is not None:
                learn_path(call, under_way, call.path, self.budget_bytes, self.optimizers)
        if self.calls > 1:
            warn_over(under_way, self.budget_bytes + self.optimizers.beside, self.paths)

    # What is resident, what was updated, what happened.

    def resident_bytes(self, args: Iterable[Any]) -> int:
        return self._with_state(named_bytes(self._module(), args, self.device))

    def _with_state(self, held: dict[int, int]) -> int:
        """Bytes of these storages, and those of the optimizers' state."""
        optimizers = self.optimizers
        inside = optimizers.workspace if optimizers.runs_steps else 0
        return sum((held | optimizers.storages()).values()) + optimizers.unborn() + inside

    @property
    def stepping(self) -> bool:
        return self._round is not None

    def updated(self, *, all_stepped: bool) -> None:
        under_way = self._round
        if under_way is not None and any(call.done for call in under_way.calls):
            under_way.phase = "update"
            under_way.peak()
            under_way.phase = "outside"
            under_way.updated = True
            if all_stepped:
                self._finish()

    def note_peak(self, peak: int) -> int:
        self.measured.peak = max(self.measured.peak, peak)
        return peak

    @property
    def prepared(self) -> PreparedReplay | None:
        """What the latest planned step ran with."""
        return self._latest.prepared if self._latest is not None else None

    def record(self) -> RunRecord | None:
        """The figures so far, or None before the first step."""
        if self._latest is None:
            return None
        notes = [*self.notes, *self._relief.notes()]
        return eager_record(self.paths, self._latest, self.measured, notes, self.budget_bytes)

    def close(self) -> None:
        """Let go of plans and tiers. A step whose backward is yet to come keeps what it needs."""
        waiting = self._round is not None and any(c.waits for c in self._round.calls)
        self._abandon()
        for tier in () if waiting else self._tiers.values():
            tier.close()
        if not waiting:
            self._relief.close()
        self.paths, self._tiers, self._latest = Paths(), {}, None
