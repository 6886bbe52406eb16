"""How often a module is captured again, and what to say of it: each capture takes a second or two of a step."""

from __future__ import annotations

import warnings
from typing import final

from ..capture import FailedGuard
from ..units import format_seconds

__all__ = ["Recaptures"]

#: Captures because of a Python value that are one too many: a flag has two values, and a counter never stops.
VALUES = 3
#: And because of shapes or modes: torch's own default for the shapes that one function may have.
SHAPES = 8


@final
class Recaptures:
    """Of one module; says once that it is captured too often, and once that it has been as often as it may."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values = self._shapes = 0
        self._said = False

    def captured(self, guards: tuple[FailedGuard, ...], seconds: float) -> None:
        """A call was captured because nothing captured before suited it; the newest of that failed first."""
        if not guards or self._said:
            return
        self._values += guards[0].value
        self._shapes += not guards[0].value
        if self._values >= VALUES or self._shapes >= SHAPES:
            self._said = True
            times = 1 + self._values + self._shapes
            said = (
                f"{self._name} was captured {times} times so far, {format_seconds(seconds)} the last time: "
            )
            warnings.warn(said + _why(guards[0]), RuntimeWarning, stacklevel=5)

    def beyond_limit(self, guards: tuple[FailedGuard, ...]) -> None:
        """Nothing captured suits a call, and no more is captured."""
        why = f" Lately, {_why(guards[0])}" if guards else ""
        warnings.warn(
            f"{self._name} has been captured as often as it may: a call that none of the captured steps suits runs "
            f"unplanned, as plain PyTorch, and its budget is only measured.{why}",
            RuntimeWarning,
            stacklevel=5,
        )


def _why(failed: FailedGuard) -> str:
    read = f", read at {failed.where}" if failed.where else ""
    if failed.value:
        return (
            f"the guard `{failed.guard}` failed{read}. A Python value that changes makes another step of each call. "
            "Keep a counter as a tensor (self.register_buffer('steps', torch.zeros(())), self.steps += 1), hand a number "
            "that changes over as a tensor, or keep it out of forward()"
        )
    return (
        f"the guard `{failed.guard}` failed{read}. Each shape, mode and hook makes another step, which is captured and "
        "planned by itself: pad the inputs to fewer sizes if there are many more to come"
    )
