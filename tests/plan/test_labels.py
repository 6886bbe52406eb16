"""Labels: their plans are what they say, no other plan beats their bound, and the search ends near them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import BudgetError, PlanError
from outsize.plan.labels.decisions import decisions_of
from outsize.plan.labels.label import events_of
from outsize.plan.labels.solve import Labels
from outsize.plan.planners.exact import lower_bound
from outsize.plan.schedule.check import check
from outsize.plan.schedule.lower import lower_decisions
from outsize.plan.schedule.simulate import simulate
from outsize.plan.search.optimum import optimum
from outsize.plan.search.problem import Problem
from outsize.plan.search.search import fastest
from tests.plan.graphs import Builder, chain, random_step
from tests.plan.test_exact import problem_for

ACTIONS = [("recompute",), ("swap",), ("swap", "recompute")]


def labels_of(problem: Problem) -> Labels:
    link = problem.model.profile.links[problem.tier] if problem.swaps else None
    return Labels(problem.model, problem.chains, link, recompute=problem.recompute)


def known_seconds(problem: Problem) -> float:
    try:
        return fastest(problem).seconds
    except BudgetError:
        return inf


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.1, 0.9), actions=st.sampled_from(ACTIONS))
def test_bound_lies_between_the_relaxation_and_every_plan(
    seed: int, share: float, actions: tuple[str, ...]
) -> None:
    problem = problem_for(*random_step(seed, ops=4), share, actions)
    relaxed, known = lower_bound(problem), known_seconds(problem)
    found = labels_of(problem).solve(below=inf if known == inf else known * 1.05, seconds=2)
    assert found.bound <= known * (1 + 1e-6)
    if found.seconds == found.bound < inf:  # solved: the relaxation may not be above
        assert relaxed.feasible
        assert found.seconds >= relaxed.seconds * (1 - 1e-3)
    if found.events:
        decisions = decisions_of(
            found.events, problem.chains, problem.model.profile.links.get(problem.tier), problem.tier
        )
        schedule = lower_decisions(problem.model.graph, decisions)
        timeline = simulate(problem.model.graph, problem.model.profile, schedule)
        assert found.bound <= timeline.seconds * (1 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.1, 0.9))
def test_plans_by_swap_take_the_seconds_that_labels_state(seed: int, share: float) -> None:
    problem = problem_for(*random_step(seed, ops=5), share, ("swap",))
    found = labels_of(problem).solve(seconds=5, most=60)
    if not found.events:
        return
    graph, profile = problem.model.graph, problem.model.profile
    decisions = decisions_of(found.events, problem.chains, profile.links["disk"], "disk")
    schedule = lower_decisions(graph, decisions)
    check(graph, profile, schedule, problem.model.budget)
    assert simulate(graph, profile, schedule).seconds <= found.seconds * (
        1 + 1e-9
    )  # writes nobody reads are left out


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.2, 0.9))
def test_recomputation_alone_agrees_with_the_exact_program(seed: int, share: float) -> None:
    problem = problem_for(*random_step(seed, ops=4), share, ("recompute",))
    relaxed = lower_bound(problem)
    found = optimum(problem, known=known_seconds(problem), bound=0.0, seconds=5)
    if relaxed.proved and found.bound >= found.seconds * (1 - 1e-6):
        assert (found.seconds == inf) == (not relaxed.feasible)
        if relaxed.feasible:
            assert found.seconds == pytest.approx(relaxed.seconds, rel=1e-3)


@pytest.mark.parametrize(("layers", "share"), [(5, 0.15), (5, 0.35), (6, 0.3)])
def test_search_meets_the_optimum_of_a_chain_by_swaps(layers: int, share: float) -> None:
    problem = problem_for(*chain(layers, rate=70.0), share, ("swap",))
    found = optimum(problem, known=fastest(problem).seconds, bound=0.0, seconds=20)
    assert found.bound == pytest.approx(found.seconds)
    assert found.decisions is None
    assert found.seconds == pytest.approx(fastest(problem).seconds)


def test_a_write_is_issued_before_the_last_touch_of_its_bytes() -> None:
    b = Builder()
    (a,) = b.op("a", [], [100])
    (c,) = b.op("c", [a], [10], seconds=2.0)
    (d,) = b.op("d", [a, c], [10], seconds=0.5)
    (e,) = b.op("e", [d], [100], seconds=0.5)
    (f,) = b.op("f", [e], [10], seconds=4.0)
    b.op("g", [f, a], [5], phase="backward", kinds=["gradient"])
    problem = problem_for(b.graph(), b.profile(50.0), 0.0, ("swap",))
    decisions = fastest(problem).decisions
    assert [(d.storage, d.after) for d in decisions] == [(a, 0)]
    assert fastest(problem).seconds == pytest.approx(problem.model.profile.seconds + 2.0)  # the read


def test_labels_know_no_drag() -> None:
    problem = problem_for(*chain(3), 0.3, ("swap",))
    link = problem.model.profile.links["disk"]
    dragging = type(link)(**{**link.__dict__, "drag_seconds_per_byte": 1.0})
    with pytest.raises(PlanError, match="drag"):
        Labels(problem.model, problem.chains, dragging, recompute=False)


def test_limits_end_the_labels_with_a_bound_that_holds() -> None:
    problem = problem_for(*chain(6, rate=70.0), 0.15, ("swap",))
    best = labels_of(problem).solve().seconds
    for limits in ({"branches": 50}, {"most": 2}, {"seconds": 0.0}, {"each": 2}):
        found = labels_of(problem).solve(**limits)
        assert found.bound <= best <= found.seconds
    assert events_of(None) == ()
