"""State that rests on a tier: placed within the budget, and nothing else passes the check."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from outsize.errors import BudgetError, PlanError
from outsize.plan import Request, check, explain, lower, make_plan, plan_with_state, simulate, with_updates
from outsize.plan.schedule.simulate import tier_peaks
from outsize.report.figures import plan_figures
from outsize.slack import compute_slack
from outsize.values import Entry, Plan, Profile, Schedule, StateUnit, StepGraph, from_json, to_json

from .families import gpt
from .nets import CPU

MIB = 2**20
UNITS = tuple(StateUnit(name=f"w{i}", nbytes=(8 + 5 * (i % 3)) * MIB) for i in range(9))
TOTAL = sum(u.nbytes for u in UNITS)


def planner(budget: int) -> Callable[[StepGraph, Profile, int], Plan]:
    def plan(graph: StepGraph, profile: Profile, resting: int) -> Plan:
        return make_plan(
            graph, profile, compute_slack(graph, profile), Request(budget_bytes=budget, actions=("swap",))
        )

    return plan


def small() -> tuple[StepGraph, Profile]:
    return gpt(CPU, layers=2, d=256, tokens=256, batch=2)


def planned(budget: int, tier_bytes: int | None = None) -> tuple[StepGraph, Profile, Plan]:
    graph, profile = small()
    return plan_with_state(
        graph, profile, UNITS, planner(budget), budget_bytes=budget, tier="disk", tier_bytes=tier_bytes
    )


def peak() -> int:
    graph, profile = small()
    return max(graph.plain_residency(profile.workspace))


def moved(graph: StepGraph, plan: Plan) -> dict[int, int]:
    state = (d.storage for d in plan.decisions if graph.storages[d.storage].kind == "state")
    return {s: graph.storages[s].nbytes for s in state}


@pytest.mark.parametrize("share", [1.0, 0.9, 0.7, 0.5, 0.35])
def test_within_the_budget_and_no_more_than_need_be(share: float) -> None:
    budget = int((peak() + TOTAL) * share)
    graph, profile, plan = planned(budget)
    schedule = lower(graph, plan)
    check(graph, profile, schedule, budget)
    timeline = simulate(graph, profile, schedule)
    assert max(timeline.residency) == plan.predicted_peak_bytes <= budget
    assert plan.plain_peak_bytes == peak() + TOTAL
    assert schedule.resting(graph) == dict.fromkeys(moved(graph, plan), "disk")
    away = sum(moved(graph, plan).values())
    assert plan.resident_bytes == graph.resident_bytes - away
    assert tier_peaks(graph, schedule).get("disk", 0) >= away
    if share == 1.0:
        assert not plan.decisions
    elif share >= 0.5:  # the plain step fits beside part of it
        assert away < TOTAL
    assert from_json(Plan, to_json(plan)) == plan


def test_it_is_said_and_shown() -> None:
    graph, _, plan = planned(int((peak() + TOTAL) * 0.6))
    assert plan.state_bytes == TOTAL
    assert plan.state_resting_bytes == sum(moved(graph, plan).values())
    assert any("the turn to the next step" in line for line in explain(graph, plan))
    rows = {f.label: f.value for f in plan_figures(plan)}
    assert rows["optimizer state at rest"].endswith("on a tier")


def test_smaller_budgets_are_refused_and_the_one_that_is_named_is_not() -> None:
    with pytest.raises(BudgetError) as refused:
        planned(peak() // 8)
    planned(refused.value.smallest_feasible_bytes)


def test_a_tier_that_holds_only_some_of_it() -> None:
    budget = int((peak() + TOTAL) * 0.7)
    graph, _, plan = planned(budget, tier_bytes=TOTAL // 2)
    assert 0 < sum(moved(graph, plan).values()) <= TOTAL // 2


def test_no_plan_is_tried_for_which_the_tier_is_too_small() -> None:
    """The last unit alone is more than the tier holds: it stays, though half of the state would do without it."""
    units = tuple(StateUnit(name=f"w{i}", nbytes=n * MIB) for i, n in enumerate((8, 8, 60)))
    graph, profile = small()
    limit, budget = 30 * MIB, max(peak(), 80 * MIB)
    plan, tried = planner(budget), []

    def noted(graph: StepGraph, profile: Profile, resting: int) -> Plan:
        tried.append(resting)
        return plan(graph, profile, resting)

    with suppress(BudgetError):
        plan_with_state(graph, profile, units, noted, budget_bytes=budget, tier="disk", tier_bytes=limit)
    assert tried
    assert max(tried) <= limit


def test_nothing_moves_without_a_tier() -> None:
    graph, profile = small()
    budget = peak() + TOTAL
    whole, _, plan = plan_with_state(
        graph, profile, UNITS, planner(budget), budget_bytes=budget, tier="", tier_bytes=None
    )
    assert not plan.decisions
    assert whole.resident_bytes == graph.resident_bytes + TOTAL


def _without(schedule: Schedule, kind: str, storage: int) -> Schedule:
    entries = [e for e in schedule.entries if (e.kind, e.storage) != (kind, storage)]
    return Schedule(entries=tuple(entries))


def test_what_the_check_refuses() -> None:
    budget = int((peak() + TOTAL) * 0.6)
    graph, profile, plan = planned(budget)
    schedule, one = lower(graph, plan), min(moved(graph, plan))
    for kind, message in (
        ("wait", "still arriving"),
        ("fetch", "no read of"),  # and it would begin on the device
        ("drop", "began in 'disk'"),
        ("settle", "dropped while its write is under way"),
    ):
        with pytest.raises(PlanError, match=message):
            check(graph, profile, _without(schedule, kind, one), 2 * budget)
    stale = _without(_without(_without(schedule, "swap_out", one), "settle", one), "drop", one)
    with pytest.raises(PlanError, match="is on the device, and began in"):
        check(graph, profile, stale, 2 * budget)
    # Dropped before its last update: the tier would hold the bytes of the step before.
    first = next(i for i, e in enumerate(schedule.entries) if e.kind == "wait" and e.storage == one)
    early = list(stale.entries)
    early.insert(first + 1, Entry(kind="drop", storage=one))
    with pytest.raises(PlanError, match="not on the device"):
        check(graph, profile, Schedule(entries=tuple(early)), 2 * budget)
    with pytest.raises(PlanError, match="over the budget"):
        check(graph, profile, schedule, plan.predicted_peak_bytes - 1)


def test_decisions_that_are_no_turn() -> None:
    budget = int((peak() + TOTAL) * 0.6)
    graph, _, plan = planned(budget)
    decision = next(d for d in plan.decisions if d.storage in moved(graph, plan))
    for wrong in (
        replace(decision, action="encode"),
        replace(decision, free_before=decision.after),
        replace(decision, fetch_before=decision.before + 1),
        replace(decision, free_before=len(graph.ops) + 1),
    ):
        with pytest.raises(PlanError, match="state"):
            lower(graph, replace(plan, decisions=(wrong,)))


def test_the_ring_with_updates() -> None:
    graph, profile = small()
    whole, costs = with_updates(graph, profile, UNITS)
    assert not whole.misfit()
    assert len(costs.ops) == len(whole.ops)
    assert whole.resident_bytes == graph.resident_bytes + TOTAL
    assert max(whole.plain_residency(costs.workspace)) == peak() + TOTAL
