"""Plans that follow the frontier: walks that take away what the cheapest recomputation over a few positions does.

The program of `frontier` sees only its cuts. A walk that does what the optimum says, with no budget to hold, shows
where else the step would be too full: there a cut is added, and the program is solved again. The walks under the
budget then start from each optimum; they take away more where they must, so what they give fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from .frontier import Effort, Frontier, Kept
from .prices import Taste
from .settings import (
    FEWEST_CUTS,
    FIRST_CUTS,
    FRONTIER_EFFORT,
    FRONTIER_SECONDS,
    SHORT_CLIMB,
    WORTH_A_PROGRAM,
)

if TYPE_CHECKING:
    from .scored import Scored
    from .search import Search

#: More bytes than any step has.
_NO_BUDGET = 1 << 60
#: `share` and `patience` of the walks along one optimum: what it leaves open, each of them finds best somewhere.
_WAYS = ((0.0, 0.5), (1.0, 0.5), (0.0, 0.0))
#: What a bound may cost: minutes.
_LONG = Effort(gap=1e-4, seconds=120.0, rounds=8, cuts=32)


def followed(search: Search, *, known: float = inf) -> list[Scored]:
    """Plans by recomputation that start from what the cheapest keeps.

    Empty where the step is too large or a known plan adds little. With swaps a program takes ten seconds, and annealing
    found better plans in three.
    """
    if not search.recompute or search.swaps or known <= search.model.profile.seconds * (1 + WORTH_A_PROGRAM):
        return []
    best: Scored | None = None
    for kept in optima(search, search.target, _effort(search), retain=False):
        for share, patience in _WAYS:
            taste = replace(_taste(search, kept), share=share, patience=patience)
            found = search.walk(taste, below=best.seconds if best else inf)
            if found is not None and (best is None or found.seconds < best.seconds):
                best = found
    if best is None:
        return []
    left, search.left = search.left, max(1, search.left // SHORT_CLIMB)
    better = search.without(best)
    search.left = left
    return [better, best]


def least_again(search: Search, effort: Effort = _LONG) -> float:
    """Seconds that every plan by recomputation (and swaps, where allowed) adds: the most that a program proves."""
    budget = search.model.budget
    return max((kept.again for kept in optima(search, budget, effort, retain=True)), default=0.0)


def optima(search: Search, budget: int, effort: Effort, *, retain: bool) -> Iterator[Kept]:
    """The optimum over the first cuts, then over more of them, until a walk along it fits everywhere."""
    full = np.flatnonzero(search.model.curve > budget)
    if effort.cuts < FEWEST_CUTS or not len(full):
        return
    frontier = Frontier(search.chains, retain=retain, link=search.link)
    first, last = int(np.argmax(search.model.curve)), int(full[-1])
    cuts = frontier.cuts(first, last, min(effort.cuts, FIRST_CUTS))
    for _ in range(effort.rounds):
        kept = frontier.solve(cuts, budget, effort)
        yield kept
        if kept.forced is None:
            return
        fresh = islice(_overfull(search, budget, kept, cuts), effort.cuts - len(cuts))
        known, cuts = cuts, sorted({*cuts, *fresh})
        if cuts == known:
            return


def _overfull(search: Search, budget: int, kept: Kept, cuts: list[int]) -> Iterator[int]:
    """Of each stretch that is over the budget on a walk along the optimum its fullest position, fullest first."""
    made = search.walker.walk(_taste(search, kept), _NO_BUDGET)
    if made is None:
        return
    _, curve, _ = search.scorer.ground(made.decisions())
    full = np.flatnonzero(curve > budget)
    stretches = np.split(full, np.flatnonzero(np.diff(full) > 1) + 1)
    fullest = [int(stretch[np.argmax(curve[stretch])]) for stretch in stretches if len(stretch)]
    yield from (p for p in sorted(fullest, key=lambda p: (-curve[p], p)) if p not in cuts)


def _taste(search: Search, kept: Kept) -> Taste:
    return Taste(lane_price=inf, weight=search.plain_weight, forced=kept.forced or frozenset())


def _effort(search: Search) -> Effort:
    most = search.model.settings.frontier_ops // max(1, len(search.model.graph.ops))
    gap, nodes, rounds = FRONTIER_EFFORT
    return Effort(gap=gap, seconds=FRONTIER_SECONDS, nodes=nodes, rounds=rounds, cuts=most)
