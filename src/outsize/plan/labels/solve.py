"""The optimum of a small step by swap and recompute, transfers whole and lanes first in, first out.

Label setting over the step's positions. A label is everything that the rest of the step can feel: which storages are
on the device, which have a copy in the tier, which transfers are under way, and the three clocks. At each position a
label branches into every way to settle writes, to issue reads, to make storages again and to issue writes. What goes
is decided as late as possible: a storage that could come back leaves only where the bytes are needed. A label goes
where another one has at least its storages and copies no later, and where what must still run takes it past a known
plan. What is left is exact: no plan is faster. Where more labels are kept than allowed, those with the largest bounds
go, and the least of their bounds is what remains proved.

Writes are issued as soon as their bytes are there, or directly after a write of bytes that came later: any other
delay leaves the order on the lane as it is and every write ends no earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from time import perf_counter

from .bounds import StepFacts, mask_of
from .label import Event, Label, LabelTable, events_of

_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the labels prove.

    Attributes:
        seconds: of the fastest plan found, infinite where none is faster than `below`.
        bound: no plan is faster than this, or than `below`.
        events: what the plan does, in order.
        labels, branches: how many were kept, and made, over all positions.
    """

    seconds: float
    bound: float
    events: tuple[Event, ...]
    labels: int
    branches: int


