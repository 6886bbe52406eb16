"""Refusals of calls that wait for their backward, with a budget that works for all of them together."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace

from ..errors import BudgetError
from ..fx import CapturedStep
from ..plan import lower
from ..plan.schedule.kept import kept_peak
from ..runtime.frame import Frame
from ..units import format_bytes
from .learn import learn_outside
from .plans import OBJECT_SPREAD, Plans, least_held
from .state import Call, Round

__all__ = [
    "beside_waiting",
    "check_beside",
    "check_loss",
    "no_room_beside",
    "no_room_kept",
    "no_room_outside",
]


def beside_waiting(
    error: BudgetError,
    waiting: Sequence[tuple[Frame, Call]],
    step: CapturedStep,
    resident: int,
    plans: Plans,
) -> BudgetError:
    """A forward does not fit beside those whose backward has yet to come.

    A call that may run again holds its inputs and results while it waits; the others hold all that they save unplanned,
    since a larger budget lets them. The backward of each meets the gradients of those before it. As many calls again as
    wait now have room, so that a loop of several does not hear of them one by one.
    """
    error = _with_held(error, plans.parameters.held)
    if not waiting:
        return error
    smallest, results = error.smallest_feasible_bytes, least_held(step.graph, step.boundary)
    gradients = sum(s.nbytes for s in step.graph.storages if s.kind == "gradient")
    again = 0
    for frame, call in waiting:
        graph, boundary = call.made.graph, call.step.boundary
        held = least_held(graph, boundary)
        again += held
        if frame.given_up:
            beside = resident + gradients + results
            smallest = max(smallest, beside + plans.needs(call.step, call.track, alone=True))
        else:
            curve = graph.plain_residency(call.made.profile.workspace)
            plain = curve[boundary] - graph.resident_bytes
            smallest += max(0, plain - frame.held_bytes)
            smallest = max(smallest, max(curve) + gradients + results)
    smallest += again + OBJECT_SPREAD
    count = len(waiting)
    return BudgetError(
        f"a budget of {format_bytes(plans.budget_bytes)} ({plans.budget_bytes} bytes) is below "
        f"{format_bytes(smallest)} ({smallest} bytes), the smallest for a forward that begins while {count} "
        f"other{'s' if count > 1 else ''} of the module wait{'' if count > 1 else 's'} for a backward: each holds its "
        f"inputs and results meanwhile, and its backward meets the gradients of those before it. "
        f"Beside them alone: {error}",
        smallest_feasible_bytes=smallest,
        dominating=error.dominating,
    )


def _with_held(error: BudgetError, names: Sequence[str]) -> BudgetError:
    """The same, where frozen parameters stay on the device because somebody else holds their bytes."""
    if not names:
        return error
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return BudgetError(
        f"{error} The frozen parameter {names[0]}{more} would rest on a tier, but a view, a state_dict or another tensor "
        "holds its bytes: let go of that before the next forward, or keep a clone",
        smallest_feasible_bytes=error.smallest_feasible_bytes,
        dominating=error.dominating,
    )


def no_room_beside(error: BudgetError, budget: int, waiting: int) -> BudgetError:
    """A forward that has to run again for its backward does not fit beside what is alive by then."""
    smallest = error.smallest_feasible_bytes + OBJECT_SPREAD
    return BudgetError(
        f"a budget of {format_bytes(budget)} ({budget} bytes) is below {format_bytes(smallest)} ({smallest} bytes), the "
        f"smallest for this backward: {waiting} calls of the module had yet to be gone through when it began, with their "
        f"gradients and results beside it. {error}",
        smallest_feasible_bytes=smallest,
        dominating=error.dominating,
    )


def no_room_kept(call: Call, budget: int, peak: int, plans: Plans) -> BudgetError:
    """`retain_graph=True` keeps more than the budget has room for, and the forward may not run again."""
    made = call.made
    bare = lower(made.graph, replace(made.plan, decisions=()))
    smallest = max(peak, kept_peak(made.graph, made.profile, bare)) + OBJECT_SPREAD
    moving = "residents='frozen' moves parameters meanwhile" if plans.parameters.units else ""
    why = call.track.repeats.refused or moving or "the actions allowed have no 'recompute'"
    return BudgetError(
        f"backward(retain_graph=True) keeps what the forward saved for another backward, which takes "
        f"{format_bytes(peak)} ({peak} bytes) at once, over the budget of {format_bytes(budget)}; its forward cannot run "
        f"again instead ({why}). Add the losses up and call backward() once, allow 'recompute', or give "
        f"{format_bytes(smallest)} ({smallest} bytes)",
        smallest_feasible_bytes=smallest,
    )


def check_beside(call: Call, more: int, plans: Plans) -> None:
    """A backward does not fit beside what is alive, and nothing can be given up: an error, where no plan has room.

    Args:
        more: bytes alive beyond what the plan in force has room for.

    Raises:
        BudgetError: none has.
    """
    learned = plans.learned(call.step, call.track, call.track.resident)
    later = max(learned.later, more + OBJECT_SPREAD)  # the next try has other objects
    plans.beside_others(call.step, call.track, replace(learned, later=later))
    gc.collect()  # planning leaves cycles, which would count in the step


def no_room_outside(call: Call, under_way: Round, plans: Plans) -> BudgetError:
    """What ran while a call waited went over the budget, though the call held nothing but its inputs and results."""
    peak = call.peaks["outside"] + under_way.unborn
    smallest = max(peak, under_way.now + plans.needs(call.step, call.track, alone=True)) + OBJECT_SPREAD
    return BudgetError(
        f"a budget of {format_bytes(plans.budget_bytes)} ({plans.budget_bytes} bytes) is below {format_bytes(smallest)} "
        f"({smallest} bytes), the smallest for what ran between this module's forward and its backward: that alone "
        f"reached {format_bytes(peak)}, with no more than inputs and results of the module beside it. Other modules "
        "that are trained in between count as well",
        smallest_feasible_bytes=smallest,
    )


def check_loss(call: Call, under_way: Round, plans: Plans) -> None:
    """A loss that was not seen before and went over the budget: an error at once, where no plan has room for it.

    Raises:
        BudgetError: none has.
    """
    track = call.track
    if call is not under_way.calls[-1]:
        return  # what ran meanwhile are calls of the module itself, which the next round's plans have room for
    known = track.outside is not None or call.split or track.arrivals.changed
    if known or plans.closed or call.peaks.get("outside", 0) <= plans.budget_bytes:
        return
    learn_outside(call, under_way, plans)
    track.outside = (track.outside or 0) + OBJECT_SPREAD
    try:
        if call.given_up:  # what waited has made all the room that there is
            raise no_room_outside(call, under_way, plans)
        plans.prepare(call.step, plans.learned(call.step, track, track.resident))
    except BudgetError:
        plans.losses.refused(call.step, track.place, track.outside)
        raise
    gc.collect()
