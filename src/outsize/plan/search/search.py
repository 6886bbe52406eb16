"""The default planner: swap, recompute and encode in one plan, found by several strategies one after the other.

Problem: what leaves the device, when and how depends on all storages together, and steps have thousands. Mechanism: an
eviction pass (`evict/`) turns a policy, which is little more than a price for each class of storages, into a plan that
fits. Strategies look for the policy, then for changes to the plan itself; each plan is timed by the simulator's figures
and the fastest stays. In order:

1. each allowed action alone, by the steps 2 to 4, so that all together are never slower than one of them;
2. starts: a coarse grid of policies, and the slack planner's plan (`starts`); with what swaps do for the plans of single
   actions (`mixed`);
3. hill climbing over policies (`climb`);
4. last touches on the few fastest: transfers' edges moved, decisions undone (`polish`);
5. where the plan still adds enough: plans along the relaxation over a few cuts (`relaxation`), annealing (`anneal`);
6. exchanges of decisions for others (`exchange`) in the best of each;
7. labels, on steps small enough for them (`finish`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from ...values import Decision
from ..model import Model
from ..settings import NEAR, POLISHED
from .anneal import annealed
from .climb import improved
from .exchange import exchanged
from .finish import finished
from .mixed import mixed
from .polish import polished
from .problem import Problem, Scored
from .relaxation import along_relaxation
from .retention import retaining
from .smallest import at_smallest, infeasible
from .starts import starts, starts_somehow


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What steps 2 to 4 found for one set of actions.

    Attributes:
        plans: before last touches.
        best: the fastest after them.
    """

    problem: Problem
    plans: tuple[Scored, ...]
    best: Scored


def plan_search(model: Model) -> list[Decision]:
    """The fastest plan found.

    Raises:
        BudgetError: nothing fits, with the smallest budget that does.
    """
    return list(fastest(Problem.of(model)).decisions)


def fastest(problem: Problem) -> Scored:
    """The fastest plan found: the strategies in order.

    Raises:
        BudgetError: nothing fits, with the smallest budget that does.
    """
    alone = [found for one in problem.alone() if (found := explored(one)) is not None]
    together = explored(problem, alone)
    if together is None:
        only = at_smallest(problem) or finished(problem, None)
        if only is None:
            raise infeasible(problem)
        only = exchanged(problem, only)
        return finished(problem, only) or only
    ends = [(together.problem, together.best)]
    ends += [(one, _touched(one, plans)) for one, plans in deepened(together, alone) if plans]
    ends += [(one.problem, one.best) for one in alone]
    best = min((exchanged(one, plan) for one, plan in ends), key=lambda plan: plan.seconds)
    return finished(together.problem, best) or best


def explored(problem: Problem, alone: Sequence[Explored] = ()) -> Explored | None:
    """Starts, climbs and last touches; None where nothing fits."""
    aimed, found = (problem, starts(problem)) if alone else starts_somehow(problem)
    found += [plan for one in alone for plan in mixed(aimed, one.best)]
    found += [one.best for one in alone]
    found = sorted([*found, *retaining(aimed, found)], key=lambda plan: plan.seconds)
    if not found:
        return None
    without = [plan for plan in found if plan.policy is None or not plan.policy.retain]
    others = (
        improved(aimed, without) if len(without) < len(found) else ()
    )  # a faster start may climb less far
    plans = (*improved(aimed, found), *others, *found)
    return Explored(problem=aimed, plans=plans, best=_touched(aimed, plans))


def deepened(together: Explored, alone: Sequence[Explored]) -> Iterator[tuple[Problem, list[Scored]]]:
    """Plans along the relaxation and by annealing: of all actions, and of each that alone is about as fast.

    What a single action gets here it gets when it is asked for alone, so that all together are not slower, unless one
    that is slower by more than `NEAR` gains more than that.
    """
    known = inf
    for one in (together, *alone):
        climbed = min(plan.seconds for plan in one.plans)
        if climbed > known * (1 + NEAR):
            continue
        along = along_relaxation(one.problem, known=climbed)
        yield one.problem, along
        single = [other.best for other in alone] if one is together else []
        found = annealed(one.problem, [*one.plans, *along], single)
        yield one.problem, found
        known = min(known, climbed, *(plan.seconds for plan in (*along, *found)))


def _touched(problem: Problem, found: Sequence[Scored]) -> Scored:
    """The fastest after last touches on the few that were fastest before."""
    few = sorted(found, key=lambda plan: plan.seconds)[:POLISHED]
    return min((polished(problem, plan) for plan in few), key=lambda plan: plan.seconds)
