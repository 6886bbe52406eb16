"""The default planner: deterministic, monotone, at least as fast as any single action, sharing what it recomputes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from outsize.errors import BudgetError
from outsize.plan import PlanSettings, Request, check, lower, make_plan, simulate
from outsize.plan.schedule.lower import lower_decisions
from outsize.slack import compute_slack
from outsize.values import Decision, Plan
from tests.plan.families import _transformer
from tests.plan.graphs import Builder, chain
from tests.plan.nets import V100_PCIE3

GRAPH, PROFILE = _transformer(V100_PCIE3, 4, 256, 4, 256, 8, dropout=True, pre=True)
SLACK = compute_slack(GRAPH, PROFILE)
PEAK = max(GRAPH.plain_residency(PROFILE.workspace))
QUICK = PlanSettings(moves=20)


def plan(share: float, *actions: str) -> Plan:
    return make_plan(
        GRAPH,
        PROFILE,
        SLACK,
        Request(budget_bytes=int(share * PEAK), actions=actions, tiers=("host",), settings=QUICK),
    )


def test_the_same_question_has_the_same_answer() -> None:
    first, second = plan(0.5, "swap", "recompute"), plan(0.5, "swap", "recompute")
    assert first.decisions == second.decisions


def test_a_smaller_budget_never_peaks_higher() -> None:
    plans = [plan(share, "swap", "recompute") for share in (0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)]
    for small, large in pairwise(plans):
        assert small.predicted_peak_bytes <= small.budget_bytes
        assert small.predicted_peak_bytes <= large.predicted_peak_bytes


def test_mixed_is_no_slower_than_either_action_alone() -> None:
    for share in (0.5, 0.35):
        mixed = plan(share, "swap", "recompute")
        for action in ("swap", "recompute"):
            assert mixed.predicted_step_seconds <= plan(share, action).predicted_step_seconds * 1.001


def test_a_dropout_is_replayed_from_its_mask() -> None:
    made = plan(0.4, "recompute")
    schedule = lower(GRAPH, made)
    again = [GRAPH.ops[e.op] for e in schedule.entries if e.kind == "clone"]
    assert any(op.target == "aten.mul" for op in again)
    assert not any(op.random for op in again)


def test_what_is_recomputed_on_the_way_is_kept_for_its_own_use() -> None:
    graph, profile = chain(8, rate=1.0)
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(budget_bytes=800, actions=("recompute",), tiers=(), settings=PlanSettings(min_bytes=1)),
    )
    early = [d for d in made.decisions if d.fetch_before < d.before]
    assert early, "a chain restored together serves later uses too"
    runs = [e.op for e in lower(graph, made).entries if e.kind == "clone"]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("planner", ["slack", "distance", "search"])
def test_a_skip_connection_inside_the_forward_is_a_candidate(planner: str) -> None:
    b = Builder()
    (skip,) = b.op("encode", [], [60], random=True)
    (low,) = b.op("down", [skip], [10])
    for i in range(3):
        (low,) = b.op(f"deep{i}", [low], [10])
    (wide,) = b.op("wide", [low], [70])
    (low,) = b.op("narrow", [wide], [10])
    for i in range(3):
        (low,) = b.op(f"up{i}", [low], [10])
    b.op("join", [skip, low], [10])
    b.op("outside", [], phase="outside", target="outside", effect=True)
    graph, profile = b.graph(), b.profile(60.0)
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(budget_bytes=100, planner=planner, settings=PlanSettings(min_bytes=1, moves=5)),
    )
    (decision,) = made.decisions
    assert (decision.storage, decision.action, decision.after, decision.before) == (skip, "swap", 1, 10)
    assert graph.ops[decision.before].phase == "forward"


def test_one_storage_may_be_recomputed_for_each_of_its_uses() -> None:
    b = Builder()
    (x,) = b.op("make", [], [50])
    (w,) = b.op("wide", [], [60], random=True)
    (c,) = b.op("use1", [x], [1])
    (w2,) = b.op("wide2", [w, c], [60], random=True)
    b.op("use2", [x, w2], [1])
    (w3,) = b.op("wide3", [w2], [60], random=True)
    b.op("use3", [x, w3], [1])
    graph, profile = b.graph(), b.profile()
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(
            budget_bytes=125, actions=("recompute",), tiers=(), settings=PlanSettings(min_bytes=1, margin=0.0)
        ),
    )
    runs = [e.op for e in lower(graph, made).entries if e.kind == "clone"]
    assert runs.count(0) == 2
    check(graph, profile, lower(graph, made), 125)
    assert simulate(graph, profile, lower(graph, made)).peak_bytes <= 125


def region_reader() -> Builder:
    """`d` needs the room that `a` takes, and `c`, made of `a`, is gone by then."""
    b = Builder()
    (a,) = b.op("a", [], [50])
    (c,) = b.op("c", [a], [10])
    b.op("wide", [], [90], random=True)
    b.op("d", [c], [60])
    b.op("last", [a])
    return b


def test_what_only_the_region_reads_goes_before_the_op_behind_it() -> None:
    graph, profile = region_reader().graph(), region_reader().profile()
    a, c = 0, 1
    decisions = tuple(
        Decision(
            storage=s, action="recompute", after=t, before=u, free_before=t + 1, fetch_before=u, region=r
        )
        for s, t, u, r in ((a, 1, 3, (0, 1)), (c, 1, 3, (0, 1)), (a, 3, 4, (0,)))
    )
    schedule = lower_decisions(graph, decisions)
    assert simulate(graph, profile, schedule).peak_bytes == 90
    check(graph, profile, schedule, 90)
    names = [(e.kind, e.op if e.op >= 0 else e.storage) for e in schedule.entries]
    assert names[-6:] == [("clone", 0), ("clone", 1), ("drop", a), ("op", 3), ("clone", 0), ("op", 4)]


def test_the_search_uses_that_room() -> None:
    graph, profile = region_reader().graph(), region_reader().profile()
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(
            budget_bytes=90, actions=("recompute",), tiers=(), settings=PlanSettings(min_bytes=1, margin=0.0)
        ),
    )
    assert made.predicted_peak_bytes == 90


def test_a_small_storage_goes_where_a_large_one_is_not_needed() -> None:
    """The cheap way per byte is to drop `large`; one byte is missing, and `small` is cheaper as a whole."""
    b = Builder()
    (large,) = b.op("large", [], [100], seconds=3.0)
    (small,) = b.op("small", [], [2], seconds=1.0)
    b.op("peak", [], [50], random=True)
    b.op("read small", [small])
    b.op("read large", [large])
    graph, profile = b.graph(), b.profile()
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(
            budget_bytes=151, actions=("recompute",), tiers=(), settings=PlanSettings(min_bytes=1, margin=0.0)
        ),
    )
    assert [d.storage for d in made.decisions] == [small]


def test_without_swap_the_error_names_a_budget_that_works() -> None:
    with pytest.raises(BudgetError) as caught:
        plan(0.05, "recompute")
    smallest = caught.value.smallest_feasible_bytes
    assert caught.value.dominating
    made = make_plan(
        GRAPH,
        PROFILE,
        SLACK,
        Request(budget_bytes=smallest, actions=("recompute",), tiers=(), settings=QUICK),
    )
    assert made.predicted_peak_bytes <= smallest
