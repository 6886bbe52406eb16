"""Scores in C: the seconds, bytes and curves of `lower` and `simulate`, to the last bit."""

from __future__ import annotations

import random as rnd
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outsize import native
from outsize.errors import BudgetError, PlanError
from outsize.plan import PlanSettings, Request, make_plan
from outsize.plan.model import Model, build_model
from outsize.plan.schedule import score as score_module
from outsize.plan.schedule.lower import lower_placed
from outsize.plan.schedule.score import Decisions, Scorer
from outsize.plan.schedule.simulate import simulate, tier_peaks
from outsize.plan.search.polish import _neighbours
from outsize.slack import compute_slack
from outsize.values import CodecRate, Decision, Profile, StepGraph
from tests.plan.families import _transformer, resnet, unet
from tests.plan.graphs import chain, random_step
from tests.plan.nets import CPU, V100_PCIE3

DISK, HOST = "disk", "host"


def model_of(graph: StepGraph, profile: Profile) -> Model:
    slack = compute_slack(graph, profile)
    return build_model(graph, profile, slack, Request(budget_bytes=10**12, settings=PlanSettings()))


def assert_exact(scorer: Scorer, decisions: Decisions) -> None:
    """Both answers of the scorer are those of the reference, and the C code gave them where it is there."""
    graph, profile = scorer.model.graph, scorer.model.profile
    schedule, places = lower_placed(graph, decisions)
    timeline = simulate(graph, profile, schedule)
    curve, busy = [0] * len(graph.ops), [0.0] * len(graph.ops)
    for place, nbytes in zip(places, timeline.residency):
        curve[place] = max(curve[place], nbytes)
    for span in timeline.spans:
        if span.lane == "compute":
            busy[places[span.entry]] += span.end - span.start
    held = tier_peaks(graph, schedule).get(scorer.tier, 0)
    assert scorer.score(decisions) == (timeline.seconds, timeline.peak_bytes, held)
    seconds, found_curve, found_busy = scorer.ground(decisions)
    assert seconds == timeline.seconds
    assert found_curve.tolist() == curve
    assert found_busy.tolist() == busy
    if native.available():
        assert scorer._packed is not None
        assert scorer._packed.run(decisions) is not None


def odd_step(r: rnd.Random) -> tuple[StepGraph, Profile]:
    """A random step whose figures round, with drag and latency or without, and rates for one storage alone."""
    graph, profile = random_step(r.randrange(10**6), ops=r.choice([3, 10, 24, 70]))
    link = replace(
        profile.links[DISK], latency_seconds=r.choice([0.0, 0.3]), in_bytes_per_second=r.choice([7.0, 33.0]),
        drag_seconds_per_byte=r.choice([0.0, 0.01, 0.003]),
    )  # fmt: skip
    codecs = {name: _rate(r) for name in ("relu", "other", *(f"relu:{s}" for s in range(0, 99, 3)))}
    costs = tuple(replace(cost, seconds=cost.seconds + r.random() / 10) for cost in profile.ops)
    return graph, replace(profile, links={DISK: link}, codecs=codecs, ops=costs)


def _rate(r: rnd.Random) -> CodecRate:
    return CodecRate(
        encode_bytes_per_second=r.uniform(1, 99), decode_bytes_per_second=r.uniform(1, 99), ratio=0.1
    )


def wild(r: rnd.Random, graph: StepGraph) -> Decisions:
    """Well-formed decisions that no planner would make: spans that overlap, regions at random, forms that change."""
    transient = [s.index for s in graph.storages if s.kind == "activation"]
    few = r.sample(transient, min(len(transient), r.choice([2, 5, 50])))
    return tuple(_wild(r, graph, r.choice(few)) for _ in range(r.choice([0, 1, 3, 10, 40])))


def _wild(r: rnd.Random, graph: StepGraph, storage: int) -> Decision:
    ops = len(graph.ops)
    after = r.randrange(ops - 1)
    free, fetch, before = sorted(r.randint(after + 1, ops - 1) for _ in range(3))
    action = r.choice(["swap", "swap", "recompute", "recompute", "encode", "encode_swap"])
    region = set(r.sample(range(ops), r.randint(0, min(ops, 8))))
    if r.random() < 0.4:
        region.add(graph.storages[storage].producer)
    encodes = action.startswith("encode")
    return Decision(
        storage=storage,
        action=action,
        after=after,
        before=before,
        free_before=after + 1 if r.random() < 0.3 else free,
        fetch_before=before if r.random() < 0.3 else fetch,
        tier=DISK if "swap" in action else "",
        codec=r.choice(["relu", "relu", "other"]) if encodes else "",
        encoded_bytes=r.choice([0, 1, 7, 13]) if encodes else 0,
        region=tuple(sorted(region)) if action == "recompute" else (),
    )


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_any_decisions_on_random_steps(seed: int) -> None:
    r = rnd.Random(seed)
    graph, profile = odd_step(r)
    scorer = Scorer(model_of(graph, profile), DISK)
    for _ in range(4):
        assert_exact(scorer, wild(r, graph))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**9), share=st.floats(0, 1), planner=st.sampled_from(["search", "slack", "units"])
)
def test_plans_of_random_steps(seed: int, share: float, planner: str) -> None:
    graph, profile = odd_step(rnd.Random(seed))
    peak = max(graph.plain_residency(profile.workspace))
    budget = int(graph.resident_bytes + share * (peak - graph.resident_bytes))
    try:
        made = make_plan(
            graph,
            profile,
            compute_slack(graph, profile),
            Request(budget_bytes=budget, planner=planner, settings=PlanSettings(min_bytes=1, moves=3)),
        )
    except BudgetError:
        return
    scorer = Scorer(model_of(graph, profile), DISK)
    for decisions in neighbourhood(made.decisions):
        assert_exact(scorer, decisions)


