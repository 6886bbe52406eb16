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
    "Places",
    "Row",
    "Step",
    "fold",
    "observation",
    "tail_calls",
    "tailed",
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

#: Places in programs: a program, and what was observed in it up to there.
Places = frozenset[tuple[str, tuple[int, ...]]]


def fold(steps: Sequence[Step], passes_on: bool = False) -> tuple[Step, ...]:
    """Normalise a call's log (claim 5).

    Neighbouring reads, and neighbouring moves in one direction, become one action on a tuple of pointers. A last call
    whose value, or whose end, is returned at once becomes a `tail` call, which the machine runs in the caller's frame. Of
    a call that answers yes or no, other ways through the program decide: see `tail_calls`.

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
    if called and (passes_on or (out[-1].action.key == "return" and out[-1].seen == NOTHING)):
        out[-2:] = [_tail(out[-2])]
    return tuple(out)


def _tail(step: Step) -> Step:
    call = step.action
    return Step(step.seen, call._replace(key="tail " + call.key.removeprefix("call ")))


def tail_calls(rows: Sequence[Row]) -> Places:
    """The calls after which every way through the program returns what the call answered."""
    found: dict[tuple[str, tuple[int, ...]], bool] = {}
    for row in rows:
        seen: tuple[int, ...] = ()
        for i, step in enumerate(row.steps):
            seen += (step.seen,)
            if step.action.key.startswith("call "):
                last = row.steps[i + 1]
                passes = RETURNS.get(last.action.key) == last.seen and last.action.key != "return value"
                found[row.program, seen] = found.get((row.program, seen), True) and passes
    return frozenset(place for place, passes in found.items() if passes)


def tailed(row: Row, places: Places) -> Row:
    """A row whose last call is a `tail` call if it stands at one of the places."""
    if len(row.steps) < 2 or (row.program, tuple(s.seen for s in row.steps[:-1])) not in places:
        return row
    return Row(row.program, (*row.steps[:-2], _tail(row.steps[-2])))
