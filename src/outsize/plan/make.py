"""One door to the planners: decline, plan, prove, and say what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import DiskBudgetError, HostBudgetError, PlanError
from ..values import Decision, Plan, Profile, Refusal, Schedule, Slack, StepGraph, Storage, Timeline
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
from .settings import PlanSettings
from .swaps.distance import plan_distance
from .swaps.slack import plan_slack

PLANNERS: dict[str, Callable[[Model, Request], list[Decision]]] = {
    "search": plan_search,
    "units": plan_units,
    "exact": plan_exact,
    "slack": lambda model, request: plan_slack(model, request.tier(model)),
    "distance": lambda model, request: plan_distance(model, request.tier(model)),
}


_DEFAULTS = PlanSettings()


def make_plan(
    graph: StepGraph,
    profile: Profile,
    slack: Slack,
    *,
    budget_bytes: int,
    planner: str = "search",
    actions: Sequence[str] = ("swap", "recompute", "encode"),
    tiers: Sequence[str] = ("disk",),
    lossy: dict[str, float] | None = None,
    host_budget: int | None = None,
    disk_budget: int | None = None,
    settings: PlanSettings = _DEFAULTS,
) -> Plan:
    """A plan whose step stays within the budget at every moment, proved by `check`.

    Args:
        budget_bytes: peak bytes of device storages alive at any moment, residents and workspace included.
        planner: `search`, `slack`, `distance`, `units` or `exact`.
        actions: what a plan may use, of `swap`, `recompute`, `encode`.
        tiers: where to swap, in order of preference; each has a link in the profile.
        lossy: codecs that may lose bits (opt-in), with their declared elementwise bound.
        host_budget, disk_budget: most bytes held in the tier at any moment.

    Raises:
        BudgetError: no plan fits, with the smallest budget that does and what dominates it.
        HostBudgetError, DiskBudgetError: the step fits, but a tier would hold more than it may.
        PlanError: an unknown planner, action or tier.
    """
    began = time.perf_counter()
    if planner not in PLANNERS:
        raise PlanError(f"no planner {planner!r}; there are {', '.join(sorted(PLANNERS))}")
    if unknown := set(actions) - {"swap", "recompute", "encode"}:
        raise PlanError(f"no action {sorted(unknown)[0]!r}; there are swap, recompute and encode")
    model = build_model(graph, profile, slack, budget_bytes=budget_bytes, settings=settings)
    limits = {t: b for t, b in (("host", host_budget), ("disk", disk_budget)) if b is not None}
    request = Request(actions=tuple(actions), tiers=tuple(tiers), lossy=dict(lossy or {}), limits=limits)
    decisions: tuple[Decision, ...] = ()
    if model.peak > budget_bytes:
        decisions = with_masks(graph, profile, _over_tiers(PLANNERS[planner], model, request))
        decisions = with_reasons(graph, decisions)
    schedule = lower_decisions(graph, decisions)
    check(graph, profile, schedule, budget_bytes)
    timeline = simulate(graph, profile, schedule)
    return _finish(model, planner, decisions, schedule, timeline, time.perf_counter() - began)


def _over_tiers(
    planner: Callable[[Model, Request], list[Decision]], model: Model, request: Request
) -> list[Decision]:
    """Decisions over the first tier that is large enough.

    Raises:
        HostBudgetError, DiskBudgetError: none is; the error of the last.
    """
    while True:
        try:
            decisions = planner(model, request)
            request.hold(tier_peaks(model.graph, lower_decisions(model.graph, tuple(decisions))))
            return decisions
        except (HostBudgetError, DiskBudgetError):
            if len(request.tiers) < 2:
                raise
            request = replace(request, tiers=request.tiers[1:])


def _finish(
    model: Model,
    planner: str,
    decisions: tuple[Decision, ...],
    schedule: Schedule,
    timeline: Timeline,
    planning_seconds: float,
) -> Plan:
    graph, profile = model.graph, model.profile
    return Plan(
        budget_bytes=model.budget,
        planner=planner,
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
