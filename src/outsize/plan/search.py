"""Swap, recompute and encode in one plan: the default planner.

A walk (`walk`) turns prices into a plan that fits. Which prices are right depends on the step and the machine: how
much of a transfer hides, how far ahead it pays to look, how much of a chain is shared. So the search starts from the
cheap planners' plans and from walks over a grid of prices, each timed by the simulator, keeps the fastest, and then
moves the price of one class of storages at a time. A class is made by equal ops (same signature, same bytes), so
identical blocks are decided once and the search costs the same for 8 blocks as for 80.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

import numpy as np

from ..errors import BudgetError, PlanError
from ..values import Decision
from .chains import Chains, build_chains
from .check import check
from .deepen import deepened
from .exchange import Exchange, Judge
from .finish import finished
from .lower import lower_decisions
from .mixed import mixed
from .model import Floats, Ints, Model, Spans, cannot_shrink, floor_curve, held_at
from .moves import Barred, Move, all_moves, bar, force, kicks, storage_classes
from .options import Options
from .polish import polished
from .prices import Taste
from .repair import repaired
from .request import Request, tier_error
from .score import Scorer
from .scored import Scored, faster
from .settings import FEWEST_EXCHANGES, POLISHED, SHORT_CLIMB, TIGHTER_BUDGETS
from .slackplan import plan_slack
from .swaps import Ground, place
from .trial import Trials
from .walker import Walker


def plan_search(model: Model, request: Request) -> list[Decision]:
    """The fastest plan found.

    Raises:
        BudgetError: nothing fits, with the smallest budget that does.
    """
    return list(Search(model, request).planned().decisions)


@dataclass
class Search:
    """Candidates of one step under one budget."""

    model: Model
    request: Request
    left: int = 0
    refused_by_tier: int = 0
    # False for a part of another search, which decides what is worth a program or an annealing.
    leads: bool = True
    chains: Chains = field(init=False)
    classes: list[Ints] = field(init=False)
    walker: Walker = field(init=False)
    others: list[tuple[Search, Scored]] = field(init=False, default_factory=list)
    climbed: list[Scored] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.chains = build_chains(self.model)
        self.swaps = "swap" in self.request.actions and bool(self.request.tiers)
        self.tier = self.request.tier(self.model) if self.swaps else ""
        self.link = self.model.profile.links[self.tier] if self.swaps else None
        self.recompute = "recompute" in self.request.actions
        self.options = Options(self.model, self.request, self.tier)
        self.walker = Walker(self.chains, self.options.of, self.tier, self.model.settings.min_bytes)
        self.scorer = Scorer(self.model, self.tier)
        self.plain_weight = np.ones(len(self.model.graph.storages))
        self.floor = int(floor_curve(self.model).max(initial=0))
        self.target = max(self.model.target, self.floor)
        ops = len(self.model.graph.ops)
        settings = self.model.settings
        self.left = int(min(settings.walks, max(settings.walks / 25, settings.walked_ops / max(ops, 1))))
        self.classes = storage_classes(self.model)
        self.open_spans = self._open_spans()

    def _open_spans(self) -> list[Barred]:
        """What could be done to each storage in each of its idle spans, most bytes first."""
        order = np.argsort(-self.model.spans.nbytes, kind="stable").tolist()
        spans = [(int(self.model.spans.storage[k]), int(self.model.spans.after[k])) for k in order]
        codecs = bool(self.options.codecs)
        can = {
            "recompute": self.recompute,
            "swap": self.swaps,
            "encode": codecs,
            "encode_swap": codecs and self.swaps,
        }
        allowed = [action for action, possible in can.items() if possible]
        again = [self.chains.repeats[self.chains.producer[s]] for s, _ in spans]
        return [(s, t, a) for (s, t), r in zip(spans, again) for a in allowed if r or a != "recompute"]

    def planned(self) -> Scored:
        """The fastest plan found.

        Raises:
            BudgetError: nothing fits, with the smallest budget that does.
        """
        found = self.attempt() or self._at_smallest() or finished(self, None)
        if found is None:
            raise self.infeasible()
        ends = [self._exchanged(found), *(search._exchanged(single) for search, single in self.others)]
        best = min(ends, key=lambda scored: scored.seconds)
        return finished(self, best) or best

    def attempt(self) -> Scored | None:
        """The fastest plan before exchanges, None where nothing fits; never slower than one action alone would give."""
        self.others = self._alone()
        singles = [single for _, single in self.others]
        starts = self.starts() if self.floor <= self.model.budget else []
        if not starts and not singles and self.target < self.model.budget:  # better no margin than no plan
            self.target = self.model.budget
            starts = self.starts()
        if not starts and not singles and self.floor <= self.model.budget:
            starts = self._tighter()
        starts += [plan for single in singles for plan in mixed(self, single)]
        starts = sorted([*starts, *singles], key=lambda scored: scored.seconds)
        self.climbed = [*self._improved(starts), *starts]
        groups = ((self, self.climbed), *deepened(self))
        ends = [(search, search._best_of(group)) for search, group in groups if group]
        # exchanges may take the second further than the first
        ends.sort(key=lambda end: end[1].seconds)
        self.others += [e for e in ends if e[0] is not self or e[1].decisions != ends[0][1].decisions]
        return ends[0][1] if ends else None

    def _best_of(self, found: list[Scored]) -> Scored:
        """The fastest after last touches on the few that were fastest before."""
        found = sorted(found, key=lambda scored: scored.seconds)[:POLISHED]
        return min(map(self._polished, found), key=lambda scored: scored.seconds)

    def _improved(self, starts: list[Scored]) -> Iterator[Scored]:
        """A short and a long climb: they part early, and neither always ends higher."""
        for left in dict.fromkeys((max(1, self.left // SHORT_CLIMB), self.left)) if starts else ():
            self.left = left
            yield self.improve(starts)

    def _polished(self, best: Scored) -> Scored:
        """The plan with its edges moved and its idle decisions undone."""
        tries = self.model.settings.polished_ops // max(1, len(self.model.graph.ops))
        if best.seconds <= self.model.profile.seconds or tries < self.model.settings.polish_tries:
            return best
        found = polished(best.decisions, best.seconds, self.seconds, self._valid_move, tries=tries)
        return replace(best, seconds=found[0], decisions=found[1])

    def _exchanged(self, best: Scored) -> Scored:
        """The plan after exchanges of its decisions for others, and its last touches again."""
        settings = self.model.settings
        tries = settings.exchanged_ops // max(1, len(self.model.graph.ops))
        if best.seconds <= self.model.profile.seconds or tries < FEWEST_EXCHANGES:
            return best
        spans = self.model.spans
        order = np.argsort(-spans.nbytes, kind="stable")
        listed = zip(spans.storage[order].tolist(), spans.after[order].tolist(), spans.before[order].tolist())
        exchange = Exchange(
            self.chains, self.options, (s for s in listed if s[2] > s[1] + 1), tier=self.tier,
            link=self.link, recompute=self.recompute,
        )  # fmt: skip
        judge = Judge(seconds=self.seconds, valid=self.valid)
        found = exchange.improved(best.decisions, judge, tries=tries)
        if found == best.decisions:
            return best
        return self._polished(replace(best, decisions=found, seconds=self.seconds(found)))

    def seconds(self, decisions: tuple[Decision, ...]) -> float:
        scored = self._score(decisions)
        return scored.seconds if scored else inf

    def valid(self, decisions: tuple[Decision, ...]) -> bool:
        graph, profile = self.model.graph, self.model.profile
        try:
            check(graph, profile, lower_decisions(graph, decisions), self.model.budget)
        except PlanError:
            return False
        return True

    def _valid_move(self, decisions: tuple[Decision, ...], moved: int) -> bool:
        """`valid`, asked only where a region reads the storage whose edges moved."""
        reads = self.chains.inputs
        return not any(moved in reads[op] for d in decisions for op in d.region) or self.valid(decisions)

    def _alone(self) -> list[tuple[Search, Scored]]:
        """The same search for each of several allowed actions alone, with what it found."""
        if len(self.request.actions) < 2:
            return []
        searches = [
            Search(self.model, replace(self.request, actions=(action,)), leads=False)
            for action in self.request.actions
            if action != "swap" or self.swaps
        ]
        return [(search, found) for search in searches if (found := search.attempt()) is not None]

    def _tighter(self) -> list[Scored]:
        """Walks under smaller budgets: a greedy walk can fail where one that must be more careful gets through."""
        room = self.model.budget - self.floor
        for part in range(1, TIGHTER_BUDGETS + 1):
            self.target = self.model.budget - room * part // TIGHTER_BUDGETS
            if starts := self.starts():
                return starts
        return []

    def starts(self) -> list[Scored]:
        """The best walk of each kind (mixed, no swaps, no recomputation) and the slack planner's plan, best first."""
        kinds: dict[tuple[bool, bool], Scored] = {}
        for taste in self.grid():
            kind = (taste.recompute, bool(np.isfinite(taste.lane_price)))
            known = kinds.get(kind)
            best = faster(known, self.walk(taste, below=known.seconds if known else inf))
            if best is not None:
                kinds[kind] = best
        found = list(kinds.values())
        if self.swaps and self.recompute and (mixing := repaired(self)):
            found.append(mixing)
        if self.swaps:
            cheap = self._score(tuple(plan_slack(self.model.with_target(self.target), self.tier)))
            found += [cheap] if cheap else []
        return sorted(found, key=lambda scored: scored.seconds)

    def grid(self) -> Iterator[Taste]:
        """Few prices, far apart: what hides well, what hides badly, no swaps, no recomputation."""
        lane_prices = (0.05, 0.3, 1.0, inf) if self.swaps else (inf,)
        for recompute in (True, False) if self.recompute else (False,):
            for lane_price in lane_prices if recompute or self.options.codecs else lane_prices[:3:2]:
                for patience, crowded in ((0.5, True), (0.0, False)):
                    yield Taste(
                        lane_price=lane_price,
                        patience=patience,
                        crowded=crowded,
                        recompute=recompute,
                        weight=self.plain_weight,
                    )

    def walk(self, taste: Taste, *, below: float = inf) -> Scored | None:
        """Walk with these prices, place the swaps, simulate; None too where compute alone takes `below` seconds."""
        made = self.walker.walk(taste, self.walk_budget(taste))
        if made is None or self.model.profile.seconds + made.again_seconds >= below:
            return None
        scored = self.timed(made.decisions())
        return replace(scored, taste=taste) if scored else None

    def walk_budget(self, taste: Taste) -> int:
        """The budget of a walk."""
        free = max(0, self.target - self.model.graph.resident_bytes)
        return max(self.floor, self.target - int(taste.headroom * free))

    @cached_property
    def trials(self) -> Trials:
        """Plans of walks without an object for each decision."""
        return Trials(
            self.chains, self.walker, self.scorer, self.link, ground=self._ground, fits=self._fits,
        )  # fmt: skip

    def timed(self, decisions: tuple[Decision, ...]) -> Scored | None:
        """The plan with its swaps' edges placed, if it fits."""
        return self._score(self._placed(decisions))

    def _score(self, decisions: tuple[Decision, ...]) -> Scored | None:
        seconds, peak, held = self.scorer.score(decisions)
        return Scored(seconds=seconds, decisions=decisions) if self._fits(peak, held) else None

    def _fits(self, peak: int, held: int) -> bool:
        """Under the budget, and under the tier's."""
        if peak > self.model.budget:
            return False
        if self.tier in self.request.limits and held > self.request.limits[self.tier]:
            self.refused_by_tier = min(self.refused_by_tier or held, held)
            return False
        return True

    def _placed(self, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
        """Give each swap its edges: the walk has it away for the whole span."""
        moved = [d for d in decisions if d.action in ("swap", "encode_swap")]
        if not moved or self.link is None:
            return decisions
        _, curve, seconds = self.scorer.ground(decisions)
        sizes = [d.encoded_bytes or self.chains.size[d.storage] for d in moved]
        spans = Spans(
            storage=np.array([d.storage for d in moved], dtype=np.int64),
            after=np.array([d.after for d in moved], dtype=np.int64),
            before=np.array([d.before for d in moved], dtype=np.int64),
            nbytes=np.array(sizes, dtype=np.int64),
            slack=np.zeros(len(moved)),
        )
        timing = place(self._ground(curve, seconds), spans, self.link)
        timed = []
        for d, free, fetch in zip(moved, timing.free.tolist(), timing.fetch.tolist()):
            if free < fetch or d.action == "encode_swap":
                timed.append(replace(d, free_before=free, fetch_before=fetch))
        return tuple(d for d in decisions if d.action not in ("swap", "encode_swap")) + tuple(timed)

    def _ground(self, curve: Ints, seconds: Floats) -> Ground:
        return Ground(
            seconds=seconds,
            room=np.maximum(self.target - curve, 0),
            lead=self.model.settings.lead,
            mutated=self.options.mutated,
        )

    def improve(self, starts: list[Scored]) -> Scored:
        """Climb from the best starts, most walks to the first; spend what is left on kicks from the best."""
        found = [starts[0]]
        moves = all_moves(self.classes, swaps=self.swaps)
        for rank, start in enumerate(starts[:3]):
            allowed = self.left // 2 if rank < 2 and len(starts) > rank + 1 else self.left
            self.left -= allowed
            best, spare = self._climb(start, moves, allowed)
            self.left += spare
            found.append(best)
        best = self.without(min(found, key=lambda scored: scored.seconds))
        for kick in kicks(self.classes, len(self.plain_weight)):
            if self.left <= 0 or best.taste is None or best.seconds <= self.model.profile.seconds:
                return best
            self.left -= 1
            better = self._tried(best, kick)
            best = self.without(better) if better else best
        return best

    def without(self, best: Scored) -> Scored:
        """Decision by decision: bar one, dearest first, or force one that was not made; what comes out faster stays."""
        refused: set[Barred] = set()
        while self.left > 0 and best.seconds > self.model.profile.seconds:
            made = sorted(best.decisions, key=lambda d: (-d.seconds, d.after, d.storage))
            keys = [(d.storage, d.after, d.action) for d in made]
            others = [k for k in self.open_spans if k not in set(keys)]
            key = next((k for k in (*keys, *others) if k not in refused), None)
            if key is None:
                return best
            self.left -= 1
            refused.add(key)
            better = self._tried(best, bar(key) if key in keys else force(key))
            if better is not None:
                best, refused = better, set()
        return best

    def _climb(self, best: Scored, moves: list[Move], left: int) -> tuple[Scored, int]:
        """First improvement, round and round, until a whole round brings nothing; and the walks not used."""
        idle = at = 0
        while left > 0 and idle < len(moves) and best.seconds > self.model.profile.seconds:
            better = self._tried(best, moves[at % len(moves)])
            idle = 0 if better else idle + 1
            best = better or best
            at += 1
            left -= 1
        return best, left

    def _tried(self, best: Scored, move: Move) -> Scored | None:
        taste = move(best.taste) if best.taste is not None else None
        trial = self.walk(taste, below=best.seconds) if taste is not None else None
        return trial if trial is not None and trial.seconds < best.seconds * (1 - 1e-9) else None

    def _at_smallest(self) -> Scored | None:
        """A greedy walk may fail under a budget and get through a smaller one; swaps have no such gaps."""
        if self.swaps or self.refused_by_tier or self._smallest > self.model.budget:
            return None
        self.target = self._smallest
        starts = self.starts()
        return self._polished(starts[0]) if starts else None

    @cached_property
    def _smallest(self) -> int:
        """The smallest budget at which a walk was seen to get through, to 0.1 %."""
        low, high, tastes = self.floor, self.model.peak, list(self.grid())
        while high - low > max(1, high // 1000):
            middle = (low + high) // 2
            if any(self._gets_through(taste, middle) for taste in tastes):
                high = middle
            else:
                low = middle
        return high

    def _gets_through(self, taste: Taste, budget: int) -> bool:
        made = self.walker.walk(taste, budget)
        return made is not None and self.scorer.score(made.decisions())[1] <= budget

    def infeasible(self) -> BudgetError:
        """With swaps the position that proves it; else the smallest budget at which a walk gets through."""
        if self.refused_by_tier:
            return tier_error(self.tier, self.request.limits[self.tier], self.refused_by_tier)
        if self.swaps:
            return cannot_shrink(self.model, floor_curve(self.model), tools="any plan")
        position = int(np.argmax(self.model.curve))
        return BudgetError(
            f"a budget of {self.model.budget} bytes is below {self._smallest} bytes, the smallest that a plan by "
            f"{', '.join(self.request.actions)} was found for",
            smallest_feasible_bytes=self._smallest,
            dominating=held_at(self.model.graph, position)[:5],
        )
