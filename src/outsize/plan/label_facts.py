"""What `labels` knows of a step beforehand: bit masks of storages, and how early a label's step can end."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from ..errors import PlanError
from ..values import LinkRate
from .chains import Chains
from .label import Label
from .model import Model


def mask_of(storages: Iterable[int]) -> int:
    mask = 0
    for s in storages:
        mask |= 1 << s
    return mask


class Facts:
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
        self.mortal = sorted({s for made in chains.outputs for s in made})
        self.inputs = [mask_of(i) for i in chains.inputs]
        self.outputs = [mask_of(o) for o in chains.outputs]
        self.again = [recompute and chains.repeats[i] and self.outputs[i] != 0 for i in range(count)]
        least = model.settings.min_bytes
        self.able = mask_of(s for s in self.mortal if chains.acted_on[s] and chains.size[s] >= least)
        self.remade = mask_of(s for s in self.mortal if self.again[chains.producer[s]]) & self.able
        mortal = set(self.mortal)
        self.changes = [mask_of(s for s in op.mutates if s in mortal) for op in model.graph.ops]
        self.mutated = mask_of(s for s in model.mutated if s in mortal)
        self.reach = self._reach()
        self.rest = [0.0] * (count + 1)
        for p in reversed(range(count)):
            self.rest[p] = self.rest[p + 1] + chains.seconds[p]
        self.over = [int(b) - model.target for b in model.curve]
        self.out = {s: link.out_seconds(chains.size[s]) if link else inf for s in self.mortal}
        self.read = {s: link.in_seconds(chains.size[s]) if link else inf for s in self.mortal}
        self.use = {s: [chains.next_use(s, p - 1) for p in range(count + 1)] for s in self.mortal}
        self.begun = [mask_of(s for s in self.mortal if chains.producer[s] < p) for p in range(count + 1)]
        self._owed_by: dict[tuple[int, int], float] = {}
        self._idle: dict[tuple[int, int], int] = {}
        self._bytes: dict[int, int] = {0: 0}
        self._peaks = self._tight()

    def _reach(self) -> dict[int, int]:
        """Last position at which a storage may be wanted: its own last use, or that of what is made of it again."""
        chains = self.chains
        reach = {s: chains.last[s] for s in self.mortal}
        for op in reversed(range(self.count)):
            if self.again[op]:
                until = max((reach[s] for s in chains.outputs[op]), default=-1)
                for s in chains.inputs[op]:
                    reach[s] = max(reach[s], until)
        return reach

    def size(self, mask: int) -> int:
        """Bytes of a set."""
        known = self._bytes.get(mask)
        if known is None:
            low = mask & -mask
            known = self._bytes[mask] = self.size(mask ^ low) + self.chains.size[low.bit_length() - 1]
        return known

    def _tight(self) -> list[tuple[int, int, float, float]]:
        """Positions over the budget: which, what may be away there, least seconds a byte again, seconds behind it."""
        found = []
        for q in range(self.count):
            if self.over[q] <= 0:
                continue
            idle = [s for s in self.mortal if self.begun[q] >> s & 1 and self.use[s][q] > q]
            away = mask_of(idle) & self.able
            ratio = inf
            for i in range(q):
                if self.again[i] and (given := self.outputs[i] & away & self.remade):
                    ratio = min(ratio, self.chains.seconds[i] / self.size(given))
            last = max((self.chains.last[s] for s in idle), default=q)
            found.append((q, away, ratio, self.rest[q + 1] - self.rest[last]))
        return found

    def bound(self, label: Label, p: int) -> float:
        """When the step can end at the earliest, with this label in front of position p."""
        plain = label.now + self.rest[p]
        bound = max(plain + self._owed(label, p), label.out, label.back)
        for s, end in label.arriving:
            use = self.use[s][p]
            bound = max(bound, end + (self.rest[use] if use >= 0 else 0.0))
        absent = label.copied & ~label.here & ~self.remade
        due = [(use, self.read[s]) for s in self.mortal if absent >> s & 1 and (use := self.use[s][p]) >= 0]
        end = max(label.now, label.back)
        for use, read in sorted(due):
            end += read
            bound = max(bound, end + self.rest[use])
        return max(bound, plain + self._late(label, p)) if self.link is not None else bound

    def _late(self, label: Label, p: int) -> float:
        """The longest that a position over the budget must hold the step up: its bytes go one way or the other.

        By the link they leave in the time until then, each byte of what is too much costing its time on the lane, and
        come back in the time behind it; by recomputation each costs at least `ratio`.
        """
        assert self.link is not None
        worst, copied = 0.0, label.copied | mask_of(s for s, _ in label.writing)
        outward, inward = self.link.out_bytes_per_second, self.link.in_bytes_per_second
        for q, away, ratio, behind in self._peaks:
            if q < p:
                continue
            lost = self._unused(p, q, away) & ~label.here & ~label.copied
            more = self.over[q] - self.size(lost)
            write = more - self.size(away & copied)
            window = label.now + self.rest[p] - self.rest[q] - max(label.out, label.now)
            first = max(0.0, write / outward - max(0.0, window))
            after = max(0.0, more / inward - behind)
            if not self.recompute:
                worst = max(worst, first + after)
                continue
            part = ratio * inward / (ratio * inward + 1) if ratio < inf else 1.0
            worst = max(worst, first * min(1.0, ratio * outward), after * part)
        return worst

    def _unused(self, p: int, q: int, away: int) -> int:
        """What is made before p and not wanted from there up to q."""
        known = self._idle.get((p, q))
        if known is None:
            away &= self.begun[p]
            known = mask_of(s for s in self.mortal if away >> s & 1 and self.use[s][p] > q)
            self._idle[(p, q)] = known
        return known

    def _owed(self, label: Label, p: int) -> float:
        """Seconds of the ops that must run again: what is wanted, absent and nowhere else."""
        gone = self.remade & ~label.here & ~label.copied & self.begun[p]
        if not gone:
            return 0.0
        known = self._owed_by.get((p, gone))
        if known is None:
            ops: set[int] = set()
            stack = [s for s in self.mortal if gone >> s & 1 and self.use[s][p] >= 0]
            while stack:
                op = self.chains.producer[stack.pop()]
                if op not in ops:
                    ops.add(op)
                    stack += [s for s in self.chains.inputs[op] if gone >> s & 1]
            known = self._owed_by[(p, gone)] = sum(self.chains.seconds[op] for op in ops)
        return known
