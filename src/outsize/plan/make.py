"""One door to the planners: decline, plan, prove, and say what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ..errors import DiskBudgetError, HostBudgetError, PlanError
from ..values import Decision, Plan, Profile, Refusal, Schedule, Slack, StepGraph, Storage, Timeline
from ..values.actions import ASKED
from ..values.plan import Reason
from .model import Model, build_model
from .planners.exact import plan_exact
from .planners.units import plan_units
from .request import Request
from .schedule.check import check
from .schedule.lower import lower_decisions
from .schedule.masks import with_masks
from .schedule.retained import retained, with_reasons
from .schedule.simulate import simulate, tier_peaks
from .search.search import plan_search
from .swaps.distance import plan_distance
from .swaps.slack import plan_slack

Planner = Callable[[Model], list[Decision]]
PLANNERS: dict[str, Planner] = {
    "search": plan_search,
    "units": plan_units,
    "exact": plan_exact,
    "slack": lambda model: plan_slack(model, model.request.tier(model.profile.links)),
    "distance": lambda model: plan_distance(model, model.request.tier(model.profile.links)),
}


def make_plan(graph: StepGraph, profile: Profile, slack: Slack, request: Request) -> Plan:
    """A plan whose step stays within the budget at every moment, proved by `check`.

    Raises:
        BudgetError: no plan fits, with the smallest budget that does and what dominates it.
        HostBudgetError, DiskBudgetError: the step fits, but a tier would hold more than it may.
        PlanError: an unknown planner, action or tier.
    """
    began = time.perf_counter()
    if request.planner not in PLANNERS:
        raise PlanError(f"no planner {request.planner!r}; there are {', '.join(sorted(PLANNERS))}")
    if unknown := set(request.actions) - set(ASKED):
        raise PlanError(f"no action {sorted(unknown)[0]!r}; there are {', '.join(ASKED)}")
    model = build_model(graph, profile, slack, request)
    decisions: tuple[Decision, ...] = ()
    if model.peak > model.budget:
        decisions = with_masks(graph, profile, _over_tiers(PLANNERS[request.planner], model))
        decisions = with_reasons(graph, decisions)
    schedule = lower_decisions(graph, decisions)
    check(graph, profile, schedule, model.budget)
    timeline = simulate(graph, profile, schedule)
    return _finish(model, decisions, schedule, timeline, time.perf_counter() - began)


def _over_tiers(planner: Planner, model: Model) -> list[Decision]:
    """Decisions over the first tier that is large enough.

    Raises:
        HostBudgetError, DiskBudgetError: none is; the error of the last.
    """
    while True:
        request = model.request
        try:
            decisions = planner(model)
            request.hold(tier_peaks(model.graph, lower_decisions(model.graph, tuple(decisions))))
            return decisions
        except (HostBudgetError, DiskBudgetError):
            if len(request.tiers) < 2:
                raise
            model = replace(model, request=replace(request, tiers=request.tiers[1:]))


def _finish(
    model: Model,
    decisions: tuple[Decision, ...],
    schedule: Schedule,
    timeline: Timeline,
    planning_seconds: float,
) -> Plan:
    graph, profile = model.graph, model.profile
    return Plan(
        budget_bytes=model.budget,
        planner=model.request.planner,
        decisions=decisions,
        refusals=refusals(model, decisions),
        plain_peak_bytes=model.peak,
        predicted_peak_bytes=timeline.peak_bytes,
        plain_step_seconds=profile.seconds,
        predicted_step_seconds=timeline.seconds,
        resident_bytes=graph.resident_bytes,
        swapped_bytes=sum(
            e.nbytes or graph.storages[e.storage].nbytes for e in schedule.entries if e.kind == "swap_out"
        ),
        recomputed_flops=sum(graph.ops[e.op].flops for e in schedule.entries if e.kind == "clone"),
        plain_flops=sum(op.flops for op in graph.ops),
        planning_seconds=planning_seconds,
        estimated=profile.estimated,
    )


def refusals(model: Model, decisions: tuple[Decision, ...]) -> tuple[Refusal, ...]:
    """Why each candidate that the plan leaves alone was left alone."""
    acted = {d.storage for d in decisions}
    idle: dict[int, float] = {}
    for span in model.slack.spans:
        idle[span.storage] = max(idle.get(span.storage, 0.0), span.seconds)
    kept = retained(model.graph, decisions)
    left = (s for s in model.graph.candidates() if s.index not in acted)
    return tuple(
        Refusal(storage=s.index, reason="RETAINED", detail=kept[s.index].words(model.graph))
        if s.index in kept
        else _refusal(model, s, idle.get(s.index))
        for s in left
    )


def _refusal(model: Model, storage: Storage, idle: float | None) -> Refusal:
    reason: Reason = "NOT_NEEDED"
    detail = "the budget holds without it"
    producer = model.graph.ops[storage.producer]
    if idle is None:
        reason, detail = "NO_SLACK", "never idle"
    elif storage.nbytes < model.settings.min_bytes:
        reason, detail = "TOO_SMALL", f"{storage.nbytes} bytes < {model.settings.min_bytes}"
    elif not model.profile.links and producer.random:
        reason, detail = "RANDOM", f"{producer.name} may not run twice, and there is no tier"
    elif not model.profile.links and storage.index in model.mutated:
        reason, detail = "MUTATED", "it is changed in place, and there is no tier"
    return Refusal(storage=storage.index, reason=reason, detail=detail)
