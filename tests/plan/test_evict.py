"""The eviction pass in C decides as the one in Python does, whatever the prices."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize import native
from outsize.plan import PlanSettings, make_plan
from outsize.plan.evict.passes import Evicted
from outsize.plan.evict.policy import Policy
from outsize.plan.evict.reference import ReferencePass
from outsize.plan.model import build_model, floor_curve
from outsize.plan.request import Request
from outsize.plan.schedule.check import check
from outsize.plan.schedule.lower import lower_decisions
from outsize.plan.search.mixed import repaired
from outsize.plan.search.moves import all_moves, bar, force, kicks, release, retain
from outsize.plan.search.problem import Problem
from outsize.plan.search.starts import grid, starts
from outsize.slack import compute_slack
from outsize.values import CodecRate, LinkRate, Profile, StepGraph
from tests.plan.families import _transformer, unet, vit
from tests.plan.graphs import Builder, random_step
from tests.plan.nets import A100_PCIE4, CPU

LINK = LinkRate(
    out_bytes_per_second=40.0, in_bytes_per_second=60.0, latency_seconds=0.1, drag_seconds_per_byte=1e-3
)
CODEC = CodecRate(encode_bytes_per_second=300.0, decode_bytes_per_second=500.0, ratio=0.4)
ACTIONS = (("swap", "recompute", "encode"), ("recompute", "encode"), ("swap",), ("recompute",), ("encode",))

needs_native = pytest.mark.skipif(native.kernels is None, reason="the C module is not built")


def problem_of(
    graph: StepGraph, profile: Profile, share: float, actions: tuple[str, ...], min_bytes: int
) -> Problem:
    settings = PlanSettings(min_bytes=min_bytes)
    roomy = build_model(
        graph, profile, compute_slack(graph, profile), Request(budget_bytes=2**60, settings=settings)
    )
    floor = int(floor_curve(roomy).max())
    budget = int(floor + share * (roomy.peak - floor))
    request = Request(budget_bytes=budget, actions=actions, tiers=tuple(profile.links), settings=settings)
    model = build_model(graph, profile, compute_slack(graph, profile), request)
    return Problem.of(model)


def held_for_a_while(graph: StepGraph, draw: st.DataObject) -> StepGraph:
    """The step with activations that others hold up to one of their uses, as an observed step has."""
    storages = tuple(
        replace(s, held_until=draw.draw(st.sampled_from((-1, s.producer, *s.uses[:-1]))))
        if s.kind == "activation" and not s.held
        else s
        for s in graph.storages
    )
    return replace(graph, storages=storages)


def assert_same(problem: Problem, policy: Policy) -> tuple:
    """ReferencePass both ways; the decisions, or () where neither gets through."""
    found = problem.evictor.attempt(policy, problem.target)
    walk = ReferencePass(
        chains=problem.chains, budget=problem.target, options=problem.options.of, policy=policy, tier=problem.tier,
        min_bytes=problem.model.settings.min_bytes,
    )  # fmt: skip
    expected = walk.run()
    if expected is None or not isinstance(found, Evicted):
        assert found == walk.stuck
        assert expected is None
        return ()
    assert found.decisions() == tuple(expected)
    check(
        problem.model.graph,
        problem.model.profile,
        lower_decisions(problem.model.graph, tuple(expected)),
        2**60,
    )
    again = {(d.fetch_before, op) for d in expected for op in d.region}
    assert found.again_seconds == pytest.approx(sum(problem.chains.seconds[op] for _, op in again), rel=1e-9)
    if native.available():
        assert_same_trial(problem, found)
    return found.decisions()


def assert_same_trial(problem: Problem, found: Evicted) -> None:
    """Rows placed and timed as they are cost what the decisions do."""
    trial, scored = problem.trials.of(found), problem.placed(found.decisions())
    assert (trial is None) == (scored is None)
    if trial is None or scored is None:
        return
    assert trial.seconds == scored.seconds
    assert trial.keys == tuple((d.storage, d.after, d.action) for d in found.decisions())
    assert problem.trials.of(found, below=trial.seconds) is None


def policies(problem: Problem, draw: st.DataObject, count: int):
    """A policy of the grid, and then what random moves make of it; the caller sends the decisions of each."""
    policy = draw.draw(st.sampled_from(list(grid(problem))))
    moves, kick = (
        all_moves(problem.classes, swaps=problem.swaps),
        kicks(problem.classes, len(problem.uniform)),
    )
    for _ in range(count):
        decisions = yield policy
        keys = [(d.storage, d.after, d.action) for d in decisions]
        which = draw.draw(st.integers(0, 5))
        if which == 0 and keys:
            move = bar(draw.draw(st.sampled_from(keys)))
        elif which == 1 and problem.open_spans:
            move = force(draw.draw(st.sampled_from(problem.open_spans)))
        elif which in (4, 5):
            some = (
                draw.draw(st.sets(st.sampled_from(problem.retainable), max_size=8))
                if problem.retainable
                else set()
            )
            move = retain(some) if which == 4 else release(some)
        elif which == 2:
            move = draw.draw(st.sampled_from(moves))
        else:
            move = next(kick)
        policy = move(policy) or policy


@needs_native
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6), ops=st.integers(4, 60), share=st.floats(0.0, 0.9), actions=st.sampled_from(ACTIONS),
    shared=st.booleans(), min_bytes=st.sampled_from((1, 40)), draw=st.data(),
)  # fmt: skip
def test_random_steps(seed, ops, share, actions, shared, min_bytes, draw) -> None:
    graph, profile = random_step(seed, ops=ops)
    if draw.draw(st.booleans()):
        graph = held_for_a_while(graph, draw)
    profile = replace(profile, links={"disk": replace(LINK, shared=shared)}, codecs={"relu": CODEC})
    problem = problem_of(graph, profile, share, actions, min_bytes)
    walks = policies(problem, draw, 6)
    policy = next(walks)
    try:
        while True:
            policy = walks.send(assert_same(problem, policy))
    except StopIteration:
        pass


@needs_native
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_networks(actions: tuple[str, ...], share: float) -> None:
    steps: tuple[tuple[StepGraph, Profile], ...] = (
        _transformer(CPU, 3, 128, 2, 128, 4, dropout=True, pre=True),
        unet(CPU, batch=1, size=64),
    )
    walked = 0
    for graph, profile in steps:
        problem = problem_of(graph, profile, share, actions, 1)
        remake = frozenset(s.index for s in graph.candidates() if s.index % 3)
        for policy in grid(problem):
            walked += bool(assert_same(problem, policy))
            assert_same(problem, replace(policy, remake=remake, share=0.5))
            weight = np.exp(np.random.default_rng(0).normal(size=len(graph.storages)))
            assert_same(problem, replace(policy, weight=weight, fit=True))
            assert_same(problem, replace(policy, retain=frozenset(problem.retainable)))
    assert walked or not {"swap", "recompute"} & set(actions) or share == 0.0


def test_without_the_c_module_the_python_pass_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, profile = random_step(3)
    problem = problem_of(graph, profile, 0.5, ("swap", "recompute"), 1)
    monkeypatch.setattr(native, "kernels", None)
    assert assert_same(problem, next(grid(problem)))


@pytest.mark.parametrize("in_c", [pytest.param(True, marks=needs_native), False])
def test_what_others_hold_is_not_made_twice_before_they_let_go(
    in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One op makes what left and what is held: at 100 bytes the second copy of the latter does not fit."""
    b = Builder()
    a, held = b.op("pair", [], [60, 20])
    (c,) = b.op("read", [held], [5])
    (wide,) = b.op("wide", [c], [70])
    (narrow,) = b.op("narrow", [wide], [5])
    (d,) = b.op("both", [a, held, narrow], [5])
    b.op("last", [held, d], [5], phase="backward")
    graph = b.graph()
    storages = [replace(s, held_until=4) if s.index == held else s for s in graph.storages]
    graph, profile = replace(graph, storages=tuple(storages)), replace(b.profile(), links={})
    if not in_c:
        monkeypatch.setattr(native, "kernels", None)
    fitted = {}
    for budget in range(90, 165, 5):
        model = build_model(
            graph,
            profile,
            compute_slack(graph, profile),
            Request(budget_bytes=budget, actions=("recompute",), tiers=(), settings=PlanSettings(margin=0.0)),
        )
        problem = Problem.of(model)
        if (made := problem.evictor.run(next(grid(problem)), budget)) is not None:
            fitted[budget] = made.decisions()
            check(graph, profile, lower_decisions(graph, fitted[budget]), budget)
    assert {d.storage for d in fitted[105]} == {a}
    assert min(fitted) == 105


