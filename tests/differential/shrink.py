"""The smallest case that still fails in the same way."""

from __future__ import annotations

import torch

from .case import Case, cuts
from .trial import Trial
from .verdict import Outcome, Planned


def failing(case: Case, plans: list[Planned], verdict: str) -> Outcome | None:
    """The first outcome of that verdict among a case's plans, the plain step in our executor first."""
    torch._dynamo.reset()  # what was compiled before would slow the collections of garbage
    trial = Trial(case)
    if trial.invalid:
        return None
    return next((o for o in trial.outcomes(plans) if o.verdict == verdict), None)


def shrunk(case: Case, plans: list[Planned], verdict: str) -> tuple[Case, Outcome | None]:
    """Leave out what is not needed for an outcome of that verdict, as long as something can be."""
    found = failing(case, plans, verdict)
    changed = found is not None
    while changed:
        changed = False
        for cut in cuts(case):
            other = cut(case)
            if other == case or (outcome := failing(other, plans, verdict)) is None:
                continue
            case, found, changed = other, outcome, True
            plans = [outcome.planned] if outcome.planned is not None else []
    return case, found
