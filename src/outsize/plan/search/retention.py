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
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil

from ...values import Decision
from ..chains import Chains
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


def shortened(problem: Problem, best: Scored, *, tries: int) -> Scored:
    """The plan after every op that its regions can do without: what it makes is kept instead, where that fits.

    A pass retains a storage for the whole step; here it is for one region, which reads what stays until then.
    """
    decisions, seconds = best.decisions, best.seconds
    again = True
    while again:
        again = False
        for others in _shorter(problem, decisions):
            if tries <= 0:
                break
            tries -= 1
            found = problem.seconds(others)
            if found < seconds * (1 - 1e-9) and problem.valid(others):
                decisions, seconds, again = others, found, True
                break
    return replace(best, decisions=decisions, seconds=seconds) if decisions != best.decisions else best


def _shorter(problem: Problem, decisions: Decisions) -> Iterator[Decisions]:
    """The plan with one op fewer in the regions of one position, dearest op first."""
    chains = problem.chains
    groups: dict[int, set[int]] = defaultdict(set)
    for d in decisions:
        groups[d.fetch_before].update(d.region)
    cuts = [(op, position) for position, group in groups.items() for op in group]
    for op, position in sorted(cuts, key=lambda cut: (-chains.seconds[cut[0]], cut)):
        here = [d for d in decisions if d.fetch_before == position and d.region]
        if op in {chains.producer[d.storage] for d in here}:
            continue
        left = {d: _closure(chains, chains.producer[d.storage], {*d.region} - {op}) for d in here}
        yield tuple(_with_region(chains, d, left[d]) if d in left else d for d in decisions)


def _closure(chains: Chains, op: int, within: set[int]) -> tuple[int, ...]:
    """Of these ops, those that this one is made of."""
    found, stack = set(), [op]
    while stack:
        at = stack.pop()
        if at in within and at not in found:
            found.add(at)
            stack += [chains.producer[s] for s in chains.inputs[at]]
    return tuple(sorted(found))


def _with_region(chains: Chains, d: Decision, region: tuple[int, ...]) -> Decision:
    return replace(d, region=region, seconds=sum(chains.seconds[op] for op in region))


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
