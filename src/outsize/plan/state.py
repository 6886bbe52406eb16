"""Optimizer state that rests on a tier: which of it, when it comes for its update, and when it has left again.

State is used once a step, by its update, so it is idle for all of the forward and the backward. What stays on the device
takes room there from the activations; what rests on a tier takes two transfers a step. Its bytes are worth the same to
the plan whosever they are, so a plan keeps the state of the first parameters that are updated and lets the rest go.

The activations are planned for a few shares of kept state, each time as if the kept part were resident; the transfers of
the rest are placed into the room that this leaves: reads from the backward's end on, as soon as they fit; writes
settled when the next read needs their room, at the turn at the latest. Of these plans the fastest is taken.

Symbols: `n` the position of the first update op, which no moved state belongs to; `u` the position of a unit's update;
`held[p]` the bytes that are alive at p without any moved state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ..errors import BudgetError
from ..values import Decision, OpCost, Plan, Profile, StateUnit, StepGraph, Storage
from .schedule.check import check
from .schedule.lower import lower_decisions, lower_placed
from .schedule.simulate import simulate

#: Shares of the state beyond what fits without any action that are kept at the expense of the activations.
SHARES_KEPT = (0.0, 0.5, 1.0)


def with_updates(graph: StepGraph, profile: Profile, units: Sequence[StateUnit]) -> tuple[StepGraph, Profile]:
    """The step with an update of its own for each unit, after the one for all that has none.

    Args:
        graph: with one update op, its last; resident bytes without the units' state.
        profile: its workspace of the last op is that of any update.

    Returns:
        The graph and its profile; the storage of unit i is `len(graph.storages) + i`.
    """
    ops, storages, costs = list(graph.ops), list(graph.storages), list(profile.ops)
    for unit in units:
        position, index = len(ops), len(storages)
        ops.append(
            replace(
                graph.ops[-1],
                index=position,
                name=f"update.{unit.name}",
                reads=(index,),
                writes=(),
                mutates=(index,),
            )
        )
        costs.append(OpCost(seconds=0.0, workspace_bytes=profile.ops[-1].workspace_bytes))
        storages.append(
            Storage(
                index=index,
                name=f"state of {unit.name}",
                nbytes=unit.nbytes,
                kind="state",
                producer=-1,
                uses=(position,),
            )
        )
    whole = replace(graph, ops=tuple(ops), storages=tuple(storages))
    return whole, replace(profile, ops=tuple(costs))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What is planned: the step with all updates, and the one that a planner of activations sees."""

    graph: StepGraph
    profile: Profile
    plain: StepGraph
    plain_profile: Profile
    units: tuple[StateUnit, ...]
    budget: int
    tier: str

    @property
    def first(self) -> int:
        """Position of the update that no moved state belongs to."""
        return len(self.plain.ops) - 1

    def storage(self, unit: int) -> int:
        return len(self.plain.storages) + unit

    def update(self, unit: int) -> int:
        return len(self.plain.ops) + unit


def plan_with_state(
    graph: StepGraph,
    profile: Profile,
    units: Sequence[StateUnit],
    plan: Callable[[StepGraph, Profile, int], Plan],
    *,
    budget_bytes: int,
    tier: str,
    tier_bytes: int | None = None,
) -> tuple[StepGraph, Profile, Plan]:
    """The fastest plan among some that keep more or less of the state on the device.

    Args:
        graph: of the step, with one update op; resident bytes without the units' state.
        profile: its costs.
        units: what may rest on a tier, in the order of the updates.
        plan: of the activations, from a graph, its costs and the bytes of state that rest on the tier.
        tier: where state rests; empty where nothing may.
        tier_bytes: most bytes of it there; None for any.

    Returns:
        The step with an update for each unit, its costs, and the plan.

    Raises:
        BudgetError: none fits, with the smallest budget that does.
    """
    whole, costs = with_updates(graph, profile, units)
    step = _Step(
        graph=whole,
        profile=costs,
        plain=graph,
        plain_profile=profile,
        units=tuple(units),
        budget=budget_bytes,
        tier=tier,
    )
    best, refused = None, None
    for kept in _tried(step, tier_bytes):
        try:
            made = _planned(step, kept, plan)
        except BudgetError as error:
            if refused is None or error.smallest_feasible_bytes < refused.smallest_feasible_bytes:
                refused = error
            continue
        if best is None or _cost(made) < _cost(best):
            best = made
    if best is None:
        assert refused is not None
        raise refused
    return whole, costs, best


def _cost(plan: Plan) -> tuple[float, int]:
    return plan.predicted_step_seconds, plan.swapped_bytes


