"""Labels: their plans are what they say, no other plan beats their bound, and the search ends near them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.errors import BudgetError, PlanError
from outsize.plan.best import optimum
from outsize.plan.check import check
from outsize.plan.exact import lower_bound
from outsize.plan.label import events_of
from outsize.plan.labels import Labels
from outsize.plan.lower import lower_decisions
from outsize.plan.search import Search
from outsize.plan.simulate import simulate
from outsize.plan.told import told
from tests.plan.graphs import Builder, chain, random_step
from tests.plan.test_exact import search_for

ACTIONS = [("recompute",), ("swap",), ("swap", "recompute")]


def labels_of(search: Search) -> Labels:
    link = search.model.profile.links[search.tier] if search.swaps else None
    return Labels(search.model, search.chains, link, recompute=search.recompute)


def known_seconds(search: Search) -> float:
    try:
        return search.planned().seconds
    except BudgetError:
        return inf


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.1, 0.9), actions=st.sampled_from(ACTIONS))
def test_bound_lies_between_the_relaxation_and_every_plan(
    seed: int, share: float, actions: tuple[str, ...]
) -> None:
    search = search_for(*random_step(seed, ops=4), share, actions)
    relaxed, known = lower_bound(search), known_seconds(search)
    found = labels_of(search).solve(below=inf if known == inf else known * 1.05, seconds=5)
    assert found.bound <= known * (1 + 1e-6)
    if found.seconds == found.bound < inf:  # solved: the relaxation may not be above
        assert relaxed.feasible
        assert found.seconds >= relaxed.seconds * (1 - 1e-3)
    if found.events:
        decisions = told(
            found.events, search.chains, search.model.profile.links.get(search.tier), search.tier
        )
        schedule = lower_decisions(search.model.graph, decisions)
        timeline = simulate(search.model.graph, search.model.profile, schedule)
        assert found.bound <= timeline.seconds * (1 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.1, 0.9))
def test_plans_by_swap_take_the_seconds_that_labels_state(seed: int, share: float) -> None:
    search = search_for(*random_step(seed, ops=5), share, ("swap",))
    found = labels_of(search).solve(seconds=5, most=60)
    if not found.events:
        return
    graph, profile = search.model.graph, search.model.profile
    decisions = told(found.events, search.chains, profile.links["disk"], "disk")
    schedule = lower_decisions(graph, decisions)
    check(graph, profile, schedule, search.model.budget)
    assert simulate(graph, profile, schedule).seconds <= found.seconds * (
        1 + 1e-9
    )  # writes nobody reads are left out


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**4), share=st.floats(0.2, 0.9))
def test_recomputation_alone_agrees_with_the_exact_program(seed: int, share: float) -> None:
    search = search_for(*random_step(seed, ops=4), share, ("recompute",))
    relaxed = lower_bound(search)
    found = optimum(search, known=known_seconds(search), bound=0.0, seconds=5)
    if relaxed.proved and found.bound >= found.seconds * (1 - 1e-6):
        assert (found.seconds == inf) == (not relaxed.feasible)
        if relaxed.feasible:
            assert found.seconds == pytest.approx(relaxed.seconds, rel=1e-3)


@pytest.mark.parametrize(("layers", "share"), [(5, 0.15), (5, 0.35), (6, 0.3)])
def test_search_meets_the_optimum_of_a_chain_by_swaps(layers: int, share: float) -> None:
    search = search_for(*chain(layers, rate=70.0), share, ("swap",))
    found = optimum(search, known=search.planned().seconds, bound=0.0, seconds=20)
    assert found.bound == pytest.approx(found.seconds)
    assert found.decisions is None
    assert found.seconds == pytest.approx(search.planned().seconds)


def test_a_write_is_issued_before_the_last_touch_of_its_bytes() -> None:
    b = Builder()
    (a,) = b.op("a", [], [100])
    (c,) = b.op("c", [a], [10], seconds=2.0)
    (d,) = b.op("d", [a, c], [10], seconds=0.5)
    (e,) = b.op("e", [d], [100], seconds=0.5)
    (f,) = b.op("f", [e], [10], seconds=4.0)
    b.op("g", [f, a], [5], phase="backward", kinds=["gradient"])
    search = search_for(b.graph(), b.profile(50.0), 0.0, ("swap",))
    decisions = search.planned().decisions
    assert [(d.storage, d.after) for d in decisions] == [(a, 0)]
    assert search.planned().seconds == pytest.approx(search.model.profile.seconds + 2.0)  # the read


def test_labels_know_no_drag() -> None:
    search = search_for(*chain(3), 0.3, ("swap",))
    link = search.model.profile.links["disk"]
    dragging = type(link)(**{**link.__dict__, "drag_seconds_per_byte": 1.0})
    with pytest.raises(PlanError, match="drag"):
        Labels(search.model, search.chains, dragging, recompute=False)


def test_limits_end_the_labels_with_a_bound_that_holds() -> None:
    search = search_for(*chain(6, rate=70.0), 0.15, ("swap",))
    best = labels_of(search).solve().seconds
    for limits in ({"branches": 50}, {"most": 2}, {"seconds": 0.0}, {"each": 2}):
        found = labels_of(search).solve(**limits)
        assert found.bound <= best <= found.seconds
    assert events_of(None) == ()
