"""The MILP as oracle: its bound holds for every plan, and the search comes near it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import BudgetError, PlanError
from outsize.plan import PlanSettings, make_plan
from outsize.plan.model import build_model, floor_curve
from outsize.plan.planners.exact import lower_bound
from outsize.plan.request import Request
from outsize.plan.search.problem import Problem
from outsize.plan.search.search import fastest
from outsize.slack import compute_slack
from outsize.values import Profile, StepGraph
from tests.plan.graphs import chain, random_step

SMALL = PlanSettings(min_bytes=1, margin=0.0, moves=60, exact_seconds=10)


def problem_for(graph: StepGraph, profile: Profile, share: float, actions: tuple[str, ...]) -> Problem:
    slack = compute_slack(graph, profile)
    model = build_model(graph, profile, slack, Request(budget_bytes=1, settings=SMALL))
    low = int(floor_curve(model).max())
    budget = int(low + share * (model.peak - low))
    tiers = ("disk",) if "swap" in actions else ()
    model = build_model(
        graph, profile, slack, Request(budget_bytes=budget, actions=actions, tiers=tiers, settings=SMALL)
    )
    return Problem.of(model)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_recomputation_of_a_chain_is_optimal(share: float) -> None:
    problem = problem_for(*chain(6), share, ("recompute",))
    bound = lower_bound(problem)
    assert bound.proved
    assert fastest(problem).seconds == pytest.approx(bound.seconds, rel=1e-3)
    read = problem.placed(bound.decisions)
    assert read is not None
    assert read.seconds == pytest.approx(bound.seconds, rel=1e-3)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**4),
    share=st.floats(0.2, 0.9),
    actions=st.sampled_from([("recompute",), ("swap",), ("swap", "recompute")]),
)
def test_no_plan_beats_the_bound(seed: int, share: float, actions: tuple[str, ...]) -> None:
    problem = problem_for(*random_step(seed, ops=5), share, actions)
    bound = lower_bound(problem)
    try:
        found = fastest(problem)
    except BudgetError:
        return
    assert bound.feasible
    assert found.seconds >= bound.seconds * (1 - 1e-3)


def test_exact_is_a_planner_for_small_steps_only() -> None:
    graph, profile = chain(5, rate=60.0)
    slack = compute_slack(graph, profile)
    plan = make_plan(graph, profile, slack, Request(budget_bytes=600, planner="exact", settings=SMALL))
    assert plan.decisions
    assert plan.predicted_peak_bytes <= 600
    assert all("relaxation" in d.reason for d in plan.decisions)
    graph, profile = chain(40)
    with pytest.raises(PlanError, match="at most 64 ops, the step has 82"):
        make_plan(graph, profile, compute_slack(graph, profile), Request(budget_bytes=3000, planner="exact"))