def neighbourhood(decisions: Decisions) -> Iterator[Decisions]:
    """A plan and some of what polishing tries in its place."""
    yield decisions
    for at in range(0, len(decisions), max(1, len(decisions) // 6)):
        yield from list(_neighbours(decisions, at))[:3]


STEPS = {
    "resnet, host": (resnet(V100_PCIE3, 50, 16), HOST),
    "transformer, host": (_transformer(V100_PCIE3, 4, 256, 4, 256, 8, dropout=True, pre=True), HOST),
    "unet, shared disk": (unet(CPU, 3, 16, 64, 2), DISK),
    "chain, disk": (chain(9, rate=70.0), DISK),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    ("planner", "actions"),
    [
        ("search", ("swap", "recompute", "encode")),
        ("search", ("swap", "encode")),
        ("search", ("recompute",)),
        ("units", ("swap", "recompute")),
        ("slack", ("swap",)),
    ],
)
@pytest.mark.parametrize("drag", [0.0, 3e-12])
def test_plans_of_networks(name: str, planner: str, actions: tuple[str, ...], drag: float) -> None:
    (graph, profile), tier = STEPS[name]
    link = replace(profile.links[tier], drag_seconds_per_byte=drag)
    profile = replace(profile, links={tier: link})
    quick = PlanSettings(min_bytes=1, moves=3, polished_ops=0)
    scorer = Scorer(model_of(graph, profile), tier if "swap" in actions else "")
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(
            planner=planner,
            actions=actions,
            tiers=(tier,),
            budget_bytes=int(0.6 * scorer.model.peak),
            settings=quick,
        ),
    )
    assert made.decisions
    for decisions in neighbourhood(made.decisions):
        assert_exact(scorer, decisions)


def test_the_table_of_decisions_grows_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "_KNOWN", 8)
    r = rnd.Random(5)
    graph, profile = odd_step(r)
    scorer = Scorer(model_of(graph, profile), DISK)
    kept = wild(r, graph)
    for _ in range(60):
        assert_exact(scorer, wild(r, graph))  # freed at once: its identity may come again
        assert_exact(scorer, kept)
    assert_exact(scorer, tuple(_wild(r, graph, kept[0].storage) for _ in range(200)) if kept else ())
    assert_exact(scorer, (*kept, *kept))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"storage": 0}, "only activations"),
        ({"free_before": 1}, "needs after < free_before"),
        ({"before": 99}, "needs after < free_before"),
        ({"tier": "nowhere"}, "no rate for tier 'nowhere'"),
        ({"action": "encode", "codec": "unknown", "encoded_bytes": 7}, "no rate for codec 'unknown'"),
    ],
)
def test_what_the_reference_refuses_is_refused_in_its_words(change: dict, said: str) -> None:
    graph, profile = chain(6)
    storage = graph.ops[1].writes[0]
    fine = Decision(
        storage=storage, action="swap", after=2, before=10, free_before=4, fetch_before=7, tier=DISK
    )
    scorer = Scorer(model_of(graph, profile), DISK)
    assert_exact(scorer, (fine,))
    for answer in (scorer.score, scorer.ground):
        with pytest.raises(PlanError, match=said):
            answer((fine, replace(fine, **change)))


def test_without_the_c_module_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    (graph, profile), tier = STEPS["unet, shared disk"]
    slack, quick = compute_slack(graph, profile), PlanSettings(moves=3)
    budget = int(0.6 * model_of(graph, profile).peak)

    def decided() -> Decisions:
        return make_plan(
            graph, profile, slack, Request(budget_bytes=budget, tiers=(tier,), settings=quick)
        ).decisions

    made = decided()
    monkeypatch.setattr(native, "kernels", None)
    scorer = Scorer(model_of(graph, profile), tier)
    assert scorer._packed is None
    assert_exact(scorer, made)
    assert decided() == made