def _tried(step: _Step, tier_bytes: int | None) -> list[int]:
    """How many of the units stay, in plans worth trying: all where that fits, else what fits beside the plain step, and
    shares of what is left. The fewest that stay come first."""
    sums = [0, *accumulate(unit.nbytes for unit in step.units)]
    total = sums[-1]
    room = step.budget - max(step.plain.plain_residency(step.plain_profile.workspace))
    if room >= total or not step.tier:
        return [len(step.units)]
    least = 0 if tier_bytes is None else max(0, total - tier_bytes)
    fits = max(room, least, 0)
    wanted = [fits + share * (total - fits) for share in SHARES_KEPT]
    counts = [max(i for i, s in enumerate(sums) if s <= w) for w in wanted]
    counts[0] = max(counts[0], next(i for i, s in enumerate(sums) if s >= least))
    return sorted({0, *counts} if not least else set(counts))


def _planned(step: _Step, kept: int, plan: Callable[[StepGraph, Profile, int], Plan]) -> Plan:
    """The plan with the state of the first `kept` units on the device."""
    away = range(kept, len(step.units))
    held = sum(unit.nbytes for unit in step.units[:kept])
    moved = sum(step.units[i].nbytes for i in away)
    widest = max((step.units[i].nbytes for i in away), default=0)
    costs = list(step.plain_profile.ops)
    costs[-1] = replace(costs[-1], workspace_bytes=costs[-1].workspace_bytes + widest)
    seen = replace(step.plain, extra_resident_bytes=step.plain.extra_resident_bytes + held)
    made = plan(seen, replace(step.plain_profile, ops=tuple(costs)), moved)
    decisions = (*made.decisions, *_placed(step, made.decisions, away))
    schedule = lower_decisions(step.graph, decisions)
    check(step.graph, step.profile, schedule, step.budget)
    timeline = simulate(step.graph, step.profile, schedule)
    return replace(
        made,
        decisions=decisions,
        plain_peak_bytes=max(step.graph.plain_residency(step.profile.workspace)),
        predicted_peak_bytes=timeline.peak_bytes,
        predicted_step_seconds=timeline.seconds,
        resident_bytes=step.graph.resident_bytes - moved,
        swapped_bytes=made.swapped_bytes + moved,
        state_bytes=held + moved,
        state_resting_bytes=moved,
    )


def _placed(step: _Step, decisions: tuple[Decision, ...], away: range) -> list[Decision]:
    """When the state of the units `away` comes and goes."""
    if not away:
        return []
    held, start = _held(step, decisions, away)
    highest = list(accumulate(reversed(held), max))[::-1]  # at a position and all after it
    fetched: dict[int, int] = {}
    freed: dict[int, int] = {}
    live, position = 0, start
    for unit in away:  # as early as all that comes after leaves room for them
        nbytes = step.units[unit].nbytes
        while position <= step.first and highest[position] + live + nbytes > step.budget:
            position += 1
        if position > step.first:
            break
        fetched[unit], live = position, live + nbytes
    waiting = [unit for unit in away if unit not in fetched]
    written: list[int] = []
    for unit in away:
        here = step.update(unit)
        while waiting and waiting[0] >= unit:
            nbytes = step.units[waiting[0]].nbytes
            while waiting[0] == unit and written and highest[here] + live + nbytes > step.budget:
                done = written.pop(0)
                freed[done], live = here, live - step.units[done].nbytes
            if waiting[0] != unit and highest[here] + live + nbytes > step.budget:
                break
            live += nbytes
            fetched[waiting.pop(0)] = here
        written.append(unit)
    link, end = step.profile.links[step.tier], len(step.graph.ops)
    return [
        Decision(
            storage=step.storage(unit),
            action="swap",
            after=step.update(unit),
            before=step.update(unit),
            free_before=freed.get(unit, end),
            fetch_before=fetched[unit],
            tier=step.tier,
            seconds=link.in_seconds(step.units[unit].nbytes) + link.out_seconds(step.units[unit].nbytes),
            reason="of a step it is used by its update alone",
        )
        for unit in away
    ]


def _held(step: _Step, decisions: tuple[Decision, ...], away: range) -> tuple[list[int], int]:
    """Bytes alive at each position without the units `away`, and the first position from which their reads are in
    nobody's way: in the backward, after the last read of an activation."""
    moved = {step.storage(unit) for unit in away}
    storages = tuple(replace(s, nbytes=0) if s.index in moved else s for s in step.graph.storages)
    graph = replace(step.graph, storages=storages)
    schedule, places = lower_placed(graph, decisions)
    timeline = simulate(graph, step.profile, schedule)
    held, start = [0] * len(graph.ops), 0
    for entry, place, nbytes in zip(schedule.entries, places, timeline.residency):
        if place < len(held):
            held[place] = max(held[place], nbytes)
        if entry.kind == "fetch" or (entry.op >= 0 and graph.ops[entry.op].phase == "outside"):
            start = place + 1
    return held, min(start, step.first)
