"""Swap planners: budget, edges, lanes, errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outsize import native
from outsize.errors import BudgetError, DiskBudgetError, HostBudgetError, PlanError
from outsize.plan import PlanSettings, Request, check, lower, make_plan, simulate
from outsize.plan.model import build_model, floor_curve
from outsize.plan.swaps.placement import ground_of, place
from outsize.slack import compute_slack
from outsize.values import Plan, Profile, StepGraph, from_json
from tests.plan.graphs import Builder, chain, random_step
from tests.plan.test_evict import held_for_a_while

ANY = PlanSettings(min_bytes=1, moves=6)


def plan_for(graph: StepGraph, profile: Profile, budget: int, planner: str, **more: object) -> Plan:
    slack = compute_slack(graph, profile)
    return make_plan(
        graph, profile, slack, Request(budget_bytes=budget, planner=planner, settings=ANY, **more)
    )


def smallest(graph: StepGraph, profile: Profile, planner: str, **more: object) -> int:
    with pytest.raises(BudgetError) as caught:
        plan_for(graph, profile, 1, planner, **more)
    return caught.value.smallest_feasible_bytes


@pytest.mark.parametrize("planner", ["slack", "distance", "search"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
@example(seed=42174, share=0.13815427681466022)  # what is away encoded is made again by another's region
def test_random_steps_fit_every_feasible_budget(planner: str, seed: int, share: float) -> None:
    graph, profile = random_step(seed)
    low, high = smallest(graph, profile, planner), max(graph.plain_residency(profile.workspace))
    budget = int(low + share * (high - low))
    plan = plan_for(graph, profile, budget, planner)
    schedule = lower(graph, plan)
    check(graph, profile, schedule, budget)
    timeline = simulate(graph, profile, schedule)
    assert plan.predicted_peak_bytes == timeline.peak_bytes <= budget
    assert timeline.seconds >= profile.seconds
    assert plan.predicted_step_seconds == timeline.seconds
    assert from_json(Plan, plan.to_json()) == plan
    check(graph, profile, schedule, timeline.peak_bytes)
    with pytest.raises(PlanError, match="over the budget"):
        check(graph, profile, schedule, timeline.peak_bytes - 1)


@pytest.mark.skipif(native.kernels is None, reason="the C module is not built")
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6), share=st.floats(0, 1.2), lead=st.sampled_from((1.0, 2.0, 5.0)), draw=st.data()
)  # fmt: skip
def test_edges_in_c_are_those_in_python(seed: int, share: float, lead: float, draw: st.DataObject) -> None:
    graph, profile = random_step(seed)
    model = build_model(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(budget_bytes=2**40, settings=PlanSettings(lead=lead)),
    )
    model = model.with_target(int(floor_curve(model).max() + share * (model.peak - floor_curve(model).max())))
    some = draw.draw(st.lists(st.booleans(), min_size=len(model.spans), max_size=len(model.spans)))
    spans = model.spans.take(np.flatnonzero(some))
    link = replace(profile.links["disk"], out_bytes_per_second=draw.draw(st.sampled_from((5.0, 60.0, 1e9))))
    found = place(ground_of(model, spans), spans, link)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        expected = place(ground_of(model, spans), spans, link)
    assert found.free.tolist() == expected.free.tolist()
    assert found.fetch.tolist() == expected.fetch.tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0, 1),
    actions=st.sets(st.sampled_from(["swap", "recompute", "encode"]), min_size=1),
)
def test_search_fits_with_every_set_of_actions(seed: int, share: float, actions: set[str]) -> None:
    graph, profile = random_step(seed, ops=16)
    allowed = {"swap": {"swap"}, "recompute": {"recompute"}, "encode": {"encode"}}
    low, high = (
        smallest(graph, profile, "search", actions=tuple(actions)),
        max(graph.plain_residency(profile.workspace)),
    )
    plan = plan_for(graph, profile, int(low + share * (high - low)), "search", actions=tuple(actions))
    used = {d.action for d in plan.decisions}
    assert used <= set().union(*(allowed[a] for a in actions)) | (
        {"encode_swap"} if {"swap", "encode"} <= actions else set()
    )
    for decision in plan.decisions:
        assert not any(graph.ops[op].random or graph.ops[op].effect for op in decision.region)


def test_it_declines_when_the_step_fits() -> None:
    graph, profile = chain(4)
    plan = plan_for(graph, profile, 10**6, "slack")
    assert plan.decisions == ()
    assert {r.reason for r in plan.refusals} <= {"NOT_NEEDED", "NO_SLACK"}
    assert plan.predicted_peak_bytes == plan.plain_peak_bytes


def test_a_budget_below_the_floor_names_the_floor_and_what_dominates_it() -> None:
    graph, profile = chain(6)
    with pytest.raises(BudgetError) as caught:
        plan_for(graph, profile, 300, "slack")
    error = caught.value
    assert len(error.dominating) == 5
    assert list(error.dominating) == sorted(error.dominating, key=lambda d: -d[1])
    plan = plan_for(graph, profile, error.smallest_feasible_bytes, "slack")
    assert plan.predicted_peak_bytes == error.smallest_feasible_bytes
    with pytest.raises(BudgetError, match=str(error.smallest_feasible_bytes)):
        plan_for(graph, profile, error.smallest_feasible_bytes - 1, "slack")


def test_swaps_hide_where_the_link_is_fast_enough() -> None:
    graph, profile = chain(12, rate=200.0)
    plan = plan_for(graph, profile, 900, "slack")
    assert plan.decisions
    assert plan.predicted_step_seconds == pytest.approx(profile.seconds)
    assert simulate(graph, profile, lower(graph, plan)).stall_seconds == 0.0


def test_a_hidden_transfer_still_pays_its_drag_and_gives_way_to_what_is_cheaper() -> None:
    graph, profile = chain(12, rate=200.0)
    drag = 0.001
    dear = replace(profile, links={"disk": replace(profile.links["disk"], drag_seconds_per_byte=drag)})
    plan = plan_for(graph, profile, 900, "slack")
    timeline = simulate(graph, dear, lower(graph, plan))
    moved = 2 * 100 * len(plan.decisions)
    assert timeline.seconds == pytest.approx(profile.seconds + drag * moved + timeline.stall_seconds)
    for factor, cheap in (
        (1e-6, "swap"),
        (1.0, "recompute"),
    ):  # an op takes 1 s, a swap at most 200 s of drag
        rate = replace(profile.links["disk"], drag_seconds_per_byte=factor)
        mixed = plan_for(
            graph, replace(profile, links={"disk": rate}), 900, "search", actions=("swap", "recompute")
        )
        assert {d.action for d in mixed.decisions} == {cheap}


def test_lanes_serve_one_transfer_at_a_time_in_order() -> None:
    for shared in (False, True):
        graph, _ = chain(12)
        profile = chain(12, rate=40.0)[1]
        if shared:
            link = profile.links["disk"]
            profile = Profile(ops=profile.ops, links={"disk": type(link)(
                out_bytes_per_second=40, in_bytes_per_second=40, shared=True)})  # fmt: skip
        plan = plan_for(graph, profile, 700, "slack")
        timeline = simulate(graph, profile, lower(graph, plan))
        lanes = [("compute",), ("out", "in")] if shared else [("compute",), ("out",), ("in",)]
        for lane in lanes:
            spans = [s for s in timeline.spans if s.lane in lane]
            assert spans
            assert all(a.end <= b.start for a, b in pairwise(spans))
        assert timeline.seconds == pytest.approx(profile.seconds + timeline.stall_seconds)


def test_raising_a_threshold_never_adds_a_candidate() -> None:
    from outsize.plan.model import build_model
    from outsize.plan.swaps.slack import candidates

    for seed in range(20):
        graph, profile = random_step(seed)
        slack = compute_slack(graph, profile)
        sets = []
        for min_slack, min_bytes in ((0.0, 1), (2.0, 1), (2.0, 20), (5.0, 40)):
            chosen = PlanSettings(min_slack=min_slack, min_bytes=min_bytes)
            model = build_model(graph, profile, slack, Request(budget_bytes=1, settings=chosen))
            keep = candidates(model, profile.links["disk"])
            sets.append({int(i) for i in keep.nonzero()[0]})
            assert all(slack.spans[i].seconds > min_slack for i in sets[-1])
        assert sets[0] >= sets[1] >= sets[2] >= sets[3]


def test_the_slack_threshold_is_strict() -> None:
    from outsize.plan.model import build_model
    from outsize.plan.swaps.slack import candidates

    b = Builder()
    (x,) = b.op("make", [], [100])
    b.op("idle", [], seconds=2.0)
    b.op("use", [x])
    graph, profile = b.graph(), b.profile(100.0)
    for min_slack, expected in ((None, False), (2.0, False), (1.999, True)):
        chosen = PlanSettings(min_slack=min_slack, min_bytes=1)
        model = build_model(
            graph, profile, compute_slack(graph, profile), Request(budget_bytes=1, settings=chosen)
        )
        assert candidates(model, profile.links["disk"]).tolist() == [expected]


def test_unknown_names_are_refused() -> None:
    graph, profile = chain(4)
    with pytest.raises(PlanError, match="no planner 'best'"):
        plan_for(graph, profile, 500, "best")
    with pytest.raises(PlanError, match="no action 'drop'"):
        plan_for(graph, profile, 500, "slack", actions=("drop",))
    with pytest.raises(PlanError, match="no rate for tier 'host'"):
        plan_for(graph, profile, 500, "slack", tiers=("host",))


def test_a_tier_that_may_hold_too_little_has_its_own_error() -> None:
    graph, profile = chain(12, rate=60.0)
    plan = plan_for(graph, profile, 800, "slack")
    for planner in ("slack", "search"):
        with pytest.raises(DiskBudgetError, match="the disk budget is") as caught:
            plan_for(graph, profile, 800, planner, actions=("swap",), disk_budget=100)
        assert caught.value.smallest_feasible_bytes > 100
    held = plan_for(graph, profile, 800, "slack", disk_budget=plan.swapped_bytes)
    assert held.decisions == plan.decisions
    mixed = plan_for(graph, profile, 800, "search", actions=("swap", "recompute"), disk_budget=100)
    assert mixed.swapped_bytes <= 100
    assert any(d.action == "recompute" for d in mixed.decisions)


def test_the_next_tier_takes_over_where_the_first_is_too_small() -> None:
    graph, profile = chain(12, rate=60.0)
    both = Profile(ops=profile.ops, links={"host": profile.links["disk"], **profile.links})
    plan = plan_for(graph, both, 800, "slack", tiers=("host", "disk"), host_budget=100)
    assert {d.tier for d in plan.decisions} == {"disk"}
    with pytest.raises(HostBudgetError):
        plan_for(graph, both, 800, "slack", tiers=("host",), host_budget=100)


@pytest.mark.parametrize("planner", ["slack", "distance", "search", "units"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), draw=st.data())
def test_what_others_hold_for_a_while_leaves_after_that(
    planner: str, seed: int, share: float, draw: st.DataObject
) -> None:
    graph, profile = random_step(seed)
    graph = held_for_a_while(graph, draw)
    low, high = smallest(graph, profile, planner), max(graph.plain_residency(profile.workspace))
    budget = int(low + share * (high - low))
    plan = plan_for(graph, profile, budget, planner)
    check(graph, profile, lower(graph, plan), budget)
    assert plan.predicted_peak_bytes <= budget
