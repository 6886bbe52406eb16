"""A small step's plan is finished by `labels`: what passes, touches and exchanges cannot reach.

Labels know when each write is issued, in which order transfers stand on a lane, and every set that could leave; on a
small step the best few at each position are along_relaxation, in rounds that end when the branches are spent. Swaps
alone branch least, so they are tried before swaps and recomputation together.
"""

from __future__ import annotations

from math import inf

from ..labels.decisions import decisions_of
from ..labels.solve import Labels
from .problem import Problem, Scored

#: Steps up to here are finished.
FINISHED_OPS = 64
#: Rounds: labels kept at a position, branches made of each. Narrow rounds reach the end in few branches, and which
#: narrow one finds the plan differs from step to step.
_ROUNDS = ((8, 70), (24, 120), (80, 70), (80, 250), (240, 250), (800, 2500))
#: Branches of all rounds together, by swaps alone and with recomputation, of a step of so many ops: about a quarter and
#: half a second. A longer step has more positions, and each branch of it takes longer. An effort of n makes 2n - 1 times
#: as many: with 4, swaps alone of a random step of 14 ops came out at their optimum, 6 % below what 11,000 found.
_BRANCHES, _OPS = (11_000, 22_000), 20

#: A search that is given fewer moves than this is given fewer branches too.
_MOVES = 50


def finishable(problem: Problem) -> bool:
    """Labels know the step: it is small, and its link takes no time from the compute lane."""
    drags = problem.link is not None and problem.link.drag_seconds_per_byte > 0
    return not drags and problem.ops <= FINISHED_OPS


def finished(problem: Problem, best: Scored | None) -> Scored | None:
    """The plan, or a faster one; with None for a plan the first one found, where there is one."""
    link = problem.link
    ops = problem.ops
    if not finishable(problem) or problem.floor > problem.model.budget:
        return best
    model = problem.model.with_target(max(problem.target, problem.model.target))
    moves, length = min(1.0, model.settings.moves / _MOVES), min(1.0, _OPS / ops) ** 1.5
    more = 2 * model.settings.effort - 1
    for again in (False, True):
        if (again and not problem.recompute) or not (again or link):
            continue
        labels = Labels(model, problem.chains, link, recompute=again)
        left = int(_BRANCHES[again] * moves * length * more)
        for most, each in _ROUNDS:
            known = best.seconds if best else inf
            if left <= 0 or known <= model.profile.seconds:
                break
            found = labels.solve(below=known, most=most, branches=left, each=each)
            left -= found.branches
            if found.events:
                decisions = decisions_of(found.events, problem.chains, link, problem.tier)
                seconds = problem.seconds(decisions)
                if seconds < known and problem.valid(decisions):
                    best = Scored(seconds=seconds, decisions=decisions)
            if found.bound >= (best.seconds if best else inf):
                break
    return best
