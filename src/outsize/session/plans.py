"""The plans of a session: when one still serves, when another is made, and with what knowledge."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch

from ..codecs import DensityMeter
from ..device import allocator
from ..errors import BudgetError, PlanError
from ..fx import CapturedStep
from ..plan import check, lower, simulate
from ..plan.schedule.kept import kept_peak
from ..plan.schedule.phases import phase_peaks
from ..prepared import Learned, Prepare, Prepared, released
from ..runtime.tiers import Tier
from ..values import StepGraph
from .again import repeat_facts
from .arrivals import Arrivals
from .density import DensityWatch
from .guess import prepare_first
from .losses import LossSizes
from .optimizers import Optimizers
from .parameters import Parameters
from .state import Track
from .sums import say_order_of_sums

__all__ = ["MOST_PLACES", "OBJECT_SPREAD", "Plans", "least_held"]

#: Share of the budget that is reserved in vain before the densities seen are worth another plan.
ROOM_WORTH_A_PLAN = 0.02
#: Bytes of objects by which steps differ: the budget that an error names has room for them, and one step that is over
#: by no more is no reason to plan again (a process's table that doubles in the middle of it); a second one is.
OBJECT_SPREAD = 2**16
#: Places of a round that have plans of their own; a cell that is called a hundred times before its backward has one
#: plan from the eighth call on, made for the most that was resident then.
MOST_PLACES = 8


@final
class Plans:
    """Makes and keeps the plans of one module's steps, by step and place in the round.

    Args:
        prepare: from a step and what is known of it to a plan.
        tiers: by name.
        budget_bytes: of the module.
        optimizers: what updates the module.
        parameters: of the module, as far as they may move.
        notes: for the report.
        repeats: whether a forward may run again; while parameters move, none does.
    """

    def __init__(
        self,
        prepare: Prepare,
        tiers: dict[str, Tier],
        budget_bytes: int,
        optimizers: Optimizers,
        parameters: Parameters,
        notes: list[str],
        *,
        repeats: bool,
    ) -> None:
        self.prepare, self.budget_bytes, self.repeats = prepare, budget_bytes, repeats
        self.parameters = parameters
        self.tracks: weakref.WeakKeyDictionary[CapturedStep, dict[int, Track]] = weakref.WeakKeyDictionary()
        self.losses = LossSizes()
        self.optimizers = optimizers
        self._tiers, self._notes = tiers, notes
        self._shown = DensityMeter(margin=0.0)

    @property
    def may_repeat(self) -> bool:
        """Whether a forward may run again: it would find parameters where the plan in force has them, not its own."""
        return self.repeats and not self.parameters.units

    def close(self) -> None:
        """Let go of plans and graphs."""
        self.tracks.clear()
        self._tiers, self.prepare = {}, released

    @property
    def closed(self) -> bool:
        """Whether the session has ended: a backward that is yet to come runs as it is."""
        return self.prepare is released

    def refresh(
        self, module: torch.nn.Module | None, args: Sequence[Any], *, place: int, under_way: bool
    ) -> None:
        """Before a call of the step with these inputs: look again at what may move. Plans are made anew where that has
        changed."""
        moved = self.optimizers.streams.refresh(module, args, place=place, under_way=under_way)
        if self.parameters.refresh(module, args, place=place) or moved:
            self.forget()

    def keep_parameters(self) -> None:
        """A forward runs again, under a plan of its own: from now on parameters stay on the device."""
        if self.parameters.stop():
            self.forget()

    def forget(self) -> None:
        """Make all plans anew: what may move is not what it was."""
        for places in self.tracks.values():
            for track in places.values():
                track.prepared = track.again = track.kept_peak = None

    def track(self, step: CapturedStep, place: int) -> Track:
        """What is known of a step at a place of its round."""
        places = self.tracks.setdefault(step, {})
        place = min(place, MOST_PLACES - 1)
        if place not in places:
            if place == 1:
                say_order_of_sums(step)
            watch = DensityWatch(step.graph, self._shown)
            facts = next((t.repeats for t in places.values()), None) or repeat_facts(step)
            places[place] = Track(place=place, densities=watch, arrivals=Arrivals(step), repeats=facts)
        return places[place]

    def bring(self, step: CapturedStep, track: Track, resident: int) -> Prepared:
        """The plan for a call that begins with so many resident bytes.

        Raises:
            BudgetError: none fits.
        """
        made = track.prepared
        if made is None:
            made = self._plan(step, track, resident)
        elif track.stale or self._drifted(track, made):
            made = self._plan_again(step, track, made, max(resident, track.resident))
            gc.collect()  # also where that was in vain: planning leaves cycles, which would count in the step
        elif resident > track.resident:
            grown = self._figured_anew(step, track, made, resident)
            made = grown or self._plan(step, track, resident)
        return made

    def _plan(self, step: CapturedStep, track: Track, resident: int) -> Prepared:
        return self.adopt(track, self._prepared_for(step, track, resident), resident)

    def adopt(self, track: Track, prepared: Prepared, resident: int) -> Prepared:
        """A plan for so many resident bytes comes into force."""
        track.prepared, track.resident = prepared, resident
        self._notes += [track.stale] if track.stale else []
        track.stale, track.drifted, track.steps, track.peak = "", False, 0, 0
        track.warned = False
        track.kept_peak = track.again = None
        track.densities.planned()
        track.arrivals.planned()
        self._ready(prepared)
        return prepared

    def _ready(self, prepared: Prepared) -> None:
        encodes = any(d.encoded_bytes for d in prepared.plan.decisions)
        # What is denser than planned goes to a tier, whose threads must have started before the step is counted.
        for tier in self._tiers.values():
            rests = prepared.plan.parameter_resting_bytes
            tier.reserve(prepared.plan.swapped_bytes + rests or int(encodes))
        gc.collect()  # planning leaves graphs in cycles, which would come free in the middle of the step's count
        # Pages of the steps before would stand in the first one's resident set.
        allocator.trim(everything=True)

    def learned(self, step: CapturedStep, track: Track, resident: int) -> Learned:
        """All that is known of a step before it is planned."""
        known = track.outside if track.outside is not None else track.guess
        return Learned(
            resident=max(0, resident - step.graph.resident_bytes),
            outside=known if known is not None else self.losses.expected(step, track.place),
            later=track.later,
            update=self.optimizers.workspace,
            bias=track.bias,
            densities=track.densities.expected(),
            costs=track.costs,
            absent=track.arrivals.absent,
            units=self.optimizers.streams.units,
            parameters=self.parameters.units,
        )

    def _prepared_for(self, step: CapturedStep, track: Track, resident: int) -> Prepared:
        """With what is known; where only the guess of what the loss takes does not fit, with a smaller one."""
        learned = self.learned(step, track, resident)
        if track.room:
            return self._shared_out(step, track, learned)
        return prepare_first(
            lambda step, learned: self.beside_others(step, track, learned),
            step,
            learned,
            track,
            self.budget_bytes,
        )

    def beside_others(self, step: CapturedStep, track: Track, learned: Learned) -> Prepared:
        """With room in the backward for what other calls hold by then; without it, where no plan has that much: the
        forward runs again when the backward comes, under a plan for what is alive then."""
        try:
            return self.prepare(step, learned)
        except BudgetError:
            if not learned.later or track.repeats.refused or not self.may_repeat:
                raise
            return self.prepare(step, replace(learned, later=0))

    def _shared_out(self, step: CapturedStep, track: Track, learned: Learned) -> Prepared:
        """Other calls run while this one waits: with what they were allotted, else with the least that they can do
        with; where even that does not fit, what the forward saves is given up and it runs again."""
        for outside in track.room:
            try:
                prepared = self.beside_others(step, track, replace(learned, outside=outside))
            except BudgetError:
                continue
            track.outside, track.gives_up = outside, False
            return prepared
        if track.repeats.refused or not self.may_repeat:
            return self.prepare(step, replace(learned, outside=track.room[-1]))
        track.gives_up = True
        return self.prepare(step, replace(learned, outside=0, later=0))

    def _plan_again(self, step: CapturedStep, track: Track, before: Prepared, resident: int) -> Prepared:
        """With what was learned; if no plan fits that, the one in force has served so far and stays."""
        try:
            return self._plan(step, track, resident)
        except BudgetError as error:
            if resident > track.resident or (track.tight and track.peak > self.budget_bytes):
                raise  # the guess for the loss was too small
            if track.kept and not track.drifted:
                raise  # what lies between two backwards of a call is known from the first step on only
            if track.drifted and track.densities.refused():
                return self._plan_again(step, track, before, resident)
            note = f"{track.stale}, in vain, so the plan before stays: {error}"
            warnings.warn(note, RuntimeWarning, stacklevel=2)
            self._notes.append(note)
            track.final = not track.drifted
            track.stale, track.drifted = "", False
            return before

    def _drifted(self, track: Track, made: Prepared) -> bool:
        """Whether the densities have moved so far that another plan is worth its time."""
        worth = int(self.budget_bytes * ROOM_WORTH_A_PLAN)
        track.stale = "" if track.final else track.densities.reason(made.plan, worth)
        track.drifted = bool(track.stale)
        return track.drifted

    def again(self, step: CapturedStep, track: Track, resident: int) -> Prepared:
        """The plan of a forward that runs again at once before its backward, with so many bytes beside it.

        Raises:
            BudgetError: none fits.
        """
        if track.again is None or track.again[1] < resident:
            learned = self.learned(step, track, resident + OBJECT_SPREAD)
            try:
                prepared = self.prepare(step, replace(learned, outside=0, later=0))
            except BudgetError:
                prepared = self.prepare(
                    step, replace(self.learned(step, track, resident), outside=0, later=0)
                )
                track.again = (prepared, resident)
            else:
                track.again = (prepared, resident + OBJECT_SPREAD)
            self._ready(prepared)
        return track.again[0]

    def needs(self, step: CapturedStep, track: Track, *, alone: bool = False) -> int:
        """Bytes of the smallest plan beside its resident ones.

        Args:
            alone: of a forward that runs again right before its backward, with no loss in between.
        """
        learned = self.learned(step, track, step.graph.resident_bytes)
        if alone:
            learned = replace(learned, outside=0, later=0)
        try:  # so many resident bytes fit no budget, and the smallest that would do moves with them
            self.prepare(step, replace(learned, resident=self.budget_bytes))
        except BudgetError as error:
            return error.smallest_feasible_bytes - self.budget_bytes - step.graph.resident_bytes
        raise AssertionError("a step that needs nothing")

    def kept_peak(self, track: Track, made: Prepared) -> int:
        """Peak of the backward where autograd keeps what was saved."""
        if track.kept_peak is None:
            track.kept_peak = kept_peak(made.graph, made.profile, lower(made.graph, made.plan))
        return track.kept_peak

    def _figured_anew(
        self, step: CapturedStep, track: Track, made: Prepared, resident: int
    ) -> Prepared | None:
        """The same plan with more resident bytes, where it fits them."""
        more = resident - track.resident
        graph = replace(made.graph, extra_resident_bytes=made.graph.extra_resident_bytes + more)
        fitting = self.figured(made, graph, step.boundary)
        if fitting is not None:
            track.prepared, track.resident, track.kept_peak, track.steps = fitting, resident, None, 0
        return fitting

    def figured(
        self, made: Prepared, graph: StepGraph, boundary: int, outside: int | None = None
    ) -> Prepared | None:
        """The figures of a plan in force with other resident bytes or other bytes outside; None if it does not fit."""
        costs = list(made.profile.ops)
        for op in graph.ops:
            if op.phase == "update":
                costs[op.index] = replace(costs[op.index], workspace_bytes=self.optimizers.workspace)
        if outside is not None:
            costs[boundary] = replace(costs[boundary], workspace_bytes=outside)
        profile = replace(made.profile, ops=tuple(costs))
        schedule = lower(graph, made.plan)
        try:
            check(graph, profile, schedule, self.budget_bytes)
        except PlanError:
            return None
        timeline = simulate(graph, profile, schedule)
        peaks = phase_peaks(graph, schedule, timeline)
        plan = replace(
            made.plan,
            plain_peak_bytes=max(graph.plain_residency(profile.workspace)),
            predicted_peak_bytes=timeline.peak_bytes,
            resident_bytes=graph.resident_bytes,
        )
        return replace(made, graph=graph, profile=profile, plan=plan, phase_peaks=peaks)


def least_held(graph: StepGraph, boundary: int) -> int:
    """Bytes that a call holds while it waits though all that it saved is given up: its results."""
    return sum(s.nbytes for s in graph.storages if s.kind == "output" and s.producer < boundary)