class Labels(StepFacts):
    """Labels of one step."""

    def solve(
        self,
        *,
        below: float = inf,
        seconds: float = inf,
        most: int = 10**9,
        branches: int = 10**12,
        each: int = 10**12,
    ) -> Found:
        """The fastest plan that takes less than `below`.

        Args:
            seconds: time limit; after it nothing branches any more.
            most: labels kept at a position.
            branches: labels made at all, a limit that does not depend on the machine.
            each: labels made of one label.
        """
        self.below, self.late, self.left = below * (1 - _TINY), perf_counter() + seconds, branches
        labels = [Label(0.0, 0.0, 0.0, 0, 0, (), (), None)]
        lost, kept = inf, 0
        for p in range(self.count):
            found: list[tuple[float, Label]] = []
            for label in labels:
                self.least = max(0, self.left - each)
                for other in self._position(label, p):
                    bound = self.bound(other, p + 1)
                    if bound < self.below:
                        found.append((bound, other))
                if self._spent():
                    lost = min(lost, self.bound(label, p))
            labels, least = self._undominated(found, p + 1, most)
            lost, kept = min(lost, least), kept + len(labels)
        ends = [(max(label.now, label.out, label.back), label.log) for label in labels]
        best = min(ends, key=lambda end: end[0], default=(inf, None))
        return Found(
            seconds=best[0], bound=min(best[0], lost, below), events=events_of(best[1]), labels=kept,
            branches=branches - self.left,
        )  # fmt: skip

    def _spent(self) -> bool:
        return self.left <= self.least or perf_counter() > self.late

    # -- one position ---------------------------------------------------------------------------------------------

    def _position(self, label: Label, p: int) -> Iterator[Label]:
        seen: set[tuple[object, ...]] = set()
        for settled in self._settled(label, p):
            if self.changes[p] & mask_of(s for s, _ in settled.writing):
                continue
            for fetched, starts in self._fetched(settled, p):
                if self._spent():
                    return
                for made, runs in self._regions(fetched, p):
                    if self._spent():
                        return
                    key = (made[:-1], runs)
                    if key not in seen:
                        seen.add(key)
                        yield from self._run(made, p, runs, starts)

    def _settled(self, label: Label, p: int) -> Iterator[Label]:
        """Writes that have ended are copies; the lane may be waited for, write by write."""
        while True:
            label = self._ended(label)
            yield label
            if not label.writing or label.writing[0][1] + self.rest[p] >= self.below:
                return
            label = label._replace(now=label.writing[0][1])

    def _ended(self, label: Label) -> Label:
        if not label.writing or label.writing[0][1] > label.now:
            return label
        copied, writing = label.copied, list(label.writing)
        while writing and writing[0][1] <= label.now:
            copied |= 1 << writing.pop(0)[0]
        return label._replace(copied=copied, writing=tuple(writing))

    def _fetched(self, label: Label, p: int) -> Iterator[tuple[Label, list[tuple[int, float]]]]:
        """Every set of reads, in every order that can matter, with their starts."""
        yield label, []
        if self.link is None or p == 0:
            return
        absent = [s for s in self.transient if (label.copied & ~label.here) >> s & 1 and self.reach[s] >= p]
        absent = [s for s in absent if self.recompute or self.use[s][p] >= 0]
        absent.sort(key=lambda s: (self.use[s][p] if self.use[s][p] >= 0 else self.count, s))
        stack: list[tuple[Label, list[int], list[tuple[int, float]]]] = [(label, absent, [])]
        while stack and not self._spent():
            at, left, starts = stack.pop()
            self.left -= 1
            for k, s in enumerate(left):
                start = max(at.now, at.back)
                end = start + self.read[s]
                if end > self.below:
                    continue
                rest = left[:k] + left[k + 1 :] if self.recompute else left[k + 1 :]
                need = self.chains.fixed[p - 1] + self.chains.size[s]
                for roomy in self._roomy(at, p, need, 1 << s):
                    other = roomy._replace(
                        here=roomy.here | 1 << s, back=end, arriving=(*roomy.arriving, (s, end)),
                        out=end if self.link.shared else roomy.out, log=(roomy.log, ("in", s, p)),
                    )  # fmt: skip
                    begun = [*starts, (s, start)]
                    yield other, begun
                    stack.append((other, rest, begun))

    def _regions(self, label: Label, p: int) -> Iterator[tuple[Label, tuple[int, ...]]]:
        """Every set of ops that run again in front of op p and make what it reads."""
        missing = self.inputs[p] & ~label.here
        if not self.recompute:
            if not missing:
                yield label, ()
            return
        before = self.chains.fixed[p - 1] if p else 0
        stack: list[tuple[Label, int, tuple[int, ...], float]] = [(label, 0, (), 0.0)]
        while stack and not self._spent():
            at, first, runs, spent = stack.pop()
            self.left -= 1
            if not self.inputs[p] & ~at.here:
                yield at, runs
            for i in range(first, p):
                if not self.again[i] or self.inputs[i] & ~at.here:
                    continue
                fresh = self.outputs[i] & ~at.here
                if not fresh or not any(
                    fresh >> s & 1 and self.reach[s] >= p for s in self.chains.outputs[i]
                ):
                    continue
                seconds = self.chains.seconds[i]
                if at.now + seconds + self.rest[p] >= self.below:
                    continue
                waited = self._waited(at, self.inputs[i], spent)
                if waited.now + seconds + self.rest[p] >= self.below:
                    continue
                waited = self._replaced(waited, i, p, before)
                fresh = self.outputs[i] & ~waited.here
                need = before + self.size(self.outputs[i]) + self.chains.workspace[i]
                need += self.chains.second_copies[i]
                for roomy in self._roomy(waited, p, need, self.inputs[i] | self.outputs[i]):
                    other = roomy._replace(
                        now=roomy.now + seconds, here=roomy.here | fresh, log=(roomy.log, ("run", i, p))
                    )
                    stack.append((other, i + 1, (*runs, i), spent + seconds))

    def _replaced(self, label: Label, i: int, p: int, before: int) -> Label:
        """Where room is short, what op i makes again anyway is not there twice."""
        need = before + self.size(self.outputs[i]) + self.chains.workspace[i] + self.chains.second_copies[i]
        twice = self.outputs[i] & label.here & ~mask_of(s for s, _ in (*label.writing, *label.arriving))
        if not twice or self.size(label.here) + need <= self.budget:
            return label
        log = label.log
        for s in self.transient:
            if twice >> s & 1:
                if not (self.remade >> s & 1 or self.use[s][p] < 0):
                    twice ^= 1 << s
                else:
                    log = (log, ("free", s, p))
        return label._replace(here=label.here & ~twice, log=log)

    @staticmethod
    def _waited(label: Label, mask: int, spent: float) -> Label:
        """Reads that the mask needs have ended before the region, which has lasted `spent` so far, began."""
        if not any(mask >> s & 1 for s, _ in label.arriving):
            return label
        now = max(label.now, *(end + spent for s, end in label.arriving if mask >> s & 1))
        return label._replace(now=now, arriving=tuple(a for a in label.arriving if not mask >> a[0] & 1))

    def _run(
        self, label: Label, p: int, runs: tuple[int, ...], starts: list[tuple[int, float]]
    ) -> Iterator[Label]:
        chains = self.chains
        label = self._waited(label, self.inputs[p], 0.0)
        if label.now + self.rest[p] >= self.below:
            return
        made = self.outputs[p]
        need = chains.fixed[p] + self.size(made) + chains.workspace[p]
        for roomy in self._roomy(label, p, need, self.inputs[p] | made):
            if not self._useful(roomy, p, runs):
                continue
            here = roomy.here | made
            over = [s for s in self.transient if here >> s & 1 and self.reach[s] <= p]
            here &= ~mask_of(over)
            done = roomy._replace(
                now=roomy.now + chains.seconds[p], here=here, copied=roomy.copied & ~self.changes[p],
                writing=tuple(w for w in roomy.writing if here >> w[0] & 1),
            )  # fmt: skip
            fresh = made | self.changes[p]
            for i in runs:
                fresh |= self.outputs[i]
            for issued in self._issued(done, p, fresh):
                wait = max(issued.now, issued.writing[-1][1] if issued.writing else 0.0)
                arriving = {s for s, _ in issued.arriving}
                if not any(s in arriving and start >= wait for s, start in starts):
                    yield issued

    def _useful(self, label: Label, p: int, runs: tuple[int, ...]) -> bool:
        read = self.inputs[p]
        for i in reversed(runs):
            kept = mask_of(s for s in self.chains.outputs[i] if label.here >> s & 1 and self.reach[s] > p)
            if not self.outputs[i] & read and not kept:
                return False
            read |= self.inputs[i]
        return True

    def _issued(self, label: Label, p: int, fresh: int) -> Iterator[Label]:
        """Writes after op p: bytes that are new, and after them any that have waited."""
        yield label
        if self.link is None:
            return
        taken = label.copied | mask_of(s for s, _ in label.writing) | mask_of(s for s, _ in label.arriving)
        open_ = [s for s in self.transient if (label.here & ~taken) >> s & 1 and self._may_go(s, p)]
        stack = [(label, open_, False)]
        while stack and not self._spent():
            at, left, behind = stack.pop()
            self.left -= 1
            for s in left:
                if not (behind or fresh >> s & 1 or self.link.shared):
                    continue
                if not fresh >> s & 1 and not self.link.shared and self._fitted(label, s, p):
                    continue
                end = max(at.now, at.out) + self.out[s]
                if end > self.below:
                    continue
                other = at._replace(
                    out=end, back=end if self.link.shared else at.back, writing=(*at.writing, (s, end)),
                    log=(at.log, ("out", s, p)),
                )  # fmt: skip
                yield other
                stack.append((other, [o for o in left if o != s], True))

    def _fitted(self, label: Label, s: int, p: int) -> bool:
        """The lane was idle for long enough to write these bytes before."""
        if (self.remade | self.mutated) >> s & 1:
            return False
        since = self.rest[self.chains.producer[s] + 1] - self.rest[p + 1]
        return min(label.now - label.out, since) >= self.out[s]

    def _may_go(self, s: int, p: int) -> bool:
        """A write can pay: the storage is wanted later, and room is short while it is not."""
        if not self.able >> s & 1:
            return False
        if self.recompute:
            return self.reach[s] > p + 1
        touched = {self.chains.producer[s], *self.chains.uses[s]}
        return any(self.over[q] > 0 and q not in touched for q in range(p + 1, self.chains.last[s]))

    def _roomy(self, label: Label, p: int, need: int, touched: int) -> Iterator[Label]:
        """The label with the bytes free, by every least set of storages that can come back."""
        excess = self.size(label.here) + need - self.budget
        if excess <= 0:
            yield label
            return
        moving = mask_of(s for s, _ in label.writing) | mask_of(s for s, _ in label.arriving)
        mask = label.here & ~touched & ~moving
        size = self.chains.size
        able = [s for s in self.transient if mask >> s & 1 and self._droppable(label, s, p)]
        able.sort(key=lambda s: -size[s])
        behind = [0] * (len(able) + 1)
        for k in reversed(range(len(able))):
            behind[k] = behind[k + 1] + size[able[k]]
        stack: list[tuple[int, int, tuple[int, ...]]] = [(0, excess, ())]
        while stack and not self._spent():
            k, left, chosen = stack.pop()
            self.left -= 1
            if left <= 0:
                if all(size[s] + left > 0 for s in chosen):
                    log = label.log
                    for s in chosen:
                        log = (log, ("free", s, p))
                    yield label._replace(here=label.here & ~mask_of(chosen), log=log)
                continue
            if behind[k] < left:
                continue
            stack.append((k + 1, left, chosen))
            stack.append((k + 1, left - size[able[k]], (*chosen, able[k])))

    def _droppable(self, label: Label, s: int, p: int) -> bool:
        return bool((label.copied | self.remade) >> s & 1) or self.use[s][p] < 0

    # -- dominance ------------------------------------------------------------------------------------------------

    def _undominated(self, found: list[tuple[float, Label]], p: int, most: int) -> tuple[list[Label], float]:
        """Labels that no other one is at least as good as, and the least bound of those beyond `most`."""
        found.sort(key=lambda item: (item[0], item[1].now))
        kept: list[Label] = []
        lasting = mask_of(s for s in self.transient if self.use[s][p] >= 0) & ~self.remade & ~self.mutated
        columns = LabelTable(len(self.chains.size), max(16, min(len(found), most)), lasting)
        for bound, label in found:
            if columns.dominates(label):
                continue
            if len(kept) >= most:
                return kept, bound
            kept.append(label)
            columns.append(label)
        return kept, inf
