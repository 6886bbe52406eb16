"""The walk in C decides as the walk in Python does, whatever the prices."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize import native
from outsize.plan import PlanSettings, make_plan
from outsize.plan.model import build_model, floor_curve
from outsize.plan.moves import all_moves, bar, force, kicks
from outsize.plan.prices import Taste
from outsize.plan.repair import repaired
from outsize.plan.request import Request
from outsize.plan.search import Search
from outsize.plan.walk import Walk
from outsize.plan.walker import Walked
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


def search_of(
    graph: StepGraph, profile: Profile, share: float, actions: tuple[str, ...], min_bytes: int
) -> Search:
    settings = PlanSettings(min_bytes=min_bytes)
    roomy = build_model(graph, profile, compute_slack(graph, profile), budget_bytes=2**60, settings=settings)
    floor = int(floor_curve(roomy).max())
    budget = int(floor + share * (roomy.peak - floor))
    model = build_model(graph, profile, compute_slack(graph, profile), budget_bytes=budget, settings=settings)
    return Search(model, Request(actions=actions, tiers=tuple(profile.links), lossy={}, limits={}))


def assert_same(search: Search, taste: Taste) -> tuple:
    """Walk both ways; the decisions, or () where neither gets through."""
    found = search.walker.attempt(taste, search.target)
    walk = Walk(
        chains=search.chains, budget=search.target, options=search.options.of, taste=taste, tier=search.tier,
        min_bytes=search.model.settings.min_bytes,
    )  # fmt: skip
    expected = walk.run()
    if expected is None or not isinstance(found, Walked):
        assert found == walk.stuck
        assert expected is None
        return ()
    assert found.decisions() == tuple(expected)
    again = {(d.fetch_before, op) for d in expected for op in d.region}
    assert found.again_seconds == pytest.approx(sum(search.chains.seconds[op] for _, op in again), rel=1e-9)
    if native.available():
        assert_same_trial(search, found)
    return found.decisions()


def assert_same_trial(search: Search, found: Walked) -> None:
    """Rows placed and timed as they are cost what the decisions do."""
    trial, scored = search.trials.of(found), search.timed(found.decisions())
    assert (trial is None) == (scored is None)
    if trial is None or scored is None:
        return
    assert trial.seconds == scored.seconds
    assert trial.keys == tuple((d.storage, d.after, d.action) for d in found.decisions())
    assert search.trials.of(found, below=trial.seconds) is None


def tastes(search: Search, draw: st.DataObject, count: int):
    """A taste of the grid, and then what random moves make of it; the caller sends the decisions of each."""
    taste = draw.draw(st.sampled_from(list(search.grid())))
    moves, kick = (
        all_moves(search.classes, swaps=search.swaps),
        kicks(search.classes, len(search.plain_weight)),
    )
    for _ in range(count):
        decisions = yield taste
        keys = [(d.storage, d.after, d.action) for d in decisions]
        which = draw.draw(st.integers(0, 3))
        if which == 0 and keys:
            move = bar(draw.draw(st.sampled_from(keys)))
        elif which == 1 and search.open_spans:
            move = force(draw.draw(st.sampled_from(search.open_spans)))
        elif which == 2:
            move = draw.draw(st.sampled_from(moves))
        else:
            move = next(kick)
        taste = move(taste) or taste


@needs_native
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6), ops=st.integers(4, 60), share=st.floats(0.0, 0.9), actions=st.sampled_from(ACTIONS),
    shared=st.booleans(), min_bytes=st.sampled_from((1, 40)), draw=st.data(),
)  # fmt: skip
def test_random_steps(seed, ops, share, actions, shared, min_bytes, draw) -> None:
    graph, profile = random_step(seed, ops=ops)
    profile = replace(profile, links={"disk": replace(LINK, shared=shared)}, codecs={"relu": CODEC})
    search = search_of(graph, profile, share, actions, min_bytes)
    walks = tastes(search, draw, 6)
    taste = next(walks)
    try:
        while True:
            taste = walks.send(assert_same(search, taste))
    except StopIteration:
        pass


@needs_native
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_networks(actions: tuple[str, ...], share: float) -> None:
    steps = (_transformer(CPU, 3, 128, 2, 128, 4, dropout=True, pre=True), unet(CPU, batch=1, size=64))
    walked = 0
    for graph, profile in steps:
        search = search_of(graph, profile, share, actions, 1)
        remake = frozenset(s.index for s in graph.candidates() if s.index % 3)
        for taste in search.grid():
            walked += bool(assert_same(search, taste))
            assert_same(search, replace(taste, remake=remake, share=0.5))
            weight = np.exp(np.random.default_rng(0).normal(size=len(graph.storages)))
            assert_same(search, replace(taste, weight=weight, fit=True))
    assert walked or actions == ("encode",) or share == 0.0


def test_without_the_c_module_the_python_walk_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, profile = random_step(3)
    search = search_of(graph, profile, 0.5, ("swap", "recompute"), 1)
    monkeypatch.setattr(native, "kernels", None)
    assert assert_same(search, next(search.grid()))


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
    made = make_plan(
        graph,
        profile,
        slack,
        budget_bytes=180,
        actions=("encode",),
        tiers=(),
        settings=PlanSettings(min_bytes=1, margin=0.0),
    )
    assert [(d.storage, d.action, d.codec) for d in made.decisions] == [(x, "encode", "relu")]
    option = Search(
        build_model(graph, profile, slack, budget_bytes=180, settings=PlanSettings(min_bytes=1)),
        Request(actions=("encode",), tiers=(), lossy={}, limits={}),
    ).options.of(x, False)[0]
    assert option.lane_cost(inf) == 0.0


def test_a_budget_too_tight_for_greed_gets_a_mixed_plan() -> None:
    """Three per cent above its floor a vision transformer was left to swaps alone, at three times the time."""
    graph, profile = vit(A100_PCIE4, layers=4, batch=96)
    lowest = search_of(graph, profile, 0.0, ("swap",), 2**16)
    share = 0.03 * lowest.floor / (lowest.model.peak - lowest.floor)
    search = search_of(graph, profile, share, ("swap", "recompute"), 2**16)
    found = repaired(search)
    swaps = [scored.seconds for scored in search.starts() if not (scored.taste and scored.taste.recompute)]
    assert found is not None
    assert found.taste is not None
    assert search.valid(found.decisions)
    assert {d.action for d in found.decisions} == {"swap", "recompute"}
    assert found.seconds < 0.7 * min(swaps)
    untold = replace(found.taste, barred=frozenset())
    assert search.walk(untold) is None
    assert found.taste.barred.isdisjoint((d.storage, d.after, d.action) for d in found.decisions)
