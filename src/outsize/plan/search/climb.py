"""Hill climbing: one price or one decision changed at a time, the pass repairs the rest, what is faster stays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import final

from ..settings import CLIMBED, SHORT_CLIMB
from .moves import Move, all_moves, bar, force, kicks, release, retain
from .problem import Problem, Scored
from .retention import dead_again


def improved(problem: Problem, starts: Sequence[Scored]) -> Iterator[Scored]:
    """A short and a long climb: they part early, and neither always ends higher."""
    for moves in dict.fromkeys((max(1, problem.moves // SHORT_CLIMB), problem.moves)) if starts else ():
        yield Climb(problem, moves).improve(starts)


@final
class Climb:
    """Climbs over one problem that share a number of moves."""

    def __init__(self, problem: Problem, moves: int) -> None:
        self._problem, self._left = problem, moves

    def improve(self, starts: Sequence[Scored]) -> Scored:
        """Climb from the best starts, most moves to the first; spend what is left on kicks from the best."""
        found = [starts[0]]
        moves = all_moves(self._problem.classes, swaps=self._problem.swaps)
        for rank, start in enumerate(starts[:CLIMBED]):
            allowed = self._left // 2 if rank < 2 and len(starts) > rank + 1 else self._left
            self._left -= allowed
            best, spare = self._climb(start, moves, allowed)
            self._left += spare
            found.append(best)
        best = self.without(min(found, key=lambda scored: scored.seconds))
        for kick in kicks(self._problem.classes, len(self._problem.uniform)):
            if self._left <= 0 or best.policy is None or best.seconds <= self._problem.plain_seconds:
                return best
            self._left -= 1
            better = self._tried(best, kick)
            best = self.without(better) if better else best
        return best

    def without(self, best: Scored) -> Scored:
        """One thing about a plan after another is changed, see `_changes`; what comes out faster stays."""
        refused: set[Hashable] = set()
        while self._left > 0 and best.seconds > self._problem.plain_seconds:
            change = next((c for c in self._changes(best) if c[0] not in refused), None)
            if change is None:
                return best
            self._left -= 1
            refused.add(change[0])
            better = self._tried(best, change[1])
            if better is not None:
                best, refused = better, set()
        return best

    def _changes(self, best: Scored) -> Iterator[tuple[Hashable, Move]]:
        """Bar a decision, dearest first; retain what is made again, or no longer; force a decision that was not made."""
        made = sorted(best.decisions, key=lambda d: (-d.seconds, d.after, d.storage))
        keys = [(d.storage, d.after, d.action) for d in made]
        yield from ((key, bar(key)) for key in keys)
        retained = best.policy.retain if best.policy is not None else frozenset()
        if self._problem.recompute:
            again = (s for s in dead_again(self._problem, best.decisions) if s not in retained)
            yield from ((("retain", s), retain((s,))) for s in again)
            yield from ((("release", s), release((s,))) for s in sorted(retained))
        known = set(keys)
        yield from ((key, force(key)) for key in self._problem.open_spans if key not in known)

    def _climb(self, best: Scored, moves: list[Move], left: int) -> tuple[Scored, int]:
        """First improvement, round and round, until a whole round brings nothing; and the moves not made."""
        idle = at = 0
        while left > 0 and idle < len(moves) and best.seconds > self._problem.plain_seconds:
            better = self._tried(best, moves[at % len(moves)])
            idle = 0 if better else idle + 1
            best = better or best
            at += 1
            left -= 1
        return best, left

    def _tried(self, best: Scored, move: Move) -> Scored | None:
        policy = move(best.policy) if best.policy is not None else None
        trial = self._problem.evict(policy, below=best.seconds) if policy is not None else None
        return trial if trial is not None and trial.seconds < best.seconds * (1 - 1e-9) else None
