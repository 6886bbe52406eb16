"""Mixed plans where no price leads to one: made of a plan of one action, and of passes that got stuck.

A plan of one action is a start: swaps at a price beside it, or its dearest recomputations swapped instead (`mixed`).
Under tight budgets a pass lets a storage go that can be made again cheaply, and where it is needed the ops that make it
do not fit beside what must be there; then only plans of swaps were left, up to three times as slow. There what stood in
the way is barred and the pass begins anew, so that just these storages are swapped (`repaired`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import isfinite

from ...values import LinkRate
from ..evict.policy import DecisionKey, Policy
from ..settings import LANE_SHARES, MIXED_LANE_PRICE, MOST_REPAIRS, MOVES_A_SHARE, REPAIRED_OPS
from .problem import Problem, Scored, faster


def mixed(problem: Problem, single: Scored) -> Iterator[Scored]:
    """Plans that may be faster than the single one."""
    if single.policy is None or problem.link is None:
        return
    affordable = LANE_SHARES[: max(1, problem.moves // MOVES_A_SHARE)]
    swapped = dict.fromkeys(
        _dearest(problem, single, problem.link, share * single.seconds) for share in affordable
    )
    policies = [
        replace(single.policy, lane_price=MIXED_LANE_PRICE, recompute=problem.recompute),
        *(replace(single.policy, forced=forced) for forced in swapped if forced),
    ]
    best = single.seconds
    for policy in policies:
        found = problem.evict(policy, below=best)
        if found is not None:
            best = min(best, found.seconds)
            yield found


def _dearest(problem: Problem, single: Scored, link: LinkRate, lane_seconds: float) -> frozenset[DecisionKey]:
    """Swaps in place of the recomputations that cost most per byte, as many as one lane carries in that time."""
    starts, size = problem.chains.starts, problem.chains.size
    chosen = set()
    for d in sorted(single.decisions, key=lambda d: -d.seconds / size[d.storage]):
        out, back = link.out_seconds(size[d.storage]), link.in_seconds(size[d.storage])
        hides = out + back < starts[d.before] - starts[d.after]
        if d.action == "recompute" and hides and max(out, back) <= lane_seconds:
            lane_seconds -= out + back if link.shared else max(out, back)
            chosen.add((d.storage, d.after, "swap"))
    return frozenset(chosen)


def repaired(problem: Problem, policies: Iterable[Policy]) -> Scored | None:
    """The fastest plan of the mixing policies that get through only when they are repaired."""
    tries = min(MOST_REPAIRS, REPAIRED_OPS // problem.ops)
    best: Scored | None = None
    for policy in policies:
        if not policy.recompute or not isfinite(policy.lane_price):
            continue
        found = problem.evictor.repaired(policy, problem.pass_budget(policy), tries=tries)
        if found is None or found[0] is policy:  # it got through as it was, and the grid has it
            continue
        scored = problem.placed(found[1].decisions())
        best = faster(best, replace(scored, policy=found[0]) if scored else None)
    return best
