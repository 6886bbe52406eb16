"""One step under one budget: the frozen problem that every strategy of the search asks.

A strategy brings policies or decisions; the problem says what they cost. `evict` runs an eviction pass under a policy,
places the transfers and times the plan; `placed` and `scored` start later in that line. Nothing here changes while a
search runs: a strategy that wants another target works on `with_target`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any, final

import numpy as np

from ...errors import PlanError
from ...values import Decision, LinkRate
from ...values.actions import ACTIONS, ENCODING, REMAKING, TRAVELLING, allowed
from ..chains import Chains, build_chains
from ..evict.options import Options
from ..evict.passes import Evictor
from ..evict.policy import DecisionKey, Policy
from ..model import Floats, Ints, Model, Spans, floor_curve
from ..request import Request
from ..schedule.check import check
from ..schedule.lower import lower_decisions
from ..schedule.score import Scorer
from ..settings import RETAINED_GAIN
from ..swaps.placement import Ground, place
from .moves import storage_classes
from .trial import Trials

Decisions = tuple[Decision, ...]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A plan that fits, with what it costs, and the policy of the pass that made it where there was one."""

    seconds: float
    decisions: Decisions
    policy: Policy | None = None


def faster(best: Scored | None, other: Scored | None) -> Scored | None:
    """The faster of two plans, the first where they are level."""
    if best is None or (other is not None and other.seconds < best.seconds * (1 - 1e-9)):
        return other
    return best


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One step under one budget, with the actions that are allowed.

    Attributes:
        model: the step, and what is asked.
        chains, options: what it takes to make each storage again, and the other ways to take it away.
        evictor, scorer: eviction passes over the step, and what plans of it cost.
        classes: storages that equal ops make, see `storage_classes`.
        open_spans: what could be done to each storage in each of its idle spans, most bytes first.
        tier, link: where swaps go; "" and None without.
        floor: bytes below which no plan that swaps can go.
        target: bytes that eviction passes aim for.
    """

    model: Model
    chains: Chains
    options: Options
    evictor: Evictor
    scorer: Scorer
    classes: list[Ints]
    open_spans: list[DecisionKey]
    tier: str
    link: LinkRate | None
    floor: int
    target: int

    @classmethod
    def of(cls, model: Model) -> Problem:
        """The problem of a model's request.

        Raises:
            PlanError: swaps are allowed, and their tier has no rate.
        """
        request = model.request
        swaps = "swap" in request.actions and bool(request.tiers)
        tier = request.tier(model.profile.links) if swaps else ""
        chains, options = build_chains(model), Options(model, tier)
        floor = int(floor_curve(model).max(initial=0))
        return cls(
            model=model,
            chains=chains,
            options=options,
            evictor=Evictor(chains, options.of, tier, model.settings.min_bytes),
            scorer=Scorer(model, tier),
            classes=storage_classes(model),
            open_spans=list(_open_spans(model, chains, options)),
            tier=tier,
            link=model.profile.links[tier] if swaps else None,
            floor=floor,
            target=max(model.target, floor),
        )

    def with_target(self, target: int) -> Problem:
        """The same problem, its passes aiming for another peak."""
        return replace(self, target=target)

    def alone(self) -> list[Problem]:
        """The same problem with each of several allowed actions alone."""
        actions = self.request.actions
        wanted = [a for a in actions if a != "swap" or self.swaps] if len(actions) > 1 else []
        return [self.asking(actions=(action,)) for action in wanted]

    def asking(self, **changed: Any) -> Problem:
        """The problem of the same step with another request: some of its fields changed."""
        return Problem.of(replace(self.model, request=replace(self.request, **changed)))

    @property
    def request(self) -> Request:
        return self.model.request

    @property
    def swaps(self) -> bool:
        return self.link is not None

    @property
    def recompute(self) -> bool:
        return "recompute" in self.request.actions

    @property
    def plain_seconds(self) -> float:
        """Of the step without a plan."""
        return self.model.profile.seconds

    @property
    def ops(self) -> int:
        """How many, at least 1."""
        return max(1, len(self.model.graph.ops))

    @cached_property
    def moves(self) -> int:
        """Local moves that the step's size allows."""
        settings = self.model.settings
        return int(min(settings.moves, max(settings.moves / 25, settings.move_ops / self.ops)))

    @cached_property
    def uniform(self) -> Floats:
        """The same weight for each storage."""
        return np.ones(len(self.model.graph.storages))

    @cached_property
    def trials(self) -> Trials:
        """Plans of passes without an object for each decision."""
        return Trials(
            self.chains, self.evictor, self.scorer, self.link, ground=self._ground, fits=self.fits,
        )  # fmt: skip

    @cached_property
    def retainable(self) -> list[int]:
        """Storages of which something can be made after their last use."""
        chains = self.chains
        made = (s for op in chains.outputs for s in op)
        return sorted(s for s in made if chains.reach[s] > chains.last[s])

    @cached_property
    def worth_retaining(self) -> list[int]:
        """Of these, those that lead to more bytes than their own: where not, what they lead to may stay instead."""
        chains = self.chains
        found = []
        for s in self.retainable:
            made = sum(
                chains.size[w] for op in chains.uses[s] if chains.repeats[op] for w in chains.outputs[op]
            )
            if made > RETAINED_GAIN * chains.size[s]:
                found.append(s)
        return found

    @cached_property
    def free_to_retain(self) -> frozenset[int]:
        """Of these, those too small to matter to any budget."""
        return frozenset(s for s in self.retainable if self.chains.size[s] < self.model.settings.min_bytes)

    # What plans cost.

    def evict(self, policy: Policy, *, below: float = inf) -> Scored | None:
        """The plan of a pass under a policy; None where there is none, or compute alone takes `below` seconds."""
        made = self.evictor.run(policy, self.pass_budget(policy))
        if made is None or self.plain_seconds + made.again_seconds >= below:
            return None
        found = self.placed(made.decisions())
        return replace(found, policy=policy) if found else None

    def pass_budget(self, policy: Policy) -> int:
        """Bytes of a pass: the target, less what the policy leaves free for transfers."""
        free = max(0, self.target - self.model.graph.resident_bytes)
        return max(self.floor, self.target - int(policy.headroom * free))

    def placed(self, decisions: Decisions) -> Scored | None:
        """The plan with its swaps' edges placed, if it fits: a pass has them away for the whole span."""
        moved = [d for d in decisions if d.action in TRAVELLING]
        if not moved or self.link is None:
            return self.scored(decisions)
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
        timed = tuple(
            replace(d, free_before=free, fetch_before=fetch)
            for d, free, fetch in zip(moved, timing.free.tolist(), timing.fetch.tolist())
            if free < fetch or d.action in ENCODING
        )
        return self.scored(tuple(d for d in decisions if d.action not in TRAVELLING) + timed)

    def scored(self, decisions: Decisions) -> Scored | None:
        """The plan as it stands, if it fits."""
        seconds, peak, held = self.scorer.score(decisions)
        return Scored(seconds=seconds, decisions=decisions) if self.fits(peak, held) else None

    def seconds(self, decisions: Decisions) -> float:
        """Of the plan as it stands, infinite where it does not fit."""
        found = self.scored(decisions)
        return found.seconds if found else inf

    def fits(self, peak: int, held: int) -> bool:
        """Under the budget, and what the tier holds under the tier's."""
        return peak <= self.model.budget and held <= self.request.limits.get(self.tier, held)

    def valid(self, decisions: Decisions) -> bool:
        """Every op finds the bytes that it reads."""
        graph, profile = self.model.graph, self.model.profile
        try:
            check(graph, profile, lower_decisions(graph, decisions), self.model.budget)
        except PlanError:
            return False
        return True

    def valid_move(self, decisions: Decisions, moved: int) -> bool:
        """`valid`, asked only where a region reads the storage whose edges moved."""
        reads = self.chains.inputs
        return not any(moved in reads[op] for d in decisions for op in d.region) or self.valid(decisions)

    def _ground(self, curve: Ints, seconds: Floats) -> Ground:
        return Ground(
            seconds=seconds,
            room=np.maximum(self.target - curve, 0),
            lead=self.model.settings.lead,
            mutated=self.options.mutated,
        )


def _open_spans(model: Model, chains: Chains, options: Options) -> Iterator[DecisionKey]:
    request = model.request
    order = np.argsort(-model.spans.nbytes, kind="stable")
    swaps = "swap" in request.actions and bool(request.tiers)
    can = allowed(request.actions)
    tried = [
        action
        for action in sorted(ACTIONS, key=lambda name: name not in REMAKING)  # recomputation first
        if action in can
        and (swaps or action not in TRAVELLING)
        and (options.codecs or action not in ENCODING)
    ]
    for s, touch in zip(model.spans.storage[order].tolist(), model.spans.after[order].tolist()):
        again = chains.repeats[chains.producer[s]]
        yield from ((s, touch, action) for action in tried if again or action not in REMAKING)
