"""A small step's plan is finished by `labels`: what walks, touches and exchanges cannot reach.

Labels know when each write is issued, in which order transfers stand on a lane, and every set that could leave; on a
small step the best few at each position are followed, in rounds that end when the branches are spent. Swaps
alone branch least, so they are tried before swaps and recomputation together.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .labels import Labels
from .scored import Scored
from .told import told

if TYPE_CHECKING:
    from .search import Search

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
_WALKS = 50


def finishable(search: Search) -> bool:
    """Labels know the step: it is small, and its link takes no time from the compute lane."""
    drags = search.link is not None and search.link.drag_seconds_per_byte > 0
    return not drags and len(search.model.graph.ops) <= FINISHED_OPS


def finished(search: Search, best: Scored | None) -> Scored | None:
    """The plan, or a faster one; with None for a plan the first one found, where there is one."""
    link = search.link
    ops = len(search.model.graph.ops)
    if not finishable(search) or search.floor > search.model.budget:
        return best
    model = search.model.with_target(max(search.target, search.model.target))
    walks, length = min(1.0, model.settings.walks / _WALKS), min(1.0, _OPS / ops) ** 1.5
    more = 2 * model.settings.effort - 1
    for again in (False, True):
        if (again and not search.recompute) or not (again or link):
            continue
        labels = Labels(model, search.chains, link, recompute=again)
        left = int(_BRANCHES[again] * walks * length * more)
        for most, each in _ROUNDS:
            known = best.seconds if best else inf
            if left <= 0 or known <= model.profile.seconds:
                break
            found = labels.solve(below=known, most=most, branches=left, each=each)
            left -= found.branches
            if found.events:
                decisions = told(found.events, search.chains, link, search.tier)
                seconds = search.seconds(decisions)
                if seconds < known and search.valid(decisions):
                    best = Scored(seconds=seconds, decisions=decisions)
            if found.bound >= (best.seconds if best else inf):
                break
    return best
