"""One door to the planners: decline, plan, prove, and say what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import PlanError
from ..values import Decision, Plan, Profile, Refusal, Schedule, Slack, StepGraph, Timeline
from .check import check
from .distance import plan_distance
from .lower import lower_decisions
from .model import Model, build_model
from .settings import PlanSettings
from .simulate import simulate
from .slackplan import plan_slack


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a planner may use.

    Attributes:
        actions: of `swap`, `recompute`, `encode`.
        tiers: swap tiers in order of preference.
        lossy: codecs that may lose bits, with their declared bound.
    """

    actions: tuple[str, ...]
    tiers: tuple[str, ...]
    lossy: dict[str, float]

    def tier(self, model: Model) -> str:
        """The preferred tier."""
        if "swap" not in self.actions:
            raise PlanError(f"the planner only swaps, but the actions allowed are {', '.join(self.actions)}")
        if not self.tiers or self.tiers[0] not in model.profile.links:
            asked = repr(self.tiers[0]) if self.tiers else "no tier at all"
            raise PlanError(f"no rate for tier {asked}; the profile has {sorted(model.profile.links)}")
        return self.tiers[0]


_PLANNERS: dict[str, Callable[[Model, Request], list[Decision]]] = {
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
    planner: str = "slack",
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
        PlanError: an unknown planner, action or tier.
    """
    began = time.perf_counter()
    if planner not in _PLANNERS:
        raise PlanError(f"no planner {planner!r}; there are {', '.join(sorted(_PLANNERS))}")
    if unknown := set(actions) - {"swap", "recompute", "encode"}:
        raise PlanError(f"no action {sorted(unknown)[0]!r}; there are swap, recompute and encode")
    model = build_model(graph, profile, slack, budget_bytes=budget_bytes, settings=settings)
    request = Request(actions=tuple(actions), tiers=tuple(tiers), lossy=dict(lossy or {}))
    decisions: tuple[Decision, ...] = ()
    if model.peak > budget_bytes:
        decisions = tuple(_PLANNERS[planner](model, request))
    schedule = lower_decisions(graph, decisions)
    check(graph, profile, schedule, budget_bytes)
    timeline = simulate(graph, profile, schedule)
    return _finish(model, planner, decisions, schedule, timeline, time.perf_counter() - began)


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
    result = []
    for storage in model.graph.candidates():
        if storage.index in acted:
            continue
        if storage.index not in idle:
            result.append(Refusal(storage=storage.index, reason="NO_SLACK", detail="never idle"))
        elif storage.nbytes < model.settings.min_bytes:
            detail = f"{storage.nbytes} bytes < {model.settings.min_bytes}"
            result.append(Refusal(storage=storage.index, reason="TOO_SMALL", detail=detail))
        else:
            result.append(
                Refusal(storage=storage.index, reason="NOT_NEEDED", detail="the budget holds without it")
            )
    return tuple(result)
