"""What a measured round teaches: what was taken outside the module, who needs room beside whom, when to plan again."""

from __future__ import annotations

import warnings

from ..errors import BudgetWarning
from ..prepared import Prepared
from ..units import format_bytes
from .plans import OBJECT_SPREAD, Plans, least_held
from .state import Call, Round, Track

__all__ = ["learn", "learn_outside"]

#: Plans made anew because a step went over its budget. A second one was needed where both ends of a step were over.
MOST_CORRECTIONS = 3
#: Another plan is made where the loss took this share of the budget, or of the predicted peak, less than planned.
LOSS_WORTH_A_PLAN = 0.01
_PHASES = {"forward": "forward", "outside": "loss", "backward": "backward", "update": "update"}


def learn(under_way: Round, plans: Plans) -> None:
    """A round has ended."""
    _warn(under_way, plans)
    for call in under_way.calls:
        if call.done and not call.split and not call.track.final and not call.track.uses_others():
            _learn_call(call, under_way, plans)
    _share_room(under_way, plans)


def _learn_call(call: Call, under_way: Round, plans: Plans) -> None:
    """Bytes outside the module, and whether to plan again."""
    track, made = call.track, call.made
    fresh = call.taught or track.outside is None
    if track.outside is None:
        learn_outside(call, under_way, plans)
    if call.extra > max(track.later, made.object_bytes):
        track.later = call.extra + (OBJECT_SPREAD if track.kept else 0)  # named in an error, it must do
        if made.phase_peaks.get("backward", 0) + call.extra > plans.budget_bytes:
            track.stale = track.stale or "planned again with what other calls hold in the backward"
    # The plan counts the optimizer's state from the start; a first step has it from its update only.
    peaks = {p: n + (under_way.unborn if p != "update" else 0) for p, n in call.peaks.items()}
    worst, track.steps = max(peaks.values()), track.steps + 1
    # What a process allocates once in a first step no plan can shrink; the loss's bytes are known from it on.
    limit = plans.budget_bytes + plans.optimizers.beside
    if worst <= limit or (track.steps == 1 and (fresh or worst != peaks.get("outside"))):
        return
    track.over += 1
    again = track.over > 1 or worst > limit + OBJECT_SPREAD
    if again and track.corrections < MOST_CORRECTIONS:
        track.corrections += 1
        _correct(track, made, call, peaks, plans)
        track.stale = (
            f"a step reached {worst} bytes, over the budget of {plans.budget_bytes}: "
            "planned again with what was measured"
        )


def _correct(track: Track, made: Prepared, call: Call, peaks: dict[str, int], plans: Plans) -> None:
    """Add what each phase took beyond the prediction to what is reserved for it."""
    more = {p: max(0, peaks.get(p, 0) - made.phase_peaks.get(p, 0)) for p in _PHASES}
    track.bias += max(more["forward"], 0 if call.reran else more["backward"])
    if track.outside is not None and not call.given_up:
        track.outside += more["outside"]
    plans.optimizers.learned_workspace += more["update"]


def learn_outside(call: Call, under_way: Round, plans: Plans) -> None:
    """Replace the guess of what the loss takes by what it took; plan again where that frees room or needs it.

    What is kept free for objects stays free beside it: later steps had up to 70 KB more of them than the first.
    """
    if "outside" not in call.peaks:
        return
    track, made, boundary = call.track, call.made, call.step.boundary
    guess = made.profile.ops[boundary].workspace_bytes
    spare = made.phase_peaks.get("outside", 0) - made.object_bytes - call.given_up
    call.taught = True
    # Between two backwards of a call its own gradients are alive as well, and those have a place of their own.
    kept = max(track.later, call.extra) if track.kept else 0
    track.outside = max(0, guess + under_way.unborn + call.peaks["outside"] - spare - kept)
    plans.losses.saw(call.step, track.place, track.outside)
    more = track.outside - guess
    worth = LOSS_WORTH_A_PLAN * min(plans.budget_bytes, made.plan.predicted_peak_bytes)
    if track.prepared is not made or -worth <= more <= max(worth, OBJECT_SPREAD):
        return
    # A plan without decisions, or with room for more, serves as it is: only its figures change.
    if more > 0 or not made.plan.decisions:
        figured = plans.figured(made, made.graph, boundary, track.outside)
        if figured is not None:
            track.prepared, track.kept_peak = figured, None
            return
    track.stale = "planned again with the bytes that the loss took"


def _share_room(under_way: Round, plans: Plans) -> None:
    """Calls that had to give up what they saved, so that others could run: how much to leave for those next time.

    Between the least that each call can do with and what it would take unplanned, all get the same share of the room.
    """
    calls = [c for c in under_way.calls if c.end]
    for index, call in enumerate(calls):
        track, later = call.track, calls[index + 1 :]
        if track.room or not call.done or call.split:
            continue
        if not call.given_up:
            if (
                len(calls) > 1 and track.stale
            ):  # what it needs outside are other calls: it may give up instead
                track.room = (track.outside or 0,)
            continue
        if not later:  # another module's steps ran meanwhile, under a budget of their own
            track.room = (track.outside or 0,)
            continue
        least, most = _beside(later, plans, least=True), _beside(later, plans, least=False)
        plain = call.made.graph.plain_residency()[call.step.boundary] - call.made.graph.resident_bytes
        floor = least_held(call.made.graph, call.step.boundary)
        room = plans.budget_bytes - call.made.graph.resident_bytes - floor - least
        wanted = max(1, plain - floor + most - least)
        share = min(1.0, max(0.0, room / wanted))
        track.room = tuple(dict.fromkeys(int(least + s * (most - least)) for s in (share, share / 2, 0.0)))
        track.stale = track.stale or f"planned again for the {len(later)} calls that run while it waits"


def _beside(calls: list[Call], plans: Plans, *, least: bool) -> int:
    """Bytes that the calls take, one after the other, each held until all have run."""
    held = highest = 0
    for call in calls:
        graph, boundary = call.made.graph, call.step.boundary
        if least:
            takes, keeps = plans.needs(call.step, call.track), least_held(graph, boundary)
        else:
            curve = graph.plain_residency(call.made.profile.workspace)
            takes, keeps = max(curve) - graph.resident_bytes, curve[boundary] - graph.resident_bytes
        highest = max(highest, held + takes)
        held += keeps
    return highest


def _warn(under_way: Round, plans: Plans) -> None:
    """Once a plan: its step went over the budget."""
    worst = max((c for c in under_way.calls if c.peaks), key=lambda c: max(c.peaks.values()), default=None)
    limit = plans.budget_bytes + plans.optimizers.beside
    if worst is None or (peak := max(worst.peaks.values())) <= limit or worst.track.warned:
        return
    worst.track.warned = True
    phase = max(worst.peaks, key=lambda p: worst.peaks[p])
    if phase == "update" and plans.optimizers.late:
        return  # of an optimizer that was not given, which is said by itself
    made = worst.made
    warnings.warn(
        BudgetWarning(
            f"a step reached {format_bytes(peak)} ({peak} bytes) in its {_PHASES[phase]}, "
            f"{format_bytes(peak - plans.budget_bytes)} over the budget of {format_bytes(plans.budget_bytes)} "
            f"({plans.budget_bytes} bytes); the plan foresaw {format_bytes(made.phase_peaks.get(phase, 0))} there. The "
            "next step is planned with what was measured, where that leaves a plan",
            peak_bytes=peak,
            budget_bytes=plans.budget_bytes,
        ),
        stacklevel=2,
    )
