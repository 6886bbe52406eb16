"""Where the search starts: passes over a coarse grid of policies, and the slack planner's plan."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np

from ..evict.policy import Policy
from ..settings import GRID_LANE_PRICES, TIGHTER_BUDGETS
from ..swaps.slack import plan_slack
from .mixed import repaired
from .problem import Problem, Scored, faster


def grid(problem: Problem) -> Iterator[Policy]:
    """Few prices, far apart: what hides well, what hides badly, no swaps, no recomputation; and what may be retained.

    Where little fits, regions must be short: there passes get through that retain whatever leads to more bytes.
    """
    lane_prices = (*GRID_LANE_PRICES, inf) if problem.swaps else (inf,)
    narrow = frozenset(problem.worth_retaining)
    for recompute, retain in ((True, frozenset()), (True, narrow), (False, frozenset())):
        if recompute > problem.recompute or (recompute and retain is narrow and not narrow):
            continue
        for lane_price in lane_prices if recompute or problem.options.codecs else lane_prices[:3:2]:
            for patience, crowded in ((0.5, True), (0.0, False)):
                yield Policy(
                    lane_price=lane_price,
                    patience=patience,
                    crowded=crowded,
                    recompute=recompute,
                    weight=problem.uniform,
                    retain=retain,
                )


def starts(problem: Problem) -> list[Scored]:
    """The best pass of each kind (mixed, no swaps, no recomputation) and the slack planner's plan, fastest first."""
    if problem.floor > problem.model.budget:
        return []
    kinds: dict[tuple[bool, bool], Scored] = {}
    for policy in grid(problem):
        kind = (policy.recompute, bool(np.isfinite(policy.lane_price)))
        known = kinds.get(kind)
        best = faster(known, problem.evict(policy, below=known.seconds if known else inf))
        if best is not None:
            kinds[kind] = best
    found = list(kinds.values())
    if problem.swaps and problem.recompute and (mixing := repaired(problem, grid(problem))):
        found.append(mixing)
    if problem.swaps:
        cheap = problem.scored(tuple(plan_slack(problem.model.with_target(problem.target), problem.tier)))
        found += [cheap] if cheap else []
    return sorted(found, key=lambda scored: scored.seconds)


def starts_somehow(problem: Problem) -> tuple[Problem, list[Scored]]:
    """Starts without a margin where none fits with it, then under smaller targets; and the problem they belong to.

    A greedy pass can fail under a budget where one that must be more careful gets through.
    """
    targets = (
        [problem.target] if problem.target >= problem.model.budget else [problem.target, problem.model.budget]
    )
    room = problem.model.budget - problem.floor
    targets += [
        problem.model.budget - room * part // TIGHTER_BUDGETS for part in range(1, TIGHTER_BUDGETS + 1)
    ]
    for target in targets if room >= 0 else ():
        aimed = problem.with_target(target)
        if found := starts(aimed):
            return aimed, found
    return problem, []
