"""How far the search's plan of a small step is from the optimum: `labels`, asked for ever more.

The time that a plan may take is raised from a known bound in growing steps. With little time few labels survive, so
the optimum is found, and what is below it refused, before the many labels of a generous limit are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from time import perf_counter

from ...values import Decision
from ..labels.decisions import decisions_of
from ..labels.solve import Labels
from .problem import Problem

#: First step above the bound, doubled while no plan is found.
_STEP = 0.002


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """What is known of the fastest plan.

    Attributes:
        seconds: of the best plan known, infinite where none is.
        bound: no plan is faster.
        decisions: the plan where it is faster than the one that was known.
    """

    seconds: float
    bound: float
    decisions: tuple[Decision, ...] | None = None


def optimum(problem: Problem, *, known: float, bound: float, seconds: float, most: int = 20_000) -> Optimum:
    """The fastest plan by swap and recompute.

    Args:
        known: seconds of a plan that fits, infinite where none is known.
        bound: no plan is faster than this.
        seconds: time limit.
        most: labels kept at a position.
    """
    end, low = perf_counter() + seconds, max(bound, problem.plain_seconds)
    link = problem.link
    labels = Labels(problem.model, problem.chains, link, recompute=problem.recompute)
    step, best = _STEP, Optimum(seconds=known, bound=low)
    while best.bound < best.seconds * (1 - 1e-9) and perf_counter() < end:
        below = min(best.seconds, low * (1 + step))
        found = labels.solve(below=below, seconds=end - perf_counter(), most=most)
        low = max(low, min(found.bound, below))
        best = Optimum(seconds=best.seconds, bound=low, decisions=best.decisions)
        if found.events:
            decisions = decisions_of(found.events, problem.chains, link, problem.tier)
            taken = problem.seconds(decisions) if problem.valid(decisions) else inf
            if taken < best.seconds:
                best = Optimum(seconds=taken, bound=min(low, taken), decisions=decisions)
            else:
                break  # the schedule is none that decisions can spell
        step = min(2 * step, 0.5) if below < inf else step
    return best
