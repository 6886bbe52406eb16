"""One decision in place of another, or of two: what neither passes nor touches on single decisions can find.

A plan that fits needs each of its decisions, so leaving one out breaks the budget and putting one in only costs. Doing
both at once can pay: a recomputation that runs while its inputs are still there, in place of a swap; a longer span in
place of two short ones. The candidates are every way to take each storage away in each of its idle spans; each is tried
beside the plan, and then without each one of the plan's decisions. Small steps get through all of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from ...values import Decision
from ...values.actions import TRAVELLING
from ..settings import FEWEST_EXCHANGES
from .polish import polished
from .problem import Decisions, Problem, Scored
from .retention import shortened

#: Ops that a region may take in: more would not be found by chance.
_LONGEST = 6


def exchanged(problem: Problem, best: Scored) -> Scored:
    """The plan after every exchange that makes its step shorter, and its last touches again."""
    tries = problem.model.settings.exchanged_ops // problem.ops
    if best.seconds <= problem.plain_seconds or tries < FEWEST_EXCHANGES:
        return best
    found = _exchanged(problem, best, tries)
    shorter = shortened(problem, found, tries=tries) if problem.recompute else found
    return _exchanged(problem, shorter, tries) if shorter is not found else found


def _exchanged(problem: Problem, best: Scored, tries: int) -> Scored:
    found = Exchange(problem, idle_spans(problem)).improved(best.decisions, tries=tries)
    if found == best.decisions:
        return best
    return polished(problem, replace(best, decisions=found, seconds=problem.seconds(found)))


def idle_spans(problem: Problem) -> list[tuple[int, int, int]]:
    """(storage, touch before, next touch) of each idle span, most bytes first."""
    spans = problem.model.spans
    order = np.argsort(-spans.nbytes, kind="stable")
    listed = zip(spans.storage[order].tolist(), spans.after[order].tolist(), spans.before[order].tolist())
    return [span for span in listed if span[2] > span[1] + 1]


@final
class Exchange:
    """Candidates of one step.

    Args:
        problem: the step, and what may be done.
        spans: (storage, touch before, next touch), those to be tried first at the front.
    """

    def __init__(self, problem: Problem, spans: list[tuple[int, int, int]]) -> None:
        self._problem, self._chains, self._spans = problem, problem.chains, spans

    def improved(self, decisions: Decisions, *, tries: int) -> Decisions:
        """The plan after every exchange that makes its step shorter, within so many trials."""
        seconds, idle, at = self._problem.seconds(decisions), 0, 0
        while self._spans and idle < len(self._spans) and tries > 0:
            storage, after, before = self._spans[at % len(self._spans)]
            better = None
            for others in self._exchanges(decisions, storage, after, before):
                if tries <= 0:
                    break
                tries -= 1
                found = self._problem.seconds(others)
                if found < seconds * (1 - 1e-9) and self._problem.valid(others):
                    better = others
                    seconds = found
                    break
            decisions = better or decisions
            idle = 0 if better else idle + 1
            at += better is None
        return decisions

    def _exchanges(self, decisions: Decisions, storage: int, after: int, before: int) -> Iterator[Decisions]:
        """The plan with something done in this span, and one decision less than that or none."""
        kept = tuple(d for d in decisions if d.storage != storage or d.before <= after or d.after >= before)
        for candidate in self._candidates(kept, storage, after, before):
            with_it = _in_order((*kept, candidate))
            yield with_it
            for d in kept:
                if (
                    d.after < before and d.before > after
                ):  # only what is away at the same time can be replaced
                    yield tuple(other for other in with_it if other is not d)

    def _candidates(self, decisions: Decisions, storage: int, after: int, before: int) -> Iterator[Decision]:
        if self._problem.recompute:
            yield from self._remade(decisions, storage, after, before)
        if self._problem.link is not None:
            yield from self._swapped(storage, after, before)
        for option in self._problem.options.of(storage, False):
            if option.action not in TRAVELLING and after + 1 < before:
                yield Decision(
                    storage=storage, action=option.action, after=after, before=before, free_before=after + 1,
                    fetch_before=before, codec=option.codec, encoded_bytes=option.kept,
                    seconds=option.compute_seconds,
                )  # fmt: skip

    def _remade(self, decisions: Decisions, storage: int, after: int, before: int) -> Iterator[Decision]:
        """Made again for its next use, or earlier: as soon as one of the inputs would be gone otherwise."""
        chains = self._chains
        sources = chains.inputs[chains.producer[storage]]
        moments = {before, *(chains.last[s] + 1 for s in sources), *(chains.last[s] for s in sources)}
        for moment in sorted(moments, reverse=True):
            if not after < moment <= before:
                continue
            region = self._region(decisions, storage, moment)
            if region:
                yield Decision(
                    storage=storage, action="recompute", after=after, before=before, free_before=after + 1,
                    fetch_before=moment, region=region, seconds=sum(chains.seconds[op] for op in region),
                )  # fmt: skip

    def _region(self, decisions: Decisions, storage: int, moment: int) -> tuple[int, ...]:
        """The ops that make it again at a position, with what they read and is away then; empty where none may."""
        chains = self._chains
        region: set[int] = set()
        stack = [chains.producer[storage]]
        while stack:
            op = stack.pop()
            if op in region:
                continue
            region.add(op)
            if not chains.repeats[op] or len(region) > _LONGEST:
                return ()
            stack += [
                chains.producer[s]
                for s in chains.inputs[op]
                if chains.last[s] + 1 < moment or _away(decisions, s, moment)
            ]
        return tuple(sorted(region))

    def _swapped(self, storage: int, after: int, before: int) -> Iterator[Decision]:
        """Away for the whole span, and for the part of it in which its transfers would hide."""
        link, chains = self._problem.link, self._chains
        assert link is not None
        size = chains.size[storage]
        out, back = link.out_seconds(size), link.in_seconds(size)
        free = bisect_left(chains.starts, chains.starts[after] + chains.seconds[after] + out)
        fetch = bisect_right(chains.starts, chains.starts[before] - back) - 1
        for start, end in dict.fromkeys(
            ((after + 1, before), (free, fetch), (after + 1, fetch), (free, before))
        ):
            if after < start <= end <= before and not (start == end and end != before):
                yield Decision(
                    storage=storage, action="swap", after=after, before=before, free_before=start,
                    fetch_before=end, tier=self._problem.tier, seconds=out + back,
                )  # fmt: skip


def _away(decisions: Sequence[Decision], storage: int, moment: int) -> bool:
    return any(d.storage == storage and d.free_before <= moment < d.fetch_before for d in decisions)


def _in_order(decisions: Decisions) -> Decisions:
    return tuple(sorted(decisions, key=lambda d: (d.before, d.after, d.storage)))
