"""A storage is kept beyond its last use where what is made of it later is cheaper to make that way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from outsize.plan import PlanSettings, check, explain, lower, make_plan, simulate
from outsize.plan.evict.policy import Policy
from outsize.plan.model import build_model
from outsize.plan.request import Request
from outsize.plan.schedule.lower import lower_decisions
from outsize.plan.schedule.retained import with_reasons
from outsize.plan.search import climb, retention
from outsize.plan.search.problem import Problem
from outsize.slack import compute_slack
from outsize.values import Plan, Profile, StepGraph, from_json
from tests.plan.families import RETAINING, densenet, lora, rrdb
from tests.plan.graphs import Builder
from tests.plan.nets import CPU

SMALL = PlanSettings(min_bytes=1, margin=0.0, moves=60)


def joined(layers: int = 8) -> tuple[StepGraph, Profile]:
    """A dense stage: each layer's small dear result is copied beside what came before, and only the copy is saved."""
    b = Builder()
    (x,) = b.op("stem", [], [20], seconds=10.0, flops=10)
    saved = []
    for i in range(layers):
        (y,) = b.op(f"conv{i}", [x], [20], seconds=10.0, flops=10)
        (x,) = b.op(f"cat{i}", [x, y], [20 * (i + 2)], seconds=0.1)
        saved.append(x)
    (g,) = b.op("outside", [x], [20], phase="outside", target="outside", effect=True)
    for i in reversed(range(layers)):
        (g,) = b.op(f"back{i}", [g, saved[i]], [20], phase="backward", seconds=1.0)
    b.op("update", [g], phase="update", target="update", effect=True)
    return b.graph(), b.profile(1e-6)


def planned(share: float, *actions: str) -> tuple[StepGraph, Profile, Plan]:
    graph, profile = joined()
    peak = max(graph.plain_residency(profile.workspace))
    made = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(
            budget_bytes=int(share * peak),
            actions=actions,
            tiers=tuple(profile.links) if "swap" in actions else (),
            settings=SMALL,
        ),
    )
    return graph, profile, made


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_copies_are_made_again_and_convolutions_are_not(share: float) -> None:
    graph, profile, made = planned(share, "recompute")
    again = [graph.ops[e.op].name for e in lower(graph, made).entries if e.kind == "clone"]
    assert again
    assert all(name.startswith("cat") for name in again)
    assert made.recomputed_flops == 0
    check(graph, profile, lower(graph, made), made.budget_bytes)


def test_the_plan_says_what_is_kept_and_what_for() -> None:
    graph, _, made = planned(0.6, "recompute")
    kept = [r for r in made.refusals if r.reason == "RETAINED"]
    assert kept
    for refusal in kept:
        assert graph.storages[refusal.storage].name.startswith(("conv", "stem"))
        assert refusal.detail.startswith("kept for cat")
        assert ", made again before back" in refusal.detail
    assert any("RETAINED (kept for cat" in line for line in explain(graph, made))


def test_a_plan_with_retention_reads_back_and_runs_what_it_says() -> None:
    graph, profile, made = planned(0.6, "recompute")
    read = from_json(Plan, made.to_json())
    assert read == made
    assert simulate(graph, profile, lower(graph, read)).peak_bytes == made.predicted_peak_bytes


def test_a_smaller_budget_never_peaks_higher_nor_runs_faster() -> None:
    plans = [planned(share, "recompute")[2] for share in (0.55, 0.7, 0.85)]
    for small, large in pairwise(plans):
        assert small.predicted_peak_bytes <= large.predicted_peak_bytes
        assert small.predicted_step_seconds >= large.predicted_step_seconds * (1 - 1e-9)


@pytest.mark.parametrize("action", ["swap", "encode"])
def test_what_is_retained_may_wait_in_a_tier_or_encoded(action: str) -> None:
    graph, profile = joined()
    names = {s.name: s.index for s in graph.storages}
    conv, cat = names["conv3"], names["cat3"]
    dead, position = graph.storages[conv].uses[-1], graph.storages[cat].uses
    peak = max(graph.plain_residency(profile.workspace))
    storages = tuple(replace(s, zeros=s.index == conv) for s in graph.storages)
    graph = replace(graph, storages=storages)
    request = Request(
        budget_bytes=int(0.9 * peak),
        actions=("recompute", action),
        tiers=tuple(profile.links),
        settings=SMALL,
    )
    model = build_model(graph, profile, compute_slack(graph, profile), request)
    problem = Problem.of(model)
    policy = Policy(
        lane_price=1.0, weight=problem.uniform, retain=frozenset({conv}),
        forced=frozenset({(conv, dead, action), (cat, position[1], "recompute")}),
    )  # fmt: skip
    made = problem.evictor.run(policy, int(0.9 * peak))
    assert made is not None
    (kept,) = (d for d in made.decisions() if d.storage == conv)
    assert (kept.action, kept.after) == (action, dead)
    assert kept.before > dead
    decisions = with_reasons(graph, made.decisions())
    check(graph, profile, lower_decisions(graph, decisions), int(0.9 * peak))
    (reason,) = (d.reason for d in decisions if d.storage == conv)
    assert reason.startswith("kept for cat3, made again before back")


def smaller(name: str) -> tuple[StepGraph, Profile]:
    """The family, of fewer layers where it has many."""
    few = {
        "densenet": lambda m: densenet(m, (3, 4)),
        "rrdb": lambda m: rrdb(m, 1),
        "lora": lambda m: lora(m, 2),
    }
    return few.get(name, RETAINING[name])(CPU)


@pytest.mark.parametrize("name", RETAINING)
def test_families_fit_by_recomputation_and_retention_pays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, profile = smaller(name)
    assert graph.misfit() == ""
    peak = max(graph.plain_residency(profile.workspace))
    seconds = []
    for _ in range(2):
        made = make_plan(
            graph,
            profile,
            compute_slack(graph, profile),
            Request(
                budget_bytes=int(0.6 * peak),
                actions=("recompute",),
                tiers=(),
                settings=PlanSettings(moves=8, frontier_ops=0, exchanged_ops=0, polished_ops=0),
            ),
        )
        assert made.predicted_peak_bytes <= made.budget_bytes
        seconds.append(made.predicted_step_seconds)
        monkeypatch.setattr(Problem, "retainable", ())
        for module in (retention, climb):
            monkeypatch.setattr(module, "dead_again", lambda problem, decisions: [])
    assert seconds[0] <= seconds[1] * 1.002  # eight moves climb elsewhere from other starts
    if name == "dense-stage":
        assert seconds[0] - profile.seconds < 0.8 * (seconds[1] - profile.seconds)
