"""A small step's plan is finished by `labels`: what walks, touches and exchanges cannot reach.

Labels know when each write is issued, in which order transfers stand on a lane, and every set that could leave; on a
small step the best few at each position are followed, in rounds that end when the branches are spent. Swaps
alone branch least, so they are tried before swaps and recomputation together.
"""

from __future__ import annotations

from .chains import Chains
from .exchange import Decisions, Judge
from .labels import Labels
from .model import Model
from .told import told

#: Steps up to here are finished.
FINISHED_OPS = 64
#: Rounds: labels kept at a position, branches made of each. Narrow rounds reach the end in few branches, and which
#: narrow one finds the plan differs from step to step.
_ROUNDS = ((8, 70), (24, 120), (80, 70), (80, 250), (240, 250), (800, 2500))
#: Branches of all rounds together, by swaps alone and with recomputation, of a step of so many ops: about a quarter and
#: half a second. A longer step has more positions, and each branch of it takes longer.
_BRANCHES, _OPS = (11_000, 22_000), 20

#: A search that is given fewer moves than this is given fewer branches too.
_WALKS = 50


def finished(
    model: Model, chains: Chains, tier: str, best: tuple[float, Decisions], judge: Judge, *, recompute: bool
) -> tuple[float, Decisions]:
    """The plan, or a faster one.

    Args:
        model: the step, with the target to be held.
        tier: where swaps go, "" without.
        best: seconds, infinite where no plan is known, and decisions.
    """
    link = model.profile.links[tier] if tier else None
    if len(model.graph.ops) > FINISHED_OPS or (link is not None and link.drag_seconds_per_byte):
        return best
    kinds = [again for again in (False, True) if (recompute or not again) and (again or link is not None)]
    for again in kinds:
        labels = Labels(model, chains, link, recompute=again)
        left = int(
            _BRANCHES[again]
            * min(1.0, model.settings.walks / _WALKS)
            * min(1.0, _OPS / len(model.graph.ops)) ** 1.5
        )
        for most, each in _ROUNDS:
            if left <= 0 or best[0] <= model.profile.seconds:
                break
            found = labels.solve(below=best[0], most=most, branches=left, each=each)
            left -= found.branches
            if found.events:
                decisions = told(found.events, chains, link, tier)
                seconds = judge.seconds(decisions)
                if seconds < best[0] and judge.valid(decisions):
                    best = seconds, decisions
            if found.bound >= best[0]:
                break
    return best
