"""The program over a few positions: its bound holds for every plan, and the search fills the budget as it says."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import BudgetError
from outsize.plan import PlanSettings, make_plan
from outsize.plan.model import build_model, floor_curve
from outsize.plan.planners.exact import lower_bound
from outsize.plan.request import Request
from outsize.plan.search.cuts import CutProgram, Effort
from outsize.plan.search.problem import Problem
from outsize.plan.search.relaxation import along_relaxation, least_again, optima
from outsize.plan.search.search import fastest
from outsize.plan.settings import FRONTIER_EFFORT
from outsize.slack import compute_slack
from outsize.values import Profile, StepGraph
from tests.plan.families import _transformer
from tests.plan.graphs import Builder, chain, random_step
from tests.plan.nets import V100_PCIE3

SMALL = PlanSettings(min_bytes=1, margin=0.0, moves=60, exact_seconds=10)
EFFORT = Effort(gap=1e-6, seconds=20.0, rounds=4, cuts=16)
WITHOUT = PlanSettings(margin=0.0, frontier_ops=0)


def problem_for(
    graph: StepGraph,
    profile: Profile,
    budget: int,
    plan_settings: PlanSettings = SMALL,
    actions: tuple[str, ...] = ("recompute",),
) -> Problem:
    slack = compute_slack(graph, profile)
    tiers = tuple(profile.links) if "swap" in actions else ()
    model = build_model(
        graph,
        profile,
        slack,
        Request(budget_bytes=budget, actions=actions, tiers=tiers, settings=plan_settings),
    )
    return Problem.of(model)


def between(graph: StepGraph, profile: Profile, share: float) -> int:
    model = build_model(
        graph, profile, compute_slack(graph, profile), Request(budget_bytes=1, settings=SMALL)
    )
    low = int(floor_curve(model).max())
    return int(low + share * (model.peak - low))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**4),
    ops=st.integers(3, 10),
    share=st.floats(0.05, 0.95),
    actions=st.sampled_from([("recompute",), ("swap", "recompute")]),
)
def test_no_plan_adds_less_than_the_bound(
    seed: int, ops: int, share: float, actions: tuple[str, ...]
) -> None:
    graph, profile = random_step(seed, ops=ops)
    problem = problem_for(graph, profile, between(graph, profile, share), actions=actions)
    added = least_again(problem, EFFORT)
    try:
        found = fastest(problem)
    except BudgetError:
        return
    assert found.seconds >= (profile.seconds + added) * (1 - 1e-5)


def test_a_lane_that_carries_all_in_time_needs_no_wait() -> None:
    graph, profile = chain(8, rate=1e9)
    problem = problem_for(graph, profile, between(graph, profile, 0.5), actions=("swap", "recompute"))
    assert least_again(problem, EFFORT) == pytest.approx(0.0, abs=1e-9)
    slow = problem_for(*chain(8, rate=1.0), problem.model.budget, actions=("swap", "recompute"))
    alone = problem_for(*chain(8, rate=1.0), problem.model.budget)
    assert 0 < least_again(slow, EFFORT) <= least_again(alone, EFFORT) * (1 + 1e-6)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.2, 0.9))
def test_the_bound_is_no_higher_than_that_of_all_positions(seed: int, share: float) -> None:
    graph, profile = random_step(seed, ops=5)
    problem = problem_for(graph, profile, between(graph, profile, share))
    everywhere = lower_bound(problem)
    if everywhere.feasible:
        assert profile.seconds + least_again(problem, EFFORT) <= everywhere.seconds * (1 + 1e-3)


def items(sizes: list[int]) -> tuple[StepGraph, Profile]:
    """Storages that have nothing to do with one another, made and read once; seconds as bytes."""
    b = Builder()
    data = b.resident(1)
    made = [b.op(f"f{i}", [data], [size], seconds=float(size))[0] for i, size in enumerate(sizes)]
    b.op("loss", [data], [1], phase="outside")
    for i in reversed(range(len(sizes))):
        b.op(f"b{i}", [made[i]], [1], phase="backward", seconds=0.5)
    return b.graph(), b.profile()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(10, 99), min_size=5, max_size=9), share=st.floats(0.3, 0.9))
def test_independent_storages_fill_the_budget_as_a_knapsack(sizes: list[int], share: float) -> None:
    sizes.sort()  # the last and largest is there while the others are
    graph, profile = items(sizes)
    peak = max(graph.plain_residency(profile.workspace))
    budget = max(sizes[-1] + 2, int(share * peak))
    problem = problem_for(graph, profile, budget)
    found = min(scored.seconds for scored in along_relaxation(problem))
    rest = sizes[:-1]
    sums = [sum(gone) for n in range(len(sizes)) for gone in combinations(rest, n)]
    least = min(gone for gone in sums if gone >= peak - budget)
    assert least_again(problem, EFFORT) == pytest.approx(least, rel=1e-5)
    assert found == pytest.approx(profile.seconds + least, rel=FRONTIER_EFFORT[0])


def test_kilobytes_of_gigabytes_are_counted() -> None:
    """As shares of the budget they are below what a solver holds a row to: the bound is loose, the plan wrong."""
    b = Builder()
    data = b.resident(1)
    small = [b.op(f"small{i}", [data], [128], seconds=0.01)[0] for i in range(20)]
    large = [b.op(f"large{i}", [data], [2**30], seconds=50.0)[0] for i in range(4)]
    b.op("loss", [data], [1], phase="outside")
    for k, s in enumerate((*reversed(large), *small)):
        b.op(f"b{k}", [s], [1], phase="backward")
    graph, profile = b.graph(), b.profile()
    peak = max(graph.plain_residency(profile.workspace))
    problem = problem_for(graph, profile, peak - 19 * 128)
    assert least_again(problem, EFFORT) == pytest.approx(0.19, rel=1e-3)
    assert min(s.seconds for s in along_relaxation(problem)) == pytest.approx(profile.seconds + 0.19)
    assert lower_bound(problem).seconds == pytest.approx(profile.seconds + 0.19)


def test_a_search_is_no_slower_for_it_and_repeats_itself() -> None:
    for dropout in (False, True):
        graph, profile = _transformer(V100_PCIE3, 5, 256, 4, 256, 8, dropout=dropout, pre=True)
        slack = compute_slack(graph, profile)
        for share in (0.35, 0.45, 0.6):
            budget = int(share * max(graph.plain_residency(profile.workspace)))
            first, again, without = (
                make_plan(
                    graph, profile, slack, Request(budget_bytes=budget, actions=("recompute",), tiers=(), settings=chosen)
                )
                for chosen in (PlanSettings(margin=0.0), PlanSettings(margin=0.0), WITHOUT)
            )  # fmt: skip
            assert first.decisions == again.decisions
            assert first.predicted_step_seconds <= without.predicted_step_seconds


def test_a_step_too_large_or_one_that_fits_has_no_program() -> None:
    graph, profile = chain(6)
    budget = between(graph, profile, 0.5)
    assert along_relaxation(problem_for(graph, profile, budget))
    assert along_relaxation(problem_for(graph, profile, budget, replace(SMALL, frontier_ops=0))) == []
    peak = max(graph.plain_residency(profile.workspace))
    assert list(optima(problem_for(graph, profile, peak), peak, EFFORT, retain=())) == []


def test_what_cannot_fit_at_a_cut_is_infeasible() -> None:
    graph, profile = chain(6)
    problem = problem_for(graph, profile, between(graph, profile, 0.5))
    program = CutProgram(problem.chains, retain=problem.retainable)
    assert not program.solve([len(graph.ops) // 2], 1, EFFORT).feasible
