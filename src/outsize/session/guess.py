"""The first plan of a step, whose loss outside the module nobody has seen yet."""

from __future__ import annotations

from dataclasses import replace

from ..errors import BudgetError
from ..fx import CapturedStep
from ..prepared import Learned, Prepare, Prepared, guessed_outside
from .state import Track

__all__ = ["prepare_first"]

#: Shares of the guess for a loss not seen yet that are tried where the whole of it does not fit.
SMALLER_GUESSES = (2 / 3, 1 / 3, 0.0)


def prepare_first(
    prepare: Prepare, step: CapturedStep, learned: Learned, track: Track, budget_bytes: int
) -> Prepared:
    """With what is known; where only the guess of what the loss takes does not fit, with a smaller one."""
    try:
        return prepare(step, learned)
    except BudgetError as error:
        if type(error) is not BudgetError or track.outside is not None:
            raise
        whole = guessed_outside(step, learned.absent) if learned.outside is None else learned.outside
        for guess in (int(share * whole) for share in SMALLER_GUESSES):
            if error.smallest_feasible_bytes - (whole - guess) > budget_bytes:
                continue  # no position needs less by more than that
            try:
                prepared = prepare(step, replace(learned, outside=guess))
            except BudgetError:
                continue
            track.tight = True
            return prepared
        raise
