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

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ..errors import BudgetError
from ..values import Decision, OpCost, Plan, Profile, StateUnit, StepGraph, Storage
from .schedule.check import check
from .schedule.lower import lower_decisions, lower_placed
from .schedule.simulate import simulate

#: Reads begin by so much earlier than they should take: other reads share the lane.
SPARE_TIME = 1.5
#: Shares of the state beyond what fits without any action that are kept at the expense of the activations.
SHARES_KEPT = (0.0, 0.5, 1.0)


def fused_positions(graph: StepGraph, fused: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Where in the backward an update may run: before the first op by which the gradient is whole and nobody reads the
    parameter any more.

    Args:
        fused: unit → its gradient's and its parameter's storage.

    Returns:
        unit → position. Those are left out whose gradient is needed to the end, or shares its storage.
    """
    last, found = len(graph.ops) - 1, dict[int, int]()
    gradients = Counter(gradient for gradient, _ in fused.values())
    changed = {s for op in graph.ops for s in op.mutates}
    for unit, (gradient, parameter) in fused.items():
        made, whole = graph.storages[gradient], graph.storages[parameter]
        suits = made.kind == "gradient" and whole.kind == "resident" and made.nbytes == whole.nbytes > 0
        if not suits or gradients[gradient] > 1 or parameter in changed:
            continue
        uses = [u for u in (*made.uses, *whole.uses) if u != last]
        position = max(made.producer, *uses) + 1
        if position < last and graph.ops[made.producer].phase == "backward":
            found[unit] = position
    return found


def _attached(
    graph: StepGraph, fused: Mapping[int, tuple[int, int]], positions: Mapping[int, int]
) -> StepGraph:
    """The step whose gradients end with the updates at these positions, which change the parameters."""
    ops, storages = list(graph.ops), list(graph.storages)
    for unit, position in positions.items():
        gradient, parameter = fused[unit]
        op, update = ops[position], ops[-1]
        reads = tuple(dict.fromkeys((*op.reads, gradient, parameter)))
        ops[position] = replace(op, reads=reads, mutates=(*op.mutates, parameter), effect=True)
        ops[-1] = replace(update, reads=tuple(s for s in update.reads if s != gradient))
        storages[gradient] = replace(storages[gradient], kind="activation")
    touched = {s for unit in positions for s in fused[unit]}
    for s in touched:
        uses = tuple(op.index for op in ops if s in op.reads)
        storages[s] = replace(storages[s], uses=uses)
    return replace(graph, ops=tuple(ops), storages=tuple(storages))


def with_updates(
    graph: StepGraph, profile: Profile, units: Sequence[StateUnit], positions: Mapping[int, int] | None = None
) -> tuple[StepGraph, Profile]:
    """The step with an update of its own for each unit, after the one for all that has none.

    Args:
        graph: with one update op, its last; resident bytes without the units' state.
        profile: its workspace of the last op is that of any update.
        positions: units whose update runs with an op of the backward, and which.

    Returns:
        The graph and its profile; the storage of unit i is `len(graph.storages) + i`.
    """
    ops, storages, costs = list(graph.ops), list(graph.storages), list(profile.ops)
    works_in = profile.ops[-1].workspace_bytes
    for number, unit in enumerate(units):
        index, position = len(storages), (positions or {}).get(number, len(ops))
        if position < len(graph.ops):
            op, cost = ops[position], costs[position]
            ops[position] = replace(op, reads=(*op.reads, index), mutates=(*op.mutates, index))
            costs[position] = replace(cost, workspace_bytes=max(cost.workspace_bytes, works_in))
        else:
            op = replace(graph.ops[-1], index=position, name=f"update.{unit.name}", writes=())
            ops.append(replace(op, reads=(index,), mutates=(index,)))
            costs.append(OpCost(seconds=0.0, workspace_bytes=works_in))
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
    """What is planned: the step with all updates, and the one that a planner of activations sees.

    Attributes:
        positions: unit → position of its update.
    """

    graph: StepGraph
    profile: Profile
    plain: StepGraph
    plain_profile: Profile
    units: tuple[StateUnit, ...]
    positions: dict[int, int]
    budget: int
    tier: str

    @property
    def first(self) -> int:
        """Position of the update that no moved state belongs to."""
        return len(self.plain.ops) - 1

    def storage(self, unit: int) -> int:
        return len(self.plain.storages) + unit


def plan_with_state(
    graph: StepGraph,
    profile: Profile,
    units: Sequence[StateUnit],
    plan: Callable[[StepGraph, Profile, int], Plan],
    *,
    budget_bytes: int,
    tier: str,
    tier_bytes: int | None = None,
    fused: Mapping[int, tuple[int, int]] | None = None,
) -> tuple[StepGraph, Profile, Plan]:
    """The fastest plan among some that keep more or less of the state on the device.

    Args:
        graph: of the step, with one update op; resident bytes without the units' state.
        profile: its costs.
        units: what may rest on a tier, in the order of the updates.
        plan: of the activations, from a graph, its costs and the bytes of state that rest on the tier.
        tier: where state rests; empty where nothing may.
        tier_bytes: most bytes of it there; None for any.
        fused: units whose update runs in the backward where it can → gradient's and parameter's storage.

    Returns:
        The step with an update for each unit, its costs, and the plan.

    Raises:
        BudgetError: none fits, with the smallest budget that does.
    """
    positions = fused_positions(graph, fused or {})
    plain = _attached(graph, fused or {}, positions)
    whole, costs = with_updates(plain, profile, units, positions)
    storages = whole.storages[len(plain.storages) :]
    step = _Step(
        graph=whole,
        profile=costs,
        plain=plain,
        plain_profile=replace(profile, ops=costs.ops[: len(plain.ops)]),
        units=tuple(units),
        positions={unit: storage.uses[0] for unit, storage in enumerate(storages)},
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
    shares of what is left. At least so many stay that the tier has room for the rest. The fewest come first."""
    sums = [0, *accumulate(unit.nbytes for unit in step.units)]
    total = sums[-1]
    room = step.budget - max(step.plain.plain_residency(step.plain_profile.workspace))
    if room >= total or not step.tier:
        return [len(step.units)]
    least = 0 if tier_bytes is None else max(0, total - tier_bytes)
    fits = max(room, least, 0)
    wanted = [fits + share * (total - fits) for share in SHARES_KEPT]
    fewest = next(i for i, s in enumerate(sums) if s >= least)
    counts = (max(i for i, s in enumerate(sums) if s <= w) for w in wanted)
    return sorted({fewest, *(max(fewest, count) for count in counts)})


def _planned(step: _Step, kept: int, plan: Callable[[StepGraph, Profile, int], Plan]) -> Plan:
    """The plan with the state of the first `kept` units on the device."""
    away = range(kept, len(step.units))
    held = sum(unit.nbytes for unit in step.units[:kept])
    moved = sum(step.units[i].nbytes for i in away)
    costs = list(step.plain_profile.ops)
    for position, nbytes in _windows(step, away).items():
        costs[position] = replace(costs[position], workspace_bytes=costs[position].workspace_bytes + nbytes)
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


def _windows(step: _Step, away: range) -> dict[int, int]:
    """Position → bytes of moved state that its updates need at once; of those after the step's own ops, one at a time."""
    windows: dict[int, int] = defaultdict(int)
    for unit in away:
        position, nbytes = step.positions[unit], step.units[unit].nbytes
        if position > step.first:
            windows[step.first] = max(windows[step.first], nbytes)
        else:
            windows[position] += nbytes
    return windows


def _placed(step: _Step, decisions: tuple[Decision, ...], away: range) -> list[Decision]:
    """When the state of the units `away` comes and goes: as long before its update as its read takes, and not away before
    it has left, where there is room for that."""
    if not away:
        return []
    link, room, end = step.profile.links[step.tier], step.budget, len(step.graph.ops)
    held, start = _held(step, decisions, away)
    clock = [0.0, *accumulate(cost.seconds for cost in step.profile.ops)]
    order = sorted(away, key=lambda unit: step.positions[unit])
    wanted = _wanted(step, order, clock, start)
    spans: dict[int, list[int]] = {}
    written = 0.0  # when the lane out is free
    for unit in order:
        here, nbytes = step.positions[unit], step.units[unit].nbytes
        for other in order:  # those that were updated before leave first
            if held[here] + nbytes <= room or other == unit:
                break
            if spans[other][1] > here > step.positions[other]:
                for p in range(here, spans[other][1]):
                    held[p] -= step.units[other].nbytes
                spans[other][1] = here
        first = here
        while first > wanted[unit] and held[first - 1] + nbytes <= room:
            first -= 1
        written = max(written, clock[here + 1]) + link.out_seconds(nbytes)
        after, target = here + 1, end if clock[-1] <= written else bisect_left(clock, written)
        while after < min(target, end) and held[after] + nbytes <= room:
            after += 1
        spans[unit] = [first, after]
        for p in range(first, after):
            held[p] += nbytes
    return [
        Decision(
            storage=step.storage(unit),
            action="swap",
            after=step.positions[unit],
            before=step.positions[unit],
            free_before=spans[unit][1],
            fetch_before=spans[unit][0],
            tier=step.tier,
            seconds=link.in_seconds(step.units[unit].nbytes) + link.out_seconds(step.units[unit].nbytes),
            reason="of a step it is used by its update alone",
        )
        for unit in order
    ]


def _wanted(step: _Step, order: list[int], clock: list[float], start: int) -> dict[int, int]:
    """The positions at which reads have to begin, one after the other, so that each is there for its update."""
    link, wanted, due = step.profile.links[step.tier], dict[int, int](), clock[-1]
    boundary = next(op.index for op in step.graph.ops if op.phase == "outside")
    for unit in reversed(order):
        here = step.positions[unit]
        due = min(due, clock[here]) - SPARE_TIME * link.in_seconds(step.units[unit].nbytes)
        earliest = boundary + 1 if here < step.first else start
        wanted[unit] = min(max(bisect_left(clock, due), earliest), here)
    return wanted


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