def test_encode_alone_is_offered_at_an_infinite_lane_price() -> None:
    """0 seconds of transfers cost nothing, whatever a second is worth; `inf * 0` had made that price no number."""
    b = Builder()
    (x,) = b.op("relu", [], [100], zeros=True, random=True)
    (y,) = b.op("next", [x], [10], random=True)
    (z,) = b.op("wide", [y], [100], random=True)
    (v,) = b.op("narrow", [z], [5], random=True)
    b.op("backward", [x, v], [1])
    graph, profile = b.graph(), replace(b.profile(), links={}, codecs={"relu": CODEC})
    slack = compute_slack(graph, profile)
    request = Request(
        budget_bytes=180,
        actions=("encode",),
        tiers=(),
        settings=PlanSettings(min_bytes=1, margin=0.0),
    )
    made = make_plan(graph, profile, slack, request)
    assert [(d.storage, d.action, d.codec) for d in made.decisions] == [(x, "encode", "relu")]
    option = Problem.of(
        build_model(graph, profile, slack, replace(request, settings=PlanSettings(min_bytes=1)))
    ).options.of(x, False)[0]
    assert option.lane_cost(inf) == 0.0


def test_a_budget_too_tight_for_greed_gets_a_mixed_plan() -> None:
    """Three per cent above its floor a vision transformer was left to swaps alone, at three times the time."""
    graph, profile = vit(A100_PCIE4, layers=4, batch=96)
    lowest = problem_of(graph, profile, 0.0, ("swap",), 2**16)
    share = 0.03 * lowest.floor / (lowest.model.peak - lowest.floor)
    problem = problem_of(graph, profile, share, ("swap", "recompute"), 2**16)
    found = repaired(problem, grid(problem))
    swaps = [scored.seconds for scored in starts(problem) if not (scored.policy and scored.policy.recompute)]
    assert found is not None
    assert found.policy is not None
    assert problem.valid(found.decisions)
    assert {d.action for d in found.decisions} == {"swap", "recompute"}
    assert found.seconds < 0.7 * min(swaps)
    unbarred = replace(found.policy, barred=frozenset())
    assert problem.evict(unbarred) is None
    assert found.policy.barred.isdisjoint((d.storage, d.after, d.action) for d in found.decisions)
