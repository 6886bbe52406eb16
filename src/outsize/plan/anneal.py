"""Annealing over what walks are told: out of the local optima in which single moves leave the search.

Problem: which storages leave, and how, is decided by all of them together, and where a budget is tight one change makes
a plan slower before the next makes it faster. Mechanism: simulated annealing (Kirkpatrick, Gelatt & Vecchi, Science 220,
1983) whose state is the taste of a walk. One thing is changed at random: a decision is barred, another one forced, a
former change taken back, a price moved. The walk repairs the rest, so every state is a plan under the budget; one that
is slower by d is taken with probability exp(-d / temperature). It cools in stages, each from the fastest plan known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite, log
from random import Random
from typing import TYPE_CHECKING, final

from .finish import finishable
from .model import Ints
from .moves import Barred, bar, force, forget, weigh
from .prices import Taste
from .scored import Scored
from .settings import ANNEALED_OPS, ANNEALED_STEPS, ANNEALED_WALKS, STAGES, WALK_SECONDS_AN_OP, WORTH_MORE
from .trial import Trial

if TYPE_CHECKING:
    from .search import Search

_FACTORS = (0.25, 0.5, 2.0, 4.0)
_LANE_FACTORS = (0.5, 0.7, 1.4, 2.0)
_PATIENCE = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHARES = (0.0, 0.5, 1.0)
_HEADROOMS = (0.0, 0.01, 0.02, 0.05, 0.1)


def annealed(search: Search, found: Sequence[Scored], alone: Sequence[Scored] = ()) -> list[Scored]:
    """Plans that annealings reach, one from the fastest of these and one from the fastest of a single action.

    Empty without the effort, where the known plan adds little, where labels finish the step, and where walks are fewer
    than ops: they change too little of it. The two end in different places: where lanes are slow, what recomputation
    alone found is the better start, though no single move makes a swap of it pay at first.
    """
    known = min((scored.seconds for scored in found), default=inf)
    plain = search.model.profile.seconds
    if known <= plain * (1 + WORTH_MORE) or finishable(search) or not search.scorer.packed:
        return []
    walks = _walks(search, known - plain)
    if walks < len(search.model.graph.ops):
        return []
    mixing = [scored for scored in found if _mixes(scored, search)] or found
    fastest = (min(group, key=lambda scored: scored.seconds) for group in (mixing, alone) if group)
    starts = [taste for scored in fastest if (taste := _start(search, scored)) is not None]
    ends = (Annealing(search, taste, seed).run(walks) for seed, taste in enumerate(starts))
    return [end for end in ends if end is not None]


def _start(search: Search, scored: Scored) -> Taste | None:
    """What the plan's walk was told, with recomputation allowed where the search allows it."""
    if scored.taste is None:
        return None
    open_ = replace(scored.taste, recompute=search.recompute)
    return open_ if search.walk(open_) is not None else scored.taste


def _mixes(scored: Scored, search: Search) -> bool:
    """Its taste has a price for swaps, where the search allows them."""
    taste = scored.taste
    if taste is None or not search.swaps:
        return taste is not None
    return isfinite(taste.lane_price) or any(action == "swap" for *_, action in taste.forced)


def _walks(search: Search, added: float) -> int:
    """How many walks: no longer than the step's additional seconds are worth."""
    ops, settings = max(1, len(search.model.graph.ops)), search.model.settings
    worth = added * ANNEALED_STEPS / (WALK_SECONDS_AN_OP * ops)
    more = settings.effort - 1
    return int(min(more * ANNEALED_WALKS, more * ANNEALED_OPS / ops, worth))


@final
class Annealing:
    """One run over one step, the same in every process."""

    def __init__(self, search: Search, start: Taste, seed: int = 0) -> None:
        self._search, self._random, self._start = search, Random(seed), start
        self._plain = search.model.profile.seconds

    def run(self, walks: int) -> Scored | None:
        """The fastest plan, None where the start's walk fits no budget."""
        best, least = self._start, self._tried(self._start, inf)
        if least is None:
            return None
        for share, hot, cold in STAGES:
            taste, now = best, least
            count = int(walks * share)
            for k in range(count):
                changed = self._changed(taste, now.keys)
                if changed is None:
                    continue
                temperature = self._plain * hot * (cold / hot) ** (k / count)
                limit = now.seconds - temperature * log(1.0 - self._random.random())
                trial = self._tried(changed, limit)
                if trial is None:
                    continue
                taste, now = changed, trial
                if now.seconds < least.seconds:
                    best, least = taste, now
        return self._search.walk(best)

    def _tried(self, taste: Taste, below: float) -> Trial | None:
        search = self._search
        made = search.walker.walk(taste, search.walk_budget(taste))
        if made is None or self._plain + made.again_seconds >= below:
            return None
        return search.trials.of(made, below=below)

    def _changed(self, taste: Taste, keys: Sequence[Barred]) -> Taste | None:
        """A neighbour: of 100, 35 bar a decision, 25 force one, 15 take a change back, 25 move a price."""
        random, spans = self._random, self._search.open_spans
        way = random.random()
        if way < 0.35:
            return bar(random.choice(keys))(taste) if keys else None
        if way < 0.60:
            return force(random.choice(spans))(taste) if spans else None
        if way < 0.75:
            made = sorted(taste.forced | taste.barred)
            return forget(random.choice(made))(taste) if made else None
        if way < 0.90:
            return weigh(self._members(), random.choice(_FACTORS))(taste)
        return self._priced(taste)

    def _members(self) -> Ints | list[int]:
        """A class of storages, or a single one."""
        classes, spans = self._search.classes, self._search.open_spans
        if classes and self._random.random() < 0.5:
            return self._random.choice(classes)
        return [self._random.choice(spans)[0]] if spans else []

    def _priced(self, taste: Taste) -> Taste:
        """One price of the whole walk changes."""
        random, search = self._random, self._search
        ways = [*(("lane_price", "crowded", "headroom") if search.swaps else ()), "patience", "fit"]
        ways += ["share"] if search.recompute else []
        way = random.choice(ways)
        if way == "lane_price":
            price = taste.lane_price if isfinite(taste.lane_price) else 1.0
            return replace(taste, lane_price=price * random.choice(_LANE_FACTORS))
        if way == "crowded":
            return replace(taste, crowded=not taste.crowded)
        if way == "fit":
            return replace(taste, fit=not taste.fit)
        if way == "headroom":
            return replace(taste, headroom=self._other(_HEADROOMS, taste.headroom))
        if way == "patience":
            return replace(taste, patience=self._other(_PATIENCE, taste.patience))
        return replace(taste, share=self._other(_SHARES, taste.share))

    def _other(self, values: tuple[float, ...], now: float) -> float:
        return self._random.choice([value for value in values if value != now])
