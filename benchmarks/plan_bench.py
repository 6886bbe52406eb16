"""What the planner benchmarks share: budgets between the floor and the plain peak, and the result file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from outsize.errors import BudgetError
from outsize.plan import PlanSettings, make_plan
from outsize.plan.model import build_model, floor_curve
from outsize.plan.request import Request
from outsize.plan.search.problem import Problem
from outsize.slack import compute_slack
from outsize.values import Plan, Profile, Slack, StepGraph

DEFAULTS = PlanSettings()


class Case:
    """One step, with its slack, peak and floor."""

    def __init__(self, graph: StepGraph, profile: Profile) -> None:
        self.graph, self.profile = graph, profile
        self.slack: Slack = compute_slack(graph, profile)
        model = build_model(graph, profile, self.slack, Request(budget_bytes=1, settings=PlanSettings()))
        self.peak, self.floor = model.peak, int(floor_curve(model).max())
        self.tiers = tuple(profile.links)

    def between(self, share: float) -> int:
        """A budget that lies `share` of the way from the floor to the plain peak."""
        return int(self.floor + share * (self.peak - self.floor))

    def problem(self, budget: int, actions: Sequence[str], settings: PlanSettings = DEFAULTS) -> Problem:
        """What the search of `plan` is asked."""
        model = build_model(
            self.graph,
            self.profile,
            self.slack,
            Request(budget_bytes=budget, actions=tuple(actions), tiers=self.tiers, settings=settings),
        )
        return Problem.of(model)

    def plan(
        self, budget: int, planner: str, actions: Sequence[str], settings: PlanSettings = DEFAULTS
    ) -> Plan | None:
        """The plan, None where the planner finds none."""
        request = Request(
            budget_bytes=budget, planner=planner, actions=tuple(actions), tiers=self.tiers, settings=settings
        )
        try:
            return make_plan(self.graph, self.profile, self.slack, request)
        except BudgetError:
            return None


def save(script: str, result: dict) -> None:
    """Writes `result.json` beside the script."""
    path = Path(script).with_name("result.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)
