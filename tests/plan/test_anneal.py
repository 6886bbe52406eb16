"""Annealing: plans that fit, never slower than where it starts, the same in every run; worth its time or not made."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize import native
from outsize.cli.plan import plan as cli_plan
from outsize.plan import PlanSettings, make_plan
from outsize.plan.model import build_model, floor_curve
from outsize.plan.request import Request
from outsize.plan.schedule.check import check
from outsize.plan.schedule.lower import lower_decisions
from outsize.plan.schedule.simulate import simulate
from outsize.plan.search.anneal import Annealing, annealed
from outsize.plan.search.problem import Problem
from outsize.plan.search.search import Explored, explored
from outsize.plan.search.starts import starts
from outsize.plan.settings import MOST_EFFORT
from outsize.slack import compute_slack
from outsize.values import Profile, StepGraph
from tests.plan.families import _transformer, unet
from tests.plan.graphs import random_step
from tests.plan.nets import A100_PCIE4, GH200, V100_PCIE3

pytestmark = pytest.mark.skipif(not native.available(), reason="walks by the thousand need the C module")
ACTIONS = st.sampled_from([("recompute",), ("swap",), ("swap", "recompute"), ("swap", "recompute", "encode")])


def problem_of(graph: StepGraph, profile: Profile, share: float, actions: tuple[str, ...]) -> Problem:
    slack = compute_slack(graph, profile)
    chosen = PlanSettings(min_bytes=1, moves=50, frontier_ops=0, effort=4)
    roomy = build_model(graph, profile, slack, Request(budget_bytes=2**60, settings=chosen))
    floor = int(floor_curve(roomy).max())
    budget = int(floor + share * (roomy.peak - floor))
    tiers = tuple(profile.links) if "swap" in actions else ()
    model = build_model(
        graph, profile, slack, Request(budget_bytes=budget, actions=actions, tiers=tiers, settings=chosen)
    )
    return Problem.of(model)


def found_by(problem: Problem) -> tuple[Explored, list[Explored]]:
    """What the search has before it anneals: of all actions together, and of each alone."""
    alone = [found for one in problem.alone() if (found := explored(one)) is not None]
    together = explored(problem, alone)
    assert together is not None
    return together, alone


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**5), ops=st.integers(6, 40), share=st.floats(0.1, 0.9), actions=ACTIONS)
def test_what_it_finds_fits_and_takes_the_seconds_it_says(
    seed: int, ops: int, share: float, actions: tuple[str, ...]
) -> None:
    graph, profile = random_step(seed, ops=ops)
    problem = problem_of(graph, profile, share, actions)
    start = next((scored for scored in starts(problem) if scored.policy is not None), None)
    if start is None:
        return
    assert start.policy is not None
    best = Annealing(problem, start.policy).run(200)
    assert best is not None
    assert best.seconds <= start.seconds
    schedule = lower_decisions(graph, best.decisions)
    check(graph, profile, schedule, problem.model.budget)
    assert simulate(graph, profile, schedule).seconds == best.seconds
    again = Annealing(problem_of(graph, profile, share, actions), start.policy).run(200)
    assert again is not None
    assert again.decisions == best.decisions


def test_where_the_budget_is_tight_it_leaves_the_local_optimum_of_single_moves() -> None:
    for graph, profile in (
        unet(A100_PCIE4),
        _transformer(V100_PCIE3, 4, 512, 8, 512, 8, dropout=False, pre=True),
    ):
        problem = problem_of(graph, profile, 0.05, ("swap", "recompute"))
        together, alone = found_by(problem)
        known = min(scored.seconds for scored in together.plans)
        for found in annealed(problem, together.plans, [one.best for one in alone]):
            assert found.seconds - profile.seconds < 0.95 * (known - profile.seconds)


def test_it_starts_from_what_a_walk_gives_and_allows_what_the_search_allows() -> None:
    graph, profile = _transformer(GH200, 4, 512, 8, 512, 8, dropout=False, pre=True)
    problem = problem_of(graph, profile, 0.05, ("swap", "recompute"))
    together, others = found_by(problem)
    alone = [one.best for one in others if not one.problem.recompute]
    assert alone, "a plan by swaps alone, with last touches"
    (mixed, from_swaps) = annealed(problem, together.plans, alone)
    assert any(d.action == "recompute" for d in from_swaps.decisions)
    assert from_swaps.seconds < alone[0].seconds
    assert mixed.decisions != from_swaps.decisions


def test_a_plan_that_adds_next_to_nothing_is_left_alone() -> None:
    graph, profile = unet(A100_PCIE4)
    problem = problem_of(graph, profile, 0.05, ("swap", "recompute"))
    together, _ = found_by(problem)
    nearly = replace(together.plans[0], seconds=profile.seconds * 1.009)
    assert annealed(problem, [nearly]) == []
    assert annealed(problem, []) == []


def test_the_command_line_takes_the_efforts_that_there_are() -> None:
    (option,) = get_args(get_type_hints(cli_plan, include_extras=True)["effort"])[1:]
    assert (option.min, option.max) == (1, MOST_EFFORT)


def test_more_effort_never_makes_a_slower_plan() -> None:
    graph, profile = unet(A100_PCIE4)
    slack, peak = compute_slack(graph, profile), max(graph.plain_residency(profile.workspace))
    seconds = [
        make_plan(
            graph, profile, slack, Request(budget_bytes=int(0.4 * peak), actions=("swap", "recompute"), tiers=("host",),
            settings=PlanSettings(effort=effort)),
        ).predicted_step_seconds
        for effort in (1, 2)
    ]  # fmt: skip
    assert profile.seconds < seconds[1] < seconds[0]
