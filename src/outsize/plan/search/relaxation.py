"""Plans along a relaxation: passes that take away what the cheapest recomputation over a few positions does.

The program of `cuts` sees only its cuts. A pass that does what the optimum says, with no budget to hold, shows where
else the step would be too full: there a cut is added, and the program is solved again. The passes under the budget
then start from each optimum; they take away more where they must, so what they give fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from math import inf

import numpy as np

from ..evict.policy import Policy
from ..settings import (
    FEWEST_CUTS,
    FIRST_CUTS,
    FRONTIER_EFFORT,
    FRONTIER_SECONDS,
    SHORT_CLIMB,
    WORTH_A_PROGRAM,
)
from .climb import Climb
from .cuts import CutOptimum, CutProgram, Effort
from .problem import Problem, Scored, faster
from .retention import retaining

#: More bytes than any step has.
_NO_BUDGET = 1 << 60
#: `share` and `patience` of the passes along one optimum: what it leaves open, each of them finds best somewhere.
_WAYS = ((0.0, 0.5), (1.0, 0.5), (0.0, 0.0))
#: What a bound may cost: minutes.
_LONG = Effort(gap=1e-4, seconds=120.0, rounds=8, cuts=32)


def along_relaxation(problem: Problem, *, known: float = inf) -> list[Scored]:
    """Plans by recomputation that start from what the cheapest keeps.

    Empty where the step is too large or a known plan adds little. With swaps a program takes ten seconds, and annealing
    found better plans in three.
    """
    if not problem.recompute or problem.swaps or known <= problem.plain_seconds * (1 + WORTH_A_PROGRAM):
        return []
    best: Scored | None = None
    for kept in optima(problem, problem.target, _effort(problem), retain=problem.worth_retaining):
        for share, patience in _WAYS:
            policy = replace(_policy(problem, kept), share=share, patience=patience)
            found = problem.evict(policy, below=best.seconds if best else inf)
            for plan in (found, *retaining(problem, [found])) if found is not None else ():
                best = faster(best, plan)
    if best is None:
        return []
    return [Climb(problem, max(1, problem.moves // SHORT_CLIMB)).without(best), best]


def least_again(problem: Problem, effort: Effort = _LONG) -> float:
    """Seconds that every plan by recomputation (and swaps, where allowed) adds: the most that a program proves."""
    budget = problem.model.budget
    return max(
        (kept.again for kept in optima(problem, budget, effort, retain=problem.retainable)), default=0.0
    )


def optima(problem: Problem, budget: int, effort: Effort, *, retain: Iterable[int]) -> Iterator[CutOptimum]:
    """The optimum over the first cuts, then over more of them, until a pass along it fits everywhere."""
    full = np.flatnonzero(problem.model.curve > budget)
    if effort.cuts < FEWEST_CUTS or not len(full):
        return
    program = CutProgram(problem.chains, retain=retain, link=problem.link)
    first, last = int(np.argmax(problem.model.curve)), int(full[-1])
    cuts = program.cuts(first, last, min(effort.cuts, FIRST_CUTS))
    for _ in range(effort.rounds):
        kept = program.solve(cuts, budget, effort)
        yield kept
        if kept.forced is None:
            return
        fresh = islice(_overfull(problem, budget, kept, cuts), effort.cuts - len(cuts))
        known, cuts = cuts, sorted({*cuts, *fresh})
        if cuts == known:
            return


def _overfull(problem: Problem, budget: int, kept: CutOptimum, cuts: list[int]) -> Iterator[int]:
    """Of each stretch that is over the budget on a pass along the optimum its fullest position, fullest first."""
    made = problem.evictor.run(_policy(problem, kept), _NO_BUDGET)
    if made is None:
        return
    _, curve, _ = problem.scorer.ground(made.decisions())
    full = np.flatnonzero(curve > budget)
    stretches = np.split(full, np.flatnonzero(np.diff(full) > 1) + 1)
    fullest = [int(stretch[np.argmax(curve[stretch])]) for stretch in stretches if len(stretch)]
    yield from (p for p in sorted(fullest, key=lambda p: (-curve[p], p)) if p not in cuts)


def _policy(problem: Problem, kept: CutOptimum) -> Policy:
    return Policy(
        lane_price=inf, weight=problem.uniform, forced=kept.forced or frozenset(), retain=kept.retained
    )


def _effort(problem: Problem) -> Effort:
    most = problem.model.settings.frontier_ops // problem.ops
    gap, nodes, rounds = FRONTIER_EFFORT
    return Effort(gap=gap, seconds=FRONTIER_SECONDS, nodes=nodes, rounds=rounds, cuts=most)
