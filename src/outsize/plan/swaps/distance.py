"""The distance planner: TFLMSv2's rule, the baseline that the slack rule is measured against.  (Method 2, C2.7.)

TFLMSv2 does not look at time. It sorts the ops into levels (level k: all inputs come from lower levels) and swaps a
tensor towards every consumer that is more than `threshold` levels above its producer. Far consumers within `groupby`
levels of each other share one swap-in, and a swap-in is triggered by an op `ahead` levels below its first consumer.
In asynchronous mode the bytes are taken as free one op after the last near consumer. Threshold, mode, `ahead` and
`groupby` are tuned in that order by binary search over a memory model, as the released code does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...units import format_bytes
from ...values import Decision, Storage
from ..model import Ints, Model, cannot_shrink, cleared, floor_curve

#: How many levels below the wanted one are searched for a trigger (the released code's constant).
_TRIGGER_LEVELS = 10


@dataclass(frozen=True, kw_only=True)
class _Knobs:
    """What the auto-tuning turns. `threshold` and `groupby` in levels, -1 for every consumer on its own."""

    threshold: int
    ahead: int = 0
    groupby: int = -1
    sync: bool = False
    min_bytes: int = 1


def plan_distance(model: Model, tier: str) -> list[Decision]:
    """Decisions of the auto-tuned distance rule over one tier.

    Raises:
        BudgetError: some op needs more than the budget at once.
    """
    floor = floor_curve(model)
    if floor.max(initial=0) > model.budget:
        raise cannot_shrink(model, floor, tools=f"swapping to {tier}")
    target = max(model.target, int(floor.max(initial=0)))
    rule = _Rule(model, tier)
    top = max(rule.levels, default=0)

    def fits(knobs: _Knobs) -> bool:
        return int(rule.curve(knobs).max(initial=0)) <= target

    knobs = _start(model, fits)
    knobs = replace(
        knobs, threshold=_largest(knobs.threshold, top, lambda v: fits(replace(knobs, threshold=v)))
    )
    knobs = replace(knobs, ahead=_largest(0, top, lambda v: fits(replace(knobs, ahead=v))))
    if fits(replace(knobs, groupby=top)):
        knobs = replace(knobs, groupby=top)
    else:
        knobs = replace(knobs, groupby=_largest(-1, top, lambda v: fits(replace(knobs, groupby=v))))
    return rule.decisions(knobs)


def _start(model: Model, fits: Callable[[_Knobs], bool]) -> _Knobs:
    """The first setting that fits: from what the released code starts with to everything, synchronously."""
    for min_bytes in (model.settings.min_bytes, 1):
        for threshold in (1, -1):
            for sync in (False, True):
                knobs = _Knobs(threshold=threshold, sync=sync, min_bytes=min_bytes)
                if fits(knobs):
                    return knobs
    raise AssertionError("swapping every span at once reaches the floor")


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest value up to `high` that a binary search finds to fit; `low` is known to."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


class _Rule:
    """Levels of the step, and the decisions that a setting of the knobs makes."""

    def __init__(self, model: Model, tier: str) -> None:
        self.model, self.tier = model, tier
        self.link = model.profile.links[tier]
        graph = model.graph
        self.levels: list[int] = []
        for op in graph.ops:
            made = [graph.storages[s].producer for s in op.reads]
            self.levels.append(1 + max((self.levels[p] for p in made if 0 <= p < op.index), default=0))
        self.at_level: dict[int, list[int]] = {}
        for position, level in enumerate(self.levels):
            self.at_level.setdefault(level, []).append(position)
        self.storages = list(graph.candidates())

    def curve(self, knobs: _Knobs) -> Ints:
        made = self.decisions(knobs)
        length = len(self.model.curve)
        start = np.array([d.free_before for d in made], dtype=np.int64)
        stop = np.array([d.fetch_before for d in made], dtype=np.int64)
        nbytes = np.array([self.model.graph.storages[d.storage].nbytes for d in made], dtype=np.int64)
        return self.model.curve - cleared(length, start, stop, nbytes)

    def decisions(self, knobs: _Knobs) -> list[Decision]:
        return [
            d
            for storage in self.storages
            if storage.nbytes >= knobs.min_bytes
            for d in self._of_storage(storage, knobs)
        ]

    def _of_storage(self, storage: Storage, knobs: _Knobs) -> list[Decision]:
        source = self.levels[storage.producer]
        # Up to `held_until` its bytes are not free whoever swaps it.
        apart = [
            u for u in storage.uses if self.levels[u] - source > knobs.threshold and u > storage.held_until
        ]
        near = [storage.producer, *(u for u in storage.uses if u not in apart)]
        far = sorted(apart, key=lambda u: (self.levels[u], u))
        groups: list[list[int]] = [near]
        for use in far:
            previous = groups[-1][-1]
            joins = len(groups) > 1 and self.levels[use] - self.levels[previous] <= knobs.groupby
            if joins:
                groups[-1].append(use)
            else:
                groups.append([use])
        made, after = [], max(near)
        for group in sorted(groups[1:], key=min):
            before = min(group)
            if before > after + 1:
                made.append(self._swap(storage, after, before, source, knobs))
            after = max(after, *group)
        return [d for d in made if d.free_before < d.fetch_before]

    def _swap(self, storage: Storage, after: int, before: int, source: int, knobs: _Knobs) -> Decision:
        free = min(after + (1 if knobs.sync else 2), before)
        fetch = before if knobs.sync else self._trigger(free, before, source, knobs.ahead)
        return Decision(
            storage=storage.index,
            action="swap",
            after=after,
            before=before,
            free_before=free,
            fetch_before=fetch,
            tier=self.tier,
            seconds=self.link.out_seconds(storage.nbytes) + self.link.in_seconds(storage.nbytes),
            reason=f"distance {self.levels[before] - source} > {knobs.threshold} levels, "
            f"{format_bytes(storage.nbytes)}",
        )

    def _trigger(self, free: int, before: int, source: int, ahead: int) -> int:
        """Right after the last op of the first level at or below the wanted one that has a usable op."""
        wanted = self.levels[before] - ahead - 1
        for level in range(wanted, max(wanted - _TRIGGER_LEVELS, source), -1):
            usable = [p for p in self.at_level.get(level, ()) if free <= p + 1 <= before]
            if usable:
                return usable[-1] + 1
        return before
