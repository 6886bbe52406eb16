"""Frozen parameters that rest on a tier: there for every op that reads them, and nowhere over the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from outsize.errors import BudgetError, PlanError
from outsize.plan import Request, check, explain, lower, make_plan, plan_with_parameters, simulate
from outsize.plan.schedule.lower import lower_decisions
from outsize.report.figures import plan_figures
from outsize.slack import compute_slack
from outsize.values import Decision, Entry, Plan, Profile, Schedule, StepGraph, from_json, to_json

from .graphs import Builder, random_step

SIZE = 200


def layers(count: int = 5, size: int = 50) -> tuple[StepGraph, Profile, list[int]]:
    """Each layer reads its weight in the forward and in the backward."""
    b = Builder()
    weights = [b.resident(SIZE, f"w{i}") for i in range(count)]
    x = b.resident(50, "x")
    kept = []
    for i in range(count):
        (x,) = b.op(f"f{i}", [x, weights[i]], [size], seconds=4.0, flops=10)
        kept.append(x)
    (g,) = b.op("outside", [x], [size], phase="outside", target="outside", effect=True)
    for i in reversed(range(count)):
        (g,) = b.op(f"b{i}", [g, kept[i], weights[i]], [size], phase="backward", seconds=4.0, flops=20)
    b.op("update", [g], phase="update", target="update", effect=True)
    return b.graph(), b.profile(), weights


def planner(
    budget: int, actions: Sequence[str] = ("swap", "recompute")
) -> Callable[[StepGraph, Profile, int], tuple[StepGraph, Profile, Plan]]:
    def plan(graph: StepGraph, profile: Profile, resting: int) -> tuple[StepGraph, Profile, Plan]:
        request = Request(budget_bytes=budget, actions=tuple(actions))
        made = make_plan(graph, profile, compute_slack(graph, profile), request)
        return graph, profile, made

    return plan


def planned(
    step: tuple[StepGraph, Profile, list[int]], budget: int, tier_bytes: int | None = None, tier: str = "disk"
) -> tuple[StepGraph, Profile, Plan]:
    graph, profile, weights = step
    return plan_with_parameters(
        graph, profile, weights, planner(budget), budget_bytes=budget, tier=tier, tier_bytes=tier_bytes
    )


def peak(step: tuple[StepGraph, Profile, list[int]]) -> int:
    return max(step[0].plain_residency(step[1].workspace))


def least(step: tuple[StepGraph, Profile, list[int]]) -> int:
    with pytest.raises(BudgetError) as refused:
        planned(step, 1)
    return refused.value.smallest_feasible_bytes


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_within_the_budget_and_no_more_than_need_be(share: float) -> None:
    step = layers()
    low, high = least(step), peak(step)
    assert low < 3 * SIZE < high - 2 * SIZE
    budget = int(low + share * (high - low))
    graph, profile, plan = planned(step, budget)
    schedule = lower(graph, plan)
    check(graph, profile, schedule, budget)
    timeline = simulate(graph, profile, schedule)
    assert max(timeline.residency) == plan.predicted_peak_bytes <= budget
    assert plan.predicted_step_seconds == timeline.seconds
    assert plan.plain_peak_bytes == high
    resting = schedule.resting(graph)
    assert plan.parameter_resting_bytes == SIZE * len(resting)
    assert plan.parameter_bytes == SIZE * 5
    assert bool(resting) == (share <= 0.5)
    if share == 0.5:
        assert len(resting) < 5
    assert not any(e.kind == "swap_out" and e.storage in resting for e in schedule.entries)
    assert from_json(Plan, to_json(plan)) == plan


def test_reads_begin_early_where_there_is_room() -> None:
    step = layers(size=5)
    graph, profile, plan = planned(step, least(step) + SIZE)
    ahead = [d for d in plan.decisions if d.fetch_before < d.before]
    assert len(ahead) >= 6
    late = tuple(replace(d, fetch_before=d.before) for d in plan.decisions)
    slow = simulate(graph, profile, lower_decisions(graph, late))
    assert plan.predicted_step_seconds < slow.seconds - 5


@pytest.mark.parametrize("seed", range(8))
def test_random_steps(seed: int) -> None:
    """Ops that run again read their parameters where they run."""
    graph, profile = random_step(seed, ops=12)
    changed = {s for op in graph.ops for s in op.mutates}
    frozen = [s.index for s in graph.storages if s.kind == "resident" and s.uses and s.index not in changed]
    step = graph, profile, frozen
    for budget in (least(step), (least(step) + peak(step)) // 2):
        whole, costs, plan = planned(step, budget)
        assert plan.predicted_peak_bytes <= budget
        check(whole, costs, lower(whole, plan), budget)


def test_it_is_said_and_shown() -> None:
    step = layers()
    graph, _, plan = planned(step, least(step))
    assert any("nobody trains it" in line for line in explain(graph, plan))
    rows = {f.label: f.value for f in plan_figures(plan)}
    assert rows["frozen parameters at rest"].endswith("on a tier")


def test_a_tier_that_holds_only_some_of_them() -> None:
    step = layers()
    budget = peak(step) - 2 * SIZE
    plan = planned(step, budget, tier_bytes=2 * SIZE)[2]
    assert 0 < plan.parameter_resting_bytes <= 2 * SIZE
    with pytest.raises(BudgetError):
        planned(step, least(step), tier_bytes=2 * SIZE)


def test_nothing_moves_without_a_tier() -> None:
    step = layers()
    assert planned(step, peak(step), tier="")[2].parameter_resting_bytes == 0
    with pytest.raises(BudgetError):
        planned(step, peak(step) // 3, tier="")


def resting(graph: StepGraph, storage: int) -> StepGraph:
    storages = (replace(s, kind="parameter") if s.index == storage else s for s in graph.storages)
    return replace(graph, storages=tuple(storages))


def entries(graph: StepGraph, at: dict[int, list[Entry]]) -> Schedule:
    found: list[Entry] = []
    for op in graph.ops:
        found += [*at.get(op.index, ()), Entry(kind="op", op=op.index)]
    return Schedule(entries=(*found, *at.get(len(graph.ops), ())))


def test_a_schedule_that_loses_one_is_refused() -> None:
    graph, profile, weights = layers(2)
    graph, w = resting(graph, weights[0]), weights[0]
    forward, backward = graph.storages[w].uses
    fetch, wait, drop = (
        [Entry(kind="fetch", storage=w, tier="disk")], [Entry(kind="wait", storage=w)], [Entry(kind="drop", storage=w)],
    )  # fmt: skip
    right = {forward: fetch + wait, forward + 1: drop, backward: fetch + wait, backward + 1: drop}
    check(graph, profile, entries(graph, right), 10**6)
    for message, wrong in (
        ("not on the device", {**right, backward: []}),
        ("still arriving", {**right, backward: fetch}),
        ("began in 'disk'", {**right, backward + 1: []}),
    ):
        if message == "not on the device":
            wrong = {**wrong, backward + 1: []}
        with pytest.raises(PlanError, match=message):
            check(graph, profile, entries(graph, wrong), 10**6)


@pytest.mark.parametrize(
    "wrong", [{"action": "recompute"}, {"before": 3}, {"fetch_before": 12}, {"fetch_before": 0}]
)
def test_malformed_decisions_are_refused(wrong: dict[str, object]) -> None:
    graph, _, weights = layers()
    graph = resting(graph, weights[0])
    forward, backward = graph.storages[weights[0]].uses
    right = Decision(
        storage=weights[0],
        action="swap",
        after=forward,
        before=backward,
        free_before=forward + 1,
        fetch_before=backward,
        tier="disk",
    )
    with pytest.raises(PlanError, match="w0"):
        lower_decisions(graph, (replace(right, **wrong),))  # type: ignore[arg-type]
