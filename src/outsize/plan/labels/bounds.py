"""What `labels` knows of a step beforehand: bit masks of storages, and how early a label's step can end."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from ...errors import PlanError
from ...values import LinkRate
from ..chains import Chains
from ..model import Model
from .label import Label


def mask_of(storages: Iterable[int]) -> int:
    mask = 0
    for s in storages:
        mask |= 1 << s
    return mask


class _Peak(NamedTuple):
    """A position over the budget, as seen from an earlier one.

    Attributes:
        over: bytes over the budget in the unplanned step.
        away, unused: what may be away there; of that, what is made already and not wanted before.
        start, behind: compute seconds until it begins, and from its end to the last use of what may be away.
        write, read: seconds of a byte on the lanes.
        part_out, part_in: where recomputation is allowed, what it leaves of the lanes' delay at least.
    """

    over: int
    away: int
    unused: int
    start: float
    behind: float
    write: float
    read: float
    part_out: float
    part_in: float


class StepFacts:
    """Static facts of one step.

    Args:
        model, chains: the step.
        link: where swaps go, None without.
        recompute: recomputation is allowed.

    Raises:
        PlanError: the link takes time from the compute lane.
    """

    def __init__(self, model: Model, chains: Chains, link: LinkRate | None, *, recompute: bool) -> None:
        if link is not None and link.drag_seconds_per_byte:
            raise PlanError("labels know no drag of transfers on the compute lane")
        self.chains, self.link, self.recompute, self.budget = chains, link, recompute, model.target
        self.count = count = len(chains.inputs)
        self.transient = sorted({s for made in chains.outputs for s in made})
        self.inputs = [mask_of(i) for i in chains.inputs]
        self.outputs = [mask_of(o) for o in chains.outputs]
        self.again = [recompute and chains.repeats[i] and self.outputs[i] != 0 for i in range(count)]
        least = model.settings.min_bytes
        free = (s for s in self.transient if chains.acted_from[s] <= max(0, chains.producer[s]))
        self.able = mask_of(s for s in free if chains.size[s] >= least)
        self.remade = mask_of(s for s in self.transient if self.again[chains.producer[s]]) & self.able
        transient = set(self.transient)
        self.changes = [mask_of(s for s in op.mutates if s in transient) for op in model.graph.ops]
        self.mutated = mask_of(s for s in model.mutated if s in transient)
        self.reach = chains.reach if recompute else chains.last
        self.rest = [0.0] * (count + 1)
        for p in reversed(range(count)):
            self.rest[p] = self.rest[p + 1] + chains.seconds[p]
        self.over = [int(b) - model.target for b in model.curve]
        self.out = {s: link.out_seconds(chains.size[s]) if link else inf for s in self.transient}
        self.read = {s: link.in_seconds(chains.size[s]) if link else inf for s in self.transient}
        self.use = {s: [chains.next_use(s, p - 1) for p in range(count + 1)] for s in self.transient}
        self.begun = [mask_of(s for s in self.transient if chains.producer[s] < p) for p in range(count + 1)]
        self._owed_by: dict[tuple[int, int], float] = {}
        self._bytes: dict[int, int] = {0: 0}
        self._ahead = [self._peaks(p) for p in range(count + 1)]

    def size(self, mask: int) -> int:
        """Bytes of a set."""
        known = self._bytes.get(mask)
        if known is None:
            low = mask & -mask
            known = self._bytes[mask] = self.size(mask ^ low) + self.chains.size[low.bit_length() - 1]
        return known

    def _peaks(self, p: int) -> list[_Peak]:
        """Positions from p on that are over the budget."""
        if self.link is None:
            return []
        found = []
        outward, inward = self.link.out_bytes_per_second, self.link.in_bytes_per_second
        for q in range(p, self.count):
            if self.over[q] <= 0:
                continue
            idle = [s for s in self.transient if self.begun[q] >> s & 1 and self.use[s][q] > q]
            away = mask_of(idle) & self.able
            given = [self.outputs[i] & away & self.remade if self.again[i] else 0 for i in range(q)]
            again = min(
                (self.chains.seconds[i] / self.size(g) for i, g in enumerate(given) if g), default=inf
            )
            last = max((self.chains.last[s] for s in idle), default=q)
            found.append(
                _Peak(
                    over=self.over[q],
                    away=away,
                    unused=mask_of(s for s in idle if (away & self.begun[p]) >> s & 1 and self.use[s][p] > q),
                    start=self.rest[p] - self.rest[q],
                    behind=self.rest[q + 1] - self.rest[last],
                    write=1 / outward,
                    read=1 / inward,
                    part_out=min(1.0, again * outward),
                    part_in=again * inward / (again * inward + 1) if again < inf else 1.0,
                )
            )
        return found

    def bound(self, label: Label, p: int) -> float:
        """When the step can end at the earliest, with this label in front of position p."""
        plain = label.now + self.rest[p]
        bound = max(plain + self._owed(label, p), label.out, label.back)
        for s, end in label.arriving:
            use = self.use[s][p]
            bound = max(bound, end + (self.rest[use] if use >= 0 else 0.0))
        absent = label.copied & ~label.here & ~self.remade
        due = [
            (use, self.read[s]) for s in self.transient if absent >> s & 1 and (use := self.use[s][p]) >= 0
        ]
        end = max(label.now, label.back)
        for use, read in sorted(due):
            end += read
            bound = max(bound, end + self.rest[use])
        return max(bound, plain + self._late(label, p)) if self.link is not None else bound

    def _late(self, label: Label, p: int) -> float:
        """The longest that a position over the budget must hold the step up: its bytes go one way or the other.

        By the link they leave in the time until then, each byte of what is too much costing its time on the lane, and
        come back in the time after it; by recomputation each costs at least a known time.
        """
        copied = label.copied
        for s, _ in label.writing:
            copied |= 1 << s
        gone, busy = ~(label.here | label.copied), max(0.0, label.out - label.now)
        worst = 0.0
        for peak in self._ahead[p]:
            more = peak.over - self.size(peak.unused & gone)
            first = (more - self.size(peak.away & copied)) * peak.write
            window = peak.start - busy
            if window > 0.0:
                first -= window
            after = more * peak.read - peak.behind
            if self.recompute:
                late = max(first * peak.part_out, after * peak.part_in)
            else:
                late = first + after if first > 0.0 < after else max(first, after)
            if late > worst:
                worst = late
        return worst

    def _owed(self, label: Label, p: int) -> float:
        """Seconds of the ops that must run again: what is wanted, absent and nowhere else."""
        gone = self.remade & ~label.here & ~label.copied & self.begun[p]
        if not gone:
            return 0.0
        known = self._owed_by.get((p, gone))
        if known is None:
            ops: set[int] = set()
            stack = [s for s in self.transient if gone >> s & 1 and self.use[s][p] >= 0]
            while stack:
                op = self.chains.producer[stack.pop()]
                if op not in ops:
                    ops.add(op)
                    stack += [s for s in self.chains.inputs[op] if gone >> s & 1]
            known = self._owed_by[(p, gone)] = sum(self.chains.seconds[op] for op in ops)
        return known
