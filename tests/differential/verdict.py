"""How a case is planned, and what a comparison with the eager run found."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import outsize

from .case import Case

#: Every subset of the actions, those with several more often.
ACTIONS = (
    ("swap",), ("recompute",), ("encode",), ("swap", "recompute"), ("swap", "encode"), ("recompute", "encode"),
    ("swap", "recompute", "encode"), ("swap", "recompute", "encode"),
)  # fmt: skip
#: Shares of the way from the smallest budget that is named to the plain peak.
SHARES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9)
LARGE = 2**40
#: Budgets taken from errors before a case counts as refused.
MOST_NAMED = 4
#: Share of the plans that ask for the observed door.
OBSERVED = 0.25
#: Errors that say that the product, not the user, did something wrong.
DEFECTS = (outsize.errors.PlanError, outsize.errors.RewriteError)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """How a case is planned: with which actions, how tight, by which planner, through which door; a captured one in a
    session of its own or a used one."""

    actions: tuple[str, ...]
    share: float
    planner: str = "search"
    fresh: bool = False
    door: str = "captured"

    def __str__(self) -> str:
        more = f"{', fresh' if self.fresh else ''}{', observed' if self.door == 'observed' else ''}"
        return f"{'+'.join(self.actions)} at {self.share:g} by {self.planner}{more}"


@dataclass(kw_only=True)
class Outcome:
    """What a comparison found.

    Attributes:
        verdict: equal, refused (an error that the user can act upon), said (other last bits, of a kind that a warning
            tells of), wrong (other bits), over (the budget), announced (over it with a warning, as by a loss that nobody
            has seen yet, or on a path that is new), or broken (an error that nobody should see).
        acted: kinds of decisions in the plan.
        detail: what differs, the error's message, the bytes.
        named: budgets that errors named one after the other before one worked.
    """

    verdict: str
    planned: Planned | None = None
    acted: tuple[str, ...] = ()
    detail: str = ""
    warned: list[str] = field(default_factory=list)
    named: list[int] = field(default_factory=list)

    @property
    def door(self) -> str:
        """Through which the step became known: the plain step in our executor is captured."""
        return "captured" if self.planned is None else self.planned.door


def plans_of(case: Case, number: int, fresh: float = 0.0, observed: float = OBSERVED) -> list[Planned]:
    """`number` plans of a case, its seed's own.

    Args:
        fresh: share of the captured ones that are made in sessions of their own, which takes longer.
        observed: share of those that ask for the observed door.
    """
    draw, doors, made = random.Random(case.seed + 17), random.Random(case.seed + 31), []
    for _ in range(number):
        actions = draw.choice(ACTIONS)
        planners = ["search"]
        if actions == ("swap",):
            planners = ["slack", "distance", "search"]
        elif "encode" not in actions:
            planners = ["units", "search"]
        share, planner, own = draw.choice(SHARES), draw.choice(planners), draw.random() < fresh
        door = "observed" if doors.random() < observed else "captured"
        made.append(
            Planned(
                actions=actions,
                share=share,
                planner=planner,
                fresh=own and door == "captured",
                door=door,
            )
        )
    return made


def judged(planned: Planned | None, run: Callable[[], None]) -> tuple[Outcome, list[Any], int]:
    """Train: what its error makes of it, the warnings, and the budget that an error has named."""
    outcome, named = Outcome(verdict="equal", planned=planned), 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            run()
        except DEFECTS as error:
            outcome.verdict, outcome.detail = "broken", f"{type(error).__name__}: {error}"
        except outsize.OutsizeError as error:
            outcome.verdict, outcome.detail = "refused", f"{type(error).__name__}: {error}"
            named = getattr(error, "smallest_feasible_bytes", 0)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome.verdict = "broken"
            outcome.detail = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    outcome.warned = [str(w.message) for w in warned]
    return outcome, warned, named
