"""Mixed plans for budgets so tight that walks do not get through with recomputation.

Problem: a walk lets a storage go that can be made again cheaply, and where it is needed the ops that make it do not fit
beside what must be there; then only plans of swaps were left, up to three times as slow. Mechanism: what stood in the
way is barred and the walk begins anew (`Walker.repaired`), so that just these storages are swapped.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from .scored import Scored, faster
from .settings import MOST_REPAIRS, REPAIRED_OPS

if TYPE_CHECKING:
    from .search import Search


def repaired(search: Search) -> Scored | None:
    """The fastest plan of the grid's mixing tastes that get through only when they are repaired."""
    tries = min(MOST_REPAIRS, REPAIRED_OPS // max(1, len(search.model.graph.ops)))
    best: Scored | None = None
    for taste in search.grid():
        if not taste.recompute or not isfinite(taste.lane_price):
            continue
        found = search.walker.repaired(taste, search.walk_budget(taste), tries=tries)
        if found is None or found[0] is taste:  # it got through as it was, and the grid has it
            continue
        scored = search.timed(found[1].decisions())
        best = faster(best, replace(scored, taste=found[0]) if scored else None)
    return best
