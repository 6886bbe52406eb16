"""Parameters that nobody trains, in the plan: kept where the budget has room, else brought from a tier for each use.

A frozen parameter is read in the forward and again in the backward, and its copy in the tier is always the newest, so
leaving costs nothing and each use costs a read. Only as many go as the budget asks for. The rest of the step is planned
as if those that go were there just while an op reads them: their bytes are workspace of the ops that read them, wherever
those run, and their reads take those ops' time. Afterwards reads begin earlier where there is room.

Symbols: `held[p]` the most bytes that are alive at any entry of position p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ..errors import BudgetError, PlanError
from ..values import Decision, Plan, Profile, StepGraph
from .schedule.check import check
from .schedule.lower import lower_decisions, lower_placed
from .schedule.simulate import simulate

__all__ = ["plan_with_parameters"]

#: Reads begin by so much earlier than they should take: other reads share the lane.
SPARE_TIME = 1.5

#: Plans the rest of the step beside so many bytes that rest in the tier.
Planned = Callable[[StepGraph, Profile, int], tuple[StepGraph, Profile, Plan]]


@dataclass(frozen=True, kw_only=True)
class _Step:
    graph: StepGraph
    profile: Profile
    budget: int
    tier: str


def plan_with_parameters(
    graph: StepGraph,
    profile: Profile,
    parameters: Sequence[int],
    plan: Planned,
    *,
    budget_bytes: int,
    tier: str,
    tier_bytes: int | None = None,
) -> tuple[StepGraph, Profile, Plan]:
    """A plan that moves few parameters.

    Args:
        graph: of the step.
        profile: its costs.
        parameters: storages that may rest on a tier.
        plan: of the rest.
        tier: where they rest; empty where nothing may.
        tier_bytes: most bytes of them there; None for any.

    Returns:
        The step, its costs, and the plan.

    Raises:
        BudgetError: none fits, with the smallest budget that does.
    """
    step = _Step(graph=graph, profile=profile, budget=budget_bytes, tier=tier)
    sizes = {s: graph.storages[s].nbytes for s in parameters}
    refused: list[BudgetError] = []
    count = 0
    order = sorted(parameters, key=lambda s: (len(graph.storages[s].uses), -sizes[s]))
    if tier_bytes is not None:
        order = order[: sum(total <= tier_bytes for total in accumulate(sizes[s] for s in order))]
    while True:
        moved = order[:count]
        try:
            found = plan(graph, profile, 0) if not moved else _planned(step, moved, plan)
        except BudgetError as error:
            refused.append(error)
        else:
            return _reported(found if not moved else _ahead(step, order, count, plan, found), sizes)
        more = _count(order, sizes, refused[-1], budget_bytes) if tier else 0
        if more <= count:
            raise min(refused, key=lambda e: (type(e) is not BudgetError, e.smallest_feasible_bytes))
        count = more if count == 0 else len(order)


def _reported(
    found: tuple[StepGraph, Profile, Plan], sizes: dict[int, int]
) -> tuple[StepGraph, Profile, Plan]:
    graph, profile, made = found
    moved = {d.storage for d in made.decisions} & sizes.keys()
    resting = sum(sizes[s] for s in moved)
    return (
        graph,
        profile,
        replace(made, parameter_bytes=sum(sizes.values()), parameter_resting_bytes=resting),
    )


def _ahead(
    step: _Step, order: Sequence[int], count: int, plan: Planned, found: tuple[StepGraph, Profile, Plan]
) -> tuple[StepGraph, Profile, Plan]:
    """Where a few more go, the next one has room to arrive while one is used: that plan, where it is faster."""
    sizes = [step.graph.storages[s].nbytes for s in order]
    totals = list(accumulate(sizes))
    spare = max(sizes[:count])
    enough = next((n for n, total in enumerate(totals, 1) if total >= totals[count - 1] + spare), len(order))
    try:
        other = _planned(step, order[:enough], plan, spare)
    except BudgetError:
        return found
    return min(found, other, key=lambda one: one[2].predicted_step_seconds)


def _count(order: Sequence[int], sizes: dict[int, int], error: BudgetError, budget: int) -> int:
    """How many to move so that what was missing may be there, beside the largest of them while it is used."""
    if type(error) is not BudgetError:
        return len(order)
    missing, total, largest = error.smallest_feasible_bytes - budget, 0, 0
    for count, s in enumerate(order, 1):
        total, largest = total + sizes[s], max(largest, sizes[s])
        if total - largest >= missing:
            return count
    return len(order)


def _planned(
    step: _Step, moved: Sequence[int], plan: Planned, spare: int = 0
) -> tuple[StepGraph, Profile, Plan]:
    """The plan with these parameters on the tier, and so many bytes left to them beside the one that is used."""
    gone, storages = set(moved), step.graph.storages
    link = step.profile.links[step.tier]
    costs = []
    for op, cost in zip(step.graph.ops, step.profile.ops):
        read = [storages[s].nbytes for s in op.reads if s in gone]
        seconds = cost.seconds + sum(link.in_seconds(n) for n in read)
        costs.append(replace(cost, seconds=seconds, workspace_bytes=cost.workspace_bytes + sum(read)))
    emptied = tuple(replace(s, nbytes=0) if s.index in gone else s for s in storages)
    kept = step.graph.extra_resident_bytes + spare
    seen = replace(step.graph, storages=emptied, extra_resident_bytes=kept)
    whole, seen_costs, made = plan(seen, replace(step.profile, ops=tuple(costs)), _sum(step.graph, moved))
    restored = (
        replace(s, kind="parameter", nbytes=storages[s.index].nbytes) if s.index in gone else s
        for s in whole.storages
    )
    graph = replace(whole, storages=tuple(restored), extra_resident_bytes=whole.extra_resident_bytes - spare)
    profile = replace(seen_costs, ops=(*step.profile.ops, *seen_costs.ops[len(step.profile.ops) :]))
    full = replace(step, graph=graph, profile=profile)
    simple = _decisions(full, moved, {})
    early = _decisions(full, moved, _early(full, made.decisions, simple, moved))
    best = None
    for decisions in (early, simple):
        chosen = (*made.decisions, *decisions)
        schedule = lower_decisions(graph, chosen)
        try:
            check(graph, profile, schedule, step.budget)
        except PlanError:
            if decisions is simple:
                raise
            continue
        timeline = simulate(graph, profile, schedule)
        if best is None or timeline.seconds < best.predicted_step_seconds:
            best = replace(
                made,
                decisions=chosen,
                resident_bytes=made.resident_bytes - spare,
                plain_peak_bytes=max(graph.plain_residency(profile.workspace)),
                predicted_peak_bytes=timeline.peak_bytes,
                plain_step_seconds=profile.seconds,
                predicted_step_seconds=timeline.seconds,
            )
    assert best is not None
    return graph, profile, best


def _sum(graph: StepGraph, storages: Sequence[int]) -> int:
    return sum(graph.storages[s].nbytes for s in storages)


def _decisions(step: _Step, moved: Sequence[int], fetched: dict[tuple[int, int], int]) -> list[Decision]:
    """One for each use; `fetched` has where the reads begin that do not begin right before it. Where that is right after
    the use before, the parameter stays in between."""
    link, made = step.profile.links[step.tier], []
    for s in moved:
        storage = step.graph.storages[s]
        for number, use in enumerate(storage.uses):
            before, begins = storage.uses[number - 1], fetched.get((s, use), use)
            if number and begins == before + 1 and (s, use) in fetched:
                continue
            made.append(
                Decision(
                    storage=s,
                    action="swap",
                    after=before,
                    before=use,
                    free_before=before + 1,
                    fetch_before=begins,
                    tier=step.tier,
                    seconds=link.in_seconds(storage.nbytes),
                    reason="nobody trains it: the copy in the tier is always the newest",
                )
            )
    return made


def _early(
    step: _Step, decisions: Sequence[Decision], simple: Sequence[Decision], moved: Sequence[int]
) -> dict[tuple[int, int], int]:
    """(Storage, use) → where its read begins: as early as it takes, where there is room for its bytes meanwhile."""
    graph, link = step.graph, step.profile.links[step.tier]
    held, first = _held(step, (*decisions, *simple))
    boundary = next(op.index for op in graph.ops if op.phase == "outside")
    clock = [0.0, *accumulate(cost.seconds for cost in step.profile.ops)]
    uses = sorted(((use, s) for s in moved for use in graph.storages[s].uses), reverse=True)
    found: dict[tuple[int, int], int] = {}
    due = clock[-1]
    for use, s in uses:
        storage = graph.storages[s]
        due = min(due, clock[use]) - SPARE_TIME * link.in_seconds(storage.nbytes)
        earlier = [u for u in storage.uses if u < use]
        lowest = max(earlier[-1] + 1 if earlier else 0, boundary + 1 if use > boundary else 0)
        begins = use
        if first[use] + storage.nbytes <= step.budget:
            while (
                begins > lowest and clock[begins] > due and held[begins - 1] + storage.nbytes <= step.budget
            ):
                begins -= 1
        if begins < use:
            found[s, use] = begins
            first[use] += storage.nbytes
            for p in range(begins, use):
                held[p] += storage.nbytes
                first[p] += storage.nbytes
        due = max(due, clock[begins])
    return found


def _held(step: _Step, decisions: tuple[Decision, ...]) -> tuple[list[int], list[int]]:
    """Most bytes alive at each position, and of these at its entries before the op itself and what is fetched for it."""
    schedule, places = lower_placed(step.graph, decisions)
    residency = simulate(step.graph, step.profile, schedule).residency
    held, first = [0] * (len(step.graph.ops) + 1), [0] * (len(step.graph.ops) + 1)
    own = 0  # of the entries right before the op, those that bring what it reads
    alive: list[tuple[int, int]] = []
    for entry, place, nbytes in zip(schedule.entries, places, residency):
        held[place] = max(held[place], nbytes)
        if entry.kind == "op":
            first[place] = max((n for p, n in alive[: len(alive) - own] if p == place), default=0)
            alive, own = [], 0
        else:
            brings = entry.storage >= 0 and step.graph.storages[entry.storage].kind == "parameter"
            own = own + 1 if brings and entry.kind != "drop" else 0
            alive.append((place, nbytes))
    return held[:-1], first
