"""One pass over the step that never leaves the budget: evict what costs least per byte, bring back what is needed.

The pass runs the step's ops in order with only the budget's bytes. Where the next op does not fit, the storage with
the least price is taken away: price = seconds to bring it back ÷ (bytes × time to its next use ^ patience). That is
dynamic rematerialisation (Kirisame et al. 2021) with two changes: the step is known, so the time to the next use
replaces staleness (Belady), and swapping or encoding competes with recomputing, a second of a transfer lane being
worth `lane_price` seconds of compute. Where an op needs what was taken away, the ops that make it run again as one
group; what they make on the way stays as long as there is room, so that its own use does not pay again.

Whatever the prices are, the decisions keep every position under the budget; `search` tries many.
"""

from __future__ import annotations

from typing import final

import numpy as np

from ...values import Decision
from .decided import decided
from .options import Option
from .policy import DecisionKey, Stuck
from .room import Room


@final
class ReferencePass(Room):
    """One eviction pass. `run` gives the decisions, or None where these prices find no way through."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decisions: list[Decision] = []
        self._touched_now: set[int] = set()
        self._remade: frozenset[DecisionKey] = frozenset()

    def run(self) -> list[Decision] | None:
        """Decisions that keep every position of the step under the budget."""
        through = all(self._position(p) for p in range(len(self.chains.inputs)))
        return self.decisions if through else None

    def _position(self, p: int) -> bool:
        inputs = self.chains.inputs[p]
        self._remade = frozenset()
        if not all(self.resident[s] for s in inputs) and not self._restore(p):
            return False
        for s in inputs:
            if not self.resident[s]:
                return False
            self._touch(s, p)
        return self._run_op(p)

    def _restore(self, p: int) -> bool:
        """Bring back and make again what op p reads and is not there."""
        chains = self.chains
        before = chains.fixed[p - 1] if p else chains.fixed[0]
        region, fetched = self._missing(p)
        self._note_remade(p, region)
        if region:
            self._replace(p, region, before)
        touched = {*chains.inputs[p], *fetched}
        made = {s for op in region for s in chains.outputs[op]}
        for op in region:
            touched.update(s for s in chains.inputs[op] if s not in made or self.resident[s])
        for s in sorted(touched):
            if self.resident[s]:
                self._touch(s, p)
        return self._bring_back(p, fetched, before) and self._run_region(p, region, before)

    def _note_remade(self, p: int, region: list[int]) -> None:
        """Remade storages that this position waits for: those that its op reads, else those on the way to them."""
        made = [
            s for op in region for s in self.chains.outputs[op] if s in self.gone and not self.gone[s].option
        ]
        direct = [s for s in made if s in self.chains.inputs[p]]
        self._remade = frozenset((s, self.gone[s].after, "recompute") for s in direct or made)

    @property
    def stuck(self) -> Stuck:
        """What stood in the way where `run` gave None."""
        kept = ((s, g.after, g.option.action) for s, g in self.gone.items() if g.option and g.option.kept)
        return Stuck(remade=self._remade, kept=frozenset(kept))

    def _bring_back(self, p: int, fetched: list[int], before: int) -> bool:
        """Fetch and decode; encoded forms that travel are all there before the first is decoded."""
        options = {s: option for s in fetched if (option := self.gone[s].option)}
        staged = sum(option.staged for option in options.values())
        for s, option in options.items():
            if not self._make_room(p, before + self.chains.size[s] + staged):
                return False
            staged -= option.staged
            self.alive += self.chains.size[s] - option.kept
            self._restored(s, p, ())
            self._touch(s, p)
        return True

    def _missing(self, p: int) -> tuple[list[int], list[int]]:
        """Ops to run again and storages to bring back so that everything that op p reads is there."""
        region: set[int] = set()
        back: dict[int, None] = {}
        stack = [s for s in self.chains.inputs[p] if not self.resident[s]]
        while stack:
            s = stack.pop()
            if (gone := self.gone.get(s)) is not None and gone.option is not None:
                back[s] = None
                continue
            op = self.chains.producer[s]
            if op not in region:
                region.add(op)
                stack += [x for x in self.chains.inputs[op] if not self.resident[x]]
        return sorted(region), list(back)

    def _run_region(self, p: int, region: list[int], before: int) -> bool:
        """Run ops again; what they make beyond what op p reads stays softly: it may go again without a trace."""
        if not region:
            return True
        chains, wanted = self.chains, set(self.chains.inputs[p])
        readers: dict[int, int] = {}
        for op in region:
            for s in chains.inputs[op]:
                readers[s] = op
        held: set[int] = set()
        for op in region:
            need = before + sum(chains.size[s] for s in chains.outputs[op])
            need += chains.second_copies[op] + chains.workspace[op]
            fresh = [s for s in chains.outputs[op] if not self.resident[s]]
            if not self._make_room(p, need):
                return False
            for s in fresh:
                self.alive += chains.size[s]
                self.resident[s] = True
                self.touched[s] = p
                self.unit[s] = np.inf
                held.add(s)
            for s in [s for s in held if readers.get(s, -1) <= op and s not in wanted]:
                held.remove(s)
                if s in self.gone and self.gone[s].option is None and self.until[s] > p:
                    self._restored(s, p, self._closure(s, region))
                    self.soft.add(s)
                    self._offer(s, p)
                else:
                    self._vanish(s)
            for s in chains.inputs[op]:
                if readers[s] == op and self.touched[s] == p and self.resident[s] and s not in wanted:
                    self._offer(s, p)
        for s in held:
            if s in self.gone:
                self._restored(s, p, self._closure(s, region))
        return True

    def _replace(self, p: int, region: list[int], before: int) -> None:
        """Where room may be short, what the region makes again anyway need not be there twice."""
        chains = self.chains
        made = [s for op in region for s in chains.outputs[op]]
        most = max((chains.workspace[op] + chains.second_copies[op] for op in region), default=0)
        if self.alive + before + sum(chains.size[s] for s in made) + most <= self.budget:
            return
        for s in made:
            if self.resident[s] and chains.acted_from[s] <= self.touched[s]:
                self.exact[s] = (self.moves, 0.0, None)
                self._evict(s)

    def _run_op(self, p: int) -> bool:
        chains = self.chains
        made = chains.outputs[p]
        for s in self.expiring.get(p, ()):
            self._expire(s)
        need = chains.fixed[p] + sum(chains.size[s] for s in made) + chains.workspace[p]
        if not self._make_room(p, need):
            return False
        for s in made:
            self.alive += chains.size[s]
            self.resident[s] = True
            self.touched[s] = p
        for s in (*chains.inputs[p], *made):
            if self.until[s] <= p:
                self._vanish(s)
        self.room_after.append(self.budget - self.alive - chains.fixed[p])
        for s in [s for s in self._touched_now if self.resident[s]]:
            self._offer(s, p)
        for s in made:
            if self.resident[s]:
                self._offer(s, p)
        if self.policy.forced:
            self._force(p, [*sorted(self._touched_now), *made])
        self._touched_now.clear()
        return True

    def _force(self, p: int, touched: list[int]) -> None:
        for s in touched:
            if not np.isfinite(self.unit[s]):
                continue
            use = self._next_use(s, p)
            again = self._may_remake(s, p) and np.isfinite(self._chain_seconds(s, use, 0.0))
            ways: list[Option | None] = [None] if again else []
            for way in (*ways, *self._ways(s, p)):
                if (s, p, way.action if way else "recompute") in self.policy.forced:
                    if way is None or way.staged + way.kept <= self.room_after[p]:
                        self.exact[s] = (self.moves, 0.0, way)
                        self._evict(s)
                    break

    def _touch(self, s: int, p: int) -> None:
        """A read at p: what came back softly is needed now, so its coming back counts."""
        if s in self.gone:
            self._decide(s, p)
        self.soft.discard(s)
        self.touched[s] = p
        self.unit[s] = np.inf
        self._touched_now.add(s)

    def _restored(self, s: int, p: int, region: tuple[int, ...]) -> None:
        self.resident[s] = True
        self.returns[s] = None
        self.moves += 1
        gone = self.gone[s]
        gone.restored, gone.region = p, region

    def _decide(self, s: int, before: int) -> None:
        gone = self.gone.pop(s)
        self.decisions.append(
            decided(
                self.chains, self.tier, storage=s, option=gone.option, after=gone.after, before=before,
                restored=gone.restored, region=gone.region,
            )
        )  # fmt: skip

    def _expire(self, s: int) -> None:
        """What it was retained for is there: it goes, on the device or encoded."""
        self._vanish(s)
        gone = self.gone.pop(s, None)
        if gone is not None and gone.option is not None:
            self.alive -= gone.option.kept

    def _closure(self, s: int, region: list[int]) -> tuple[int, ...]:
        """The ops of the region that the storage is made of."""
        inside, keep = set(region), set()
        stack = [self.chains.producer[s]]
        while stack:
            op = stack.pop()
            if op in inside and op not in keep:
                keep.add(op)
                stack += [self.chains.producer[x] for x in self.chains.inputs[op]]
        return tuple(sorted(keep))
