"""Whether every decision of an automaton can be carried out: looked at once, before anything runs.

A controller that was never trained, or whose weights were changed, may ask for a register that its call does not have or
pass a primitive too few values. A call starts with the pointers it was given and no value, so what each decision may name
follows from the automaton alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import NpiError
from .calls import COPY, Action
from .tables import Tables

__all__ = ["POINTERS", "Registers", "check_decisions"]

_REGISTER = re.compile("[pv][0-9]{1,4}", re.ASCII)
#: Pointers of an action, by its key; None for one or more.
POINTERS = {"read": None, "right": None, "left": None, "at end": 1, "at start": 1, "before": 2, "meets": 2, "goto": 2,
             "copy": 1, "middle": 2, "seek": 1, "write": 1, "test": 0, "compute": 0, "return": 0, "return no": 0,
             "return yes": 0, "return value": 0}  # fmt: skip


@dataclass(frozen=True)
class Registers:
    """The most registers that any call uses."""

    pointers: int
    values: int


def check_decisions(tables: Tables, pointers: int, slots: Mapping[str, int]) -> Registers:
    """Walk the automaton of every program over all answers.

    Args:
        tables: the automaton.
        pointers: how many the entry takes.
        slots: inputs of each primitive.

    Returns:
        The registers that its calls need.

    Raises:
        NpiError: a decision that cannot be carried out, by program and action.
    """
    slots = {**slots, COPY: 1}
    takes, valued = {tables.programs[0]: (pointers, 0)}, returning(tables)
    for action in tables.actions:
        verb, _, called = action.key.partition(" ")
        given = sum(o[:1] == "p" for o in action.operands)
        passed = (given, len(action.operands) - given)
        if verb in ("call", "tail") and takes.setdefault(called, passed) != passed:
            _refuse(
                called, action, f"{called} takes {takes[called][0]} pointers and {takes[called][1]} values"
            )
    most, values = pointers, 0
    for name, start in zip(tables.programs, tables.start):
        stack, met = [(int(start), *takes.get(name, (0, 0)))], set()
        while stack:
            state, p, v = place = stack.pop()
            if state < 0 or place in met or name not in takes:
                continue
            met.add(place)
            action = tables.actions[tables.act[state]]
            _check(name, action, p, v, slots)
            p += action.key in ("copy", "middle")
            verb, _, called = action.key.partition(" ")
            v += len(action.operands) if action.key == "read" else 0
            v += action.key == "compute" or (verb == "call" and called in valued)
            most, values = max(most, p), max(values, v)
            stack += [(int(n), p, v) for n in tables.follow[state]]
    return Registers(most, values)


def returning(tables: Tables) -> set[str]:
    """The programs that return a value.

    Raises:
        NpiError: one that does so on some paths only.
    """
    kinds: dict[str, set[bool]] = {name: set() for name in tables.programs}
    while True:
        before = {name: set(found) for name, found in kinds.items()}
        for name, start in zip(tables.programs, tables.start):
            stack, met = [int(start)], set()
            while stack:
                state = stack.pop()
                if state < 0 or state in met:
                    continue
                met.add(state)
                action = tables.actions[tables.act[state]]
                verb, _, called = action.key.partition(" ")
                if verb == "return":
                    kinds[name].add(called == "value")
                if verb == "tail":
                    kinds[name] |= kinds.get(called, set())
                stack += tables.follow[state].tolist()
            if len(kinds[name]) > 1:
                _refuse(name, Action("return value"), "other paths return none")
        if kinds == before:
            return {name for name, found in kinds.items() if True in found}


def _check(program: str, action: Action, pointers: int, values: int, slots: Mapping[str, int]) -> None:
    if strange := [o for o in action.operands if not _REGISTER.fullmatch(o)]:
        _refuse(program, action, f"{strange[0]!r} is no register")
    named = [o for o in action.operands if o[0] == "p"], [o for o in action.operands if o[0] == "v"]
    if any(int(o[1:]) >= pointers for o in named[0]) or any(int(o[1:]) >= values for o in named[1]):
        _refuse(program, action, f"there are {pointers} pointers and {values} values read")
    verb = action.key.partition(" ")[0]
    calls = verb in ("call", "tail")
    wanted = len(named[0]) if calls else POINTERS.get(action.key, -1)
    wanted = max(len(named[0]), 1) if wanted is None else wanted
    data = 1 if action.key in ("seek", "return value") else len(named[1]) if calls else 0
    data = slots.get(action.slot, -1) if verb in ("write", "test", "compute") else data
    # Operands are laid out pointers first.
    if (len(named[0]), len(named[1])) != (wanted, data) or list(action.operands) != named[0] + named[1]:
        _refuse(program, action, "its operands do not fit")


def _refuse(program: str, action: Action, why: str) -> None:
    raise NpiError(
        f"the controller decides {action} in {program}, which cannot be carried out ({why}): it is not trained, or its "
        "weights were changed; run verify"
    )
