"""Annealing over what passes are decisions_of: out of the local optima in which single moves leave the problem.

Problem: which storages leave, and how, is decided by all of them together, and where a budget is tight one change makes
a plan slower before the next makes it faster. Mechanism: simulated annealing (Kirkpatrick, Gelatt & Vecchi, Science 220,
1983) whose state is the policy of a pass. One thing is changed at random: a decision is barred, another one forced, a
former change taken back, a price moved. The pass repairs the rest, so every state is a plan under the budget; one that
is slower by d is taken with probability exp(-d / temperature). It cools in stages, each from the fastest plan known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite, log
from random import Random
from typing import final

from ..evict.policy import DecisionKey, Policy
from ..model import Ints
from ..settings import ANNEALED_OPS, ANNEALED_PASSES, ANNEALED_STEPS, PASS_SECONDS_AN_OP, STAGES, WORTH_MORE
from .finish import finishable
from .moves import bar, force, forget, release, retain, weigh
from .problem import Problem, Scored
from .trial import Trial

_FACTORS = (0.25, 0.5, 2.0, 4.0)
_LANE_FACTORS = (0.5, 0.7, 1.4, 2.0)
_PATIENCE = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHARES = (0.0, 0.5, 1.0)
_HEADROOMS = (0.0, 0.01, 0.02, 0.05, 0.1)


def annealed(problem: Problem, found: Sequence[Scored], alone: Sequence[Scored] = ()) -> list[Scored]:
    """Plans that annealings reach, one from the fastest of these and one from the fastest of a single action.

    Empty without the effort, where the known plan adds little, where labels finish the step, and where passes are fewer
    than ops: they change too little of it. The two end in different places: where lanes are slow, what recomputation
    alone found is the better start, though no single move makes a swap of it pay at first.
    """
    known = min((scored.seconds for scored in found), default=inf)
    plain = problem.plain_seconds
    if known <= plain * (1 + WORTH_MORE) or finishable(problem) or not problem.scorer.packed:
        return []
    passes = _passes(problem, known - plain)
    if passes < problem.ops:
        return []
    mixing = [scored for scored in found if _mixes(scored, problem)] or found
    fastest = (min(group, key=lambda scored: scored.seconds) for group in (mixing, alone) if group)
    starts = [policy for scored in fastest if (policy := _start(problem, scored)) is not None]
    ends = (Annealing(problem, policy, seed).run(passes) for seed, policy in enumerate(starts))
    return [end for end in ends if end is not None]


def _start(problem: Problem, scored: Scored) -> Policy | None:
    """The policy of the plan's pass, with recomputation allowed where the problem allows it."""
    if scored.policy is None:
        return None
    open_ = replace(scored.policy, recompute=problem.recompute)
    return open_ if problem.evict(open_) is not None else scored.policy


def _mixes(scored: Scored, problem: Problem) -> bool:
    """Its policy has a price for swaps, where the problem allows them."""
    policy = scored.policy
    if policy is None or not problem.swaps:
        return policy is not None
    return isfinite(policy.lane_price) or any(action == "swap" for *_, action in policy.forced)


def _passes(problem: Problem, added: float) -> int:
    """How many passes: no longer than the step's additional seconds are worth."""
    ops, settings = problem.ops, problem.model.settings
    worth = added * ANNEALED_STEPS / (PASS_SECONDS_AN_OP * ops)
    more = settings.effort - 1
    return int(min(more * ANNEALED_PASSES, more * ANNEALED_OPS / ops, worth))


@final
class Annealing:
    """One run over one step, the same in every process."""

    def __init__(self, problem: Problem, start: Policy, seed: int = 0) -> None:
        self._problem, self._random, self._start = problem, Random(seed), start
        self._plain = problem.plain_seconds

    def run(self, passes: int) -> Scored | None:
        """The fastest plan, None where the start's pass fits no budget."""
        best, least = self._start, self._tried(self._start, inf)
        if least is None:
            return None
        for share, hot, cold in STAGES:
            policy, now = best, least
            count = int(passes * share)
            for k in range(count):
                changed = self._changed(policy, now.keys)
                if changed is None:
                    continue
                temperature = self._plain * hot * (cold / hot) ** (k / count)
                limit = now.seconds - temperature * log(1.0 - self._random.random())
                trial = self._tried(changed, limit)
                if trial is None:
                    continue
                policy, now = changed, trial
                if now.seconds < least.seconds:
                    best, least = policy, now
        return self._problem.evict(best)

    def _tried(self, policy: Policy, below: float) -> Trial | None:
        problem = self._problem
        made = problem.evictor.run(policy, problem.pass_budget(policy))
        if made is None or self._plain + made.again_seconds >= below:
            return None
        return problem.trials.of(made, below=below)

    def _changed(self, policy: Policy, keys: Sequence[DecisionKey]) -> Policy | None:
        """A neighbour: of 100, 35 bar a decision, 25 force one, 15 take a change back, 5 retain, 20 move a price."""
        random, problem = self._random, self._problem
        way = random.random()
        if way < 0.35:
            return bar(random.choice(keys))(policy) if keys else None
        if way < 0.60:
            return force(random.choice(problem.open_spans))(policy) if problem.open_spans else None
        if way < 0.75:
            made = sorted(policy.forced | policy.barred)
            return forget(random.choice(made))(policy) if made else None
        if way < 0.80 and problem.recompute and problem.worth_retaining:
            one = random.choice(problem.worth_retaining)
            return (release if one in policy.retain else retain)((one,))(policy)
        if way < 0.90:
            return weigh(self._members(), random.choice(_FACTORS))(policy)
        return self._priced(policy)

    def _members(self) -> Ints | list[int]:
        """A class of storages, or a single one."""
        classes, spans = self._problem.classes, self._problem.open_spans
        if classes and self._random.random() < 0.5:
            return self._random.choice(classes)
        return [self._random.choice(spans)[0]] if spans else []

    def _priced(self, policy: Policy) -> Policy:
        """One price of the whole pass changes."""
        random, problem = self._random, self._problem
        ways = [*(("lane_price", "crowded", "headroom") if problem.swaps else ()), "patience", "fit"]
        ways += ["share"] if problem.recompute else []
        way = random.choice(ways)
        if way == "lane_price":
            price = policy.lane_price if isfinite(policy.lane_price) else 1.0
            return replace(policy, lane_price=price * random.choice(_LANE_FACTORS))
        if way == "crowded":
            return replace(policy, crowded=not policy.crowded)
        if way == "fit":
            return replace(policy, fit=not policy.fit)
        if way == "headroom":
            return replace(policy, headroom=self._other(_HEADROOMS, policy.headroom))
        if way == "patience":
            return replace(policy, patience=self._other(_PATIENCE, policy.patience))
        return replace(policy, share=self._other(_SHARES, policy.share))

    def _other(self, values: tuple[float, ...], now: float) -> float:
        return self._random.choice([value for value in values if value != now])
