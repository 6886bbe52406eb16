"""The words that the log, the controller, the tables and the machine share.

An `Action` is one normalised system call: what to do, with which primitive, on which registers. It never
holds a datum (C3.2): `slot` names a primitive and `operands` name registers of the current call, `p0, p1, …`
for pointers (the parameters first, then the copies in the order of their making) and `v0, v1, …` for values
(the parameters first, then what was read, computed or returned by a call, in that order). A `Row` is
everything that happens in one call: which observation came in, which action went out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "COPY",
    "NOTHING",
    "OBSERVATIONS",
    "RETURNS",
    "Action",
    "Row",
    "Step",
    "fold",
    "observation",
    "valued",
]

#: What the controller is told after an action: nothing, no, or yes.
OBSERVATIONS = ("nothing", "no", "yes")
NOTHING = 0
#: The slot of a write that moves a value unchanged. It computes nothing, so no network stands behind it.
COPY = "copy"
#: The ways to return, and what the caller observes. A returned value becomes a register of the caller.
RETURNS = {"return": 0, "return no": 1, "return yes": 2, "return value": 0}


class Action(NamedTuple):
    """One system call, as the controller emits it."""

    key: str
    operands: tuple[str, ...] = ()
    slot: str = ""

    def __str__(self) -> str:
        inner = ", ".join(self.operands)
        return f"{self.key} {self.slot}({inner})" if self.slot else f"{self.key}({inner})"


class Step(NamedTuple):
    """The observation that came in and the action that answered it."""

    seen: int
    action: Action


class Row(NamedTuple):
    """One call, from its first action to its return. Nested calls are single actions in it."""

    program: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        parts = [f"[{OBSERVATIONS[s.seen]}] {s.action}" if s.seen else str(s.action) for s in self.steps]
        return f"{self.program}: " + "; ".join(parts)


def observation(answer: bool | None) -> int:
    """The observation's index: nothing, no or yes."""
    return NOTHING if answer is None else 1 + bool(answer)


def valued(rows: Sequence[Row]) -> set[str]:
    """The programs that return a value."""
    found: set[str] = set()
    while True:
        before = len(found)
        for row in rows:
            key = row.steps[-1].action.key
            if key == "return value" or key.removeprefix("tail ") in found:
                found.add(row.program)
        if len(found) == before:
            return found


_TUPLED = {"read", "right", "left"}


def fold(steps: Sequence[Step], passes_on: bool = False) -> tuple[Step, ...]:
    """Normalise a call's log (claim 5) and mark its tail call.

    Neighbouring reads, and neighbouring moves in one direction, become one action on a tuple of pointers. A
    call whose answer is returned at once becomes a `tail` call, which the machine runs in the caller's frame.

    Args:
        steps: the log.
        passes_on: whether a value that is returned is the one that the last call returned.
    """
    out: list[Step] = []
    for step in steps:
        last = out[-1].action if out else None
        if last is not None and step.action.key in _TUPLED and last.key == step.action.key:
            out[-1] = Step(out[-1].seen, Action(last.key, last.operands + step.action.operands))
        else:
            out.append(step)
    called = len(out) > 1 and out[-2].action.key.startswith("call ")
    if called and (passes_on or _returns(out[-1]) == out[-1].seen):
        call = out[-2].action
        out[-2:] = [Step(out[-2].seen, call._replace(key="tail " + call.key.removeprefix("call ")))]
    return tuple(out)


def _returns(step: Step) -> int:
    return RETURNS.get(step.action.key, -1) if step.action.key != "return value" else -1
