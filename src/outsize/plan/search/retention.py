"""Plans that keep a storage beyond its last use, because what is made of it later is cheaper to make that way.

Problem: an eviction pass lets a storage go with its last use. A convolution's result is dead after the concatenation
that copied it; where the concatenation is recomputed, the convolution runs again, and what it read too. Keeping the
small dear one would make everything after it again by copies. Which to keep is a matter of the plan: it pays only where
what is made of it goes. Mechanism: the plan's own regions say what is made again though nobody reads it any more. Those
that cost most seconds per byte are retained, in prefixes of several lengths, and a pass finds what else has to go now;
from the fastest it begins anew, until nothing more comes of it. What was retained for nothing is let go again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from math import ceil

from ..evict.policy import Policy
from ..settings import RETAINED_PARTS, RETENTION_ROUNDS
from .problem import Decisions, Problem, Scored


def retaining(problem: Problem, found: Iterable[Scored]) -> list[Scored]:
    """Of each plan the fastest that retains what it makes again, where that is faster."""
    if not problem.recompute:
        return []
    plans = []
    for start in found:
        best = start
        for _ in range(RETENTION_ROUNDS):
            better = _retained(problem, best)
            if better is None:
                break
            best = better
        if best is not start:
            plans.append(best)
    return plans


def _retained(problem: Problem, known: Scored) -> Scored | None:
    """The fastest that retains some more of what the plan makes again, where one is faster."""
    if known.policy is None or known.seconds <= problem.plain_seconds:
        return None
    policy, candidates = known.policy, dead_again(problem, known.decisions)
    fresh = [s for s in candidates if s not in policy.retain]
    best: Scored | None = None
    for part in RETAINED_PARTS if fresh else ():
        chosen = policy.retain | frozenset(fresh[: ceil(part * len(fresh))])
        below = best.seconds if best else known.seconds
        trial = problem.evict(replace(policy, retain=chosen), below=below)
        if trial is not None and trial.seconds < below * (1 - 1e-9):
            best = trial
    return best


def dead_again(problem: Problem, decisions: Decisions) -> list[int]:
    """Storages that a plan makes again after their last use, those that cost most seconds per byte first."""
    chains = problem.chains
    groups: dict[int, set[int]] = defaultdict(set)
    for d in decisions:
        groups[d.fetch_before].update(d.region)
    worth: dict[int, float] = defaultdict(float)
    for position, group in groups.items():
        for op in group:
            for s in chains.outputs[op]:
                if chains.last[s] < position and chains.reach[s] > chains.last[s]:
                    worth[s] += chains.seconds[op] / chains.size[s]
    return sorted(worth, key=lambda s: (-worth[s], s))


def used(problem: Problem, policy: Policy, decisions: Decisions) -> frozenset[int]:
    """Of what a policy retains, what a region of the plan reads after its last use without making it."""
    chains = problem.chains
    groups: dict[int, set[int]] = defaultdict(set)
    for d in decisions:
        groups[d.fetch_before].update(d.region)
    return frozenset(
        s
        for position, group in groups.items()
        for op in group
        for s in chains.inputs[op]
        if s in policy.retain and chains.last[s] < position and chains.producer[s] not in group
    )
