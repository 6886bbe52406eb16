"""Method 4: units, scores, order of choice, and what a hybrid step does with them."""

from __future__ import annotations

from outsize.plan import PlanSettings, Request, check, explain, lower, make_plan
from outsize.plan.planners.units import find_units
from outsize.slack import compute_slack
from tests.plan.families import resnet
from tests.plan.nets import V100_PCIE3

GRAPH, PROFILE = resnet(V100_PCIE3, 50, 16, 224)
SLACK = compute_slack(GRAPH, PROFILE)
PEAK = max(GRAPH.plain_residency(PROFILE.workspace))


def test_each_unit_is_headed_by_a_checkpoint_and_scored_by_its_other_maps() -> None:
    units = find_units(GRAPH)
    assert [u.head for u in units] == [op.index for op in GRAPH.ops if op.checkpoint]
    end = next(op.index for op in GRAPH.ops if op.phase != "forward")
    for unit in units:
        assert unit.ops[0] == unit.head
        assert not any(GRAPH.ops[o].checkpoint for o in unit.ops[1:])
        heads_outputs = set(GRAPH.ops[unit.head].writes)
        assert not heads_outputs & set(unit.maps)
        saved = [s for s in GRAPH.storages if s.index in unit.maps]
        assert unit.nbytes == sum(s.nbytes for s in saved)
        assert all(s.uses[-1] >= end for s in saved)


def test_a_hybrid_step_swaps_and_recomputes_and_never_transfers_what_it_recomputes() -> None:
    plan = make_plan(
        GRAPH,
        PROFILE,
        SLACK,
        Request(
            budget_bytes=int(0.45 * PEAK), planner="units", actions=("swap", "recompute"), tiers=("host",)
        ),
    )
    swapped = {d.storage for d in plan.decisions if d.action == "swap"}
    remade = {d.storage for d in plan.decisions if d.action == "recompute"}
    assert swapped
    assert remade
    assert not swapped & remade
    forward = {op.index for op in GRAPH.ops if op.phase == "forward"}
    heads = {op.index for op in GRAPH.ops if op.checkpoint}
    for d in plan.decisions:
        if d.action == "recompute":
            assert d.after in forward
            assert not heads & set(d.region), "a recompute unit is rebuilt from its head"
    scores = sorted((u.nbytes for u in find_units(GRAPH) if set(u.maps) & remade), reverse=True)
    others = [u.nbytes for u in find_units(GRAPH) if u.maps and not set(u.maps) & remade]
    assert not scores or not others or scores[0] >= max(others), "largest units first"


def test_the_hybrid_is_faster_than_swapping_alone_over_a_slow_link() -> None:
    seconds = {}
    for planner, actions in (("slack", ("swap",)), ("units", ("swap", "recompute"))):
        plan = make_plan(
            GRAPH,
            PROFILE,
            SLACK,
            Request(budget_bytes=int(0.45 * PEAK), planner=planner, actions=actions, tiers=("host",)),
        )
        schedule = lower(GRAPH, plan)
        check(GRAPH, PROFILE, schedule, plan.budget_bytes)
        seconds[planner] = plan.predicted_step_seconds
    assert seconds["units"] * 1.15 < seconds["slack"]


def test_every_decision_and_refusal_is_explained_in_one_line() -> None:
    plan = make_plan(
        GRAPH,
        PROFILE,
        SLACK,
        Request(budget_bytes=int(0.5 * PEAK), tiers=("host",), settings=PlanSettings(moves=4)),
    )
    lines = explain(GRAPH, plan)
    assert len(lines) == len(plan.decisions) + len(plan.refusals)
    assert all("\n" not in line for line in lines)
    acted = {d.storage for d in plan.decisions}
    assert acted | {r.storage for r in plan.refusals} == {s.index for s in GRAPH.candidates()}
