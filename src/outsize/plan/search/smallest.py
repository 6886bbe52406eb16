"""The smallest budget that passes get through, and the error where there is none that fits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import inf

import numpy as np

from ...errors import BudgetError
from ..evict.policy import Policy
from ..model import cannot_shrink, floor_curve, held_at
from ..request import tier_error
from ..settings import SMALLEST_WITHIN, VARIED_MOVES
from .climb import improved
from .polish import polished
from .problem import Problem, Scored
from .starts import grid, starts_somehow


def smallest_budget(problem: Problem) -> int:
    """The smallest budget at which a pass was seen to get through, to 0.1 %."""
    low, high, policies = problem.floor, problem.model.peak, list(_policies(problem))
    while high - low > max(1, int(high * SMALLEST_WITHIN)):
        middle = (low + high) // 2
        if any(_gets_through(problem, policy, middle) for policy in policies):
            high = middle
        else:
            low = middle
    return high


def _policies(problem: Problem) -> Iterator[Policy]:
    """The grid's and, where the step's size allows it, what differs from them in how regions are priced."""
    yield from grid(problem)
    if not problem.recompute or problem.moves < VARIED_MOVES:
        return
    ops, producer = problem.model.graph.ops, problem.chains.producer
    forward = frozenset(s for s in problem.worth_retaining if ops[producer[s]].phase == "forward")
    retained = [policy.retain for policy in grid(problem)]
    for retain in dict.fromkeys((*retained, forward | problem.free_to_retain)):
        for share, fit, patience in product((0.0, 1.0), (False, True), (0.0, 0.5, 1.0)):
            yield Policy(
                lane_price=inf, share=share, fit=fit, patience=patience, retain=retain, weight=problem.uniform
            )


def _gets_through(problem: Problem, policy: Policy, budget: int) -> bool:
    made = problem.evictor.run(policy, budget)
    return made is not None and problem.scorer.score(made.decisions())[1] <= budget


def at_smallest(problem: Problem) -> Scored | None:
    """A greedy pass may fail under a budget and get through a smaller one; swaps have no such gaps."""
    if problem.swaps or (least := smallest_budget(problem)) > problem.model.budget:
        return None
    aimed = problem.with_target(least)
    found = sorted(filter(None, map(aimed.evict, _policies(aimed))), key=lambda plan: plan.seconds)
    plans = [*found[:1], *improved(aimed, found)]
    return min((polished(aimed, plan) for plan in plans), key=lambda plan: plan.seconds, default=None)


def infeasible(problem: Problem) -> BudgetError:
    """The tier's where it alone is too small; with swaps the position that proves it; else what a pass gets through."""
    if problem.tier in problem.request.limits:
        unlimited = problem.asking(host_budget=None, disk_budget=None)
        held = [problem.scorer.score(found.decisions)[2] for found in starts_somehow(unlimited)[1]]
        if held:
            return tier_error(problem.tier, problem.request.limits[problem.tier], min(held))
    if problem.swaps:
        return cannot_shrink(problem.model, floor_curve(problem.model), tools="any plan")
    least = smallest_budget(problem)
    position = int(np.argmax(problem.model.curve))
    return BudgetError(
        f"a budget of {problem.model.budget} bytes is below {least} bytes, the smallest that a plan by "
        f"{', '.join(problem.request.actions)} was found for",
        smallest_feasible_bytes=least,
        dominating=held_at(problem.model.graph, position)[:5],
    )
