"""Every sequence of observations that a call may ever meet, found without data (LWL's closure, per call).

Inside one call the program sees nothing but yes/no answers, nested calls are single actions, and each call
starts afresh. So running each function alone, breadth first over the answers, reaches a fixed point: the
verification set. It takes every answer for possible, which can only make the set larger than what executions
reach, hence the proof stays sound. Minimised: a sequence that another one extends is dropped, since checking
the longer one checks it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ...errors import NpiError
from .calls import Action, Row
from .record import Probe, Session
from .slots import Slots
from .source import Linker, Program
from .tape import Pointer
from .where import unrecordable

__all__ = ["Closure", "Explorer", "check_consistent", "close"]

#: Paths through one function before the closure gives up. The library's functions have 4 at most.
PATH_LIMIT = 4096


@dataclass(frozen=True, kw_only=True)
class Closure:
    """The verification set.

    Attributes:
        rows: one maximal sequence of observations and actions per path, in breadth-first order.
        prefixes: how many sequences there are before minimisation (every prefix is a state to be right in).
    """

    rows: tuple[Row, ...]
    prefixes: int


@final
class _Unknown(Exception):
    """The path calls a function of which no return is known yet; a later sweep takes it up."""


@final
class Explorer(Session):
    """Runs one function on pointers without tapes; answers come from a script and fork where it ends."""

    def __init__(self, linker: Linker, slots: Slots, returns: dict[str, set[bool | None]]) -> None:
        super().__init__(linker, slots)
        self.returns = returns
        self.called: dict[str, int] = {}
        self.script: list[bool | None] = []
        self.taken: list[bool | None] = []
        self.forks: list[list[bool | None]] = []

    def decide(self, answer: bool | None, options: tuple[bool | None, ...]) -> bool | None:
        if len(options) == 1:
            return options[0]
        position = len(self.taken)
        if position < len(self.script):
            choice = self.script[position]
        else:
            choice = options[0]
            self.forks += [[*self.taken, other] for other in options[1:]]
        self.taken.append(choice)
        return choice

    def call(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> bool | None:
        probes = [a for a in arguments if isinstance(a, Probe)]
        if len({id(p) for p in probes}) < len(arguments):
            raise NpiError(f"{name} is called with the same pointer twice; pass a copy() for one of them")
        self.called[name] = len(arguments)
        options = tuple(sorted(self.returns.get(name, set()), key=str))
        if not options:
            raise _Unknown
        result = self.decide(None, options)
        self.emit(Action(f"call {name}", tuple(self.register(p) for p in probes)), result)
        return result

    def path(self, name: str, arity: int, script: list[bool | None]) -> tuple[Row, bool | None]:
        self.script, self.taken, self.frames = script, [], []
        self.open(name, tuple(Probe(self, None) for _ in range(arity)))
        return self.close(self.linker.functions[name](*self.frame.keep[:arity]))


def close(linker: Linker, slots: Slots) -> Closure:
    """The verification set of a program, to a fixed point over functions and over what they return."""
    returns: dict[str, set[bool | None]] = {}
    while True:
        before = {name: set(found) for name, found in returns.items()}
        closure = _sweep(linker, slots, returns)
        for name, found in returns.items():
            if None in found and len(found) > 1:
                raise NpiError(
                    f"{name} returns True or False on some paths and nothing on others; choose one"
                )
        if returns == before:
            if endless := sorted(name for name, found in returns.items() if not found):
                raise NpiError(
                    f"no path through {', '.join(endless)} ever returns: give the recursion an end"
                )
            return closure


def _sweep(linker: Linker, slots: Slots, returns: dict[str, set[bool | None]]) -> Closure:
    explorer = Explorer(linker, slots, returns)
    linker.listener = explorer
    entry = len(linker.parameters[linker.name])
    arities, queue = {linker.name: entry}, deque([linker.name])
    rows: list[Row] = []
    try:
        while queue:
            name = queue.popleft()
            _walk(explorer, name, arities[name], rows)
            for called, arity in explorer.called.items():
                if called not in arities:
                    arities[called] = arity
                    queue.append(called)
    finally:
        linker.listener = None
    prefixes = {(r.program, r.steps[:n]) for r in rows for n in range(1, len(r.steps) + 1)}
    return Closure(rows=tuple(dict.fromkeys(rows)), prefixes=len(prefixes))


def _walk(explorer: Explorer, name: str, arity: int, rows: list[Row]) -> None:
    scripts: deque[list[bool | None]] = deque([[]])
    results = explorer.returns.setdefault(name, set())
    count = 0
    while scripts:
        count += 1
        if count > PATH_LIMIT:
            raise NpiError(
                f"{name} has more than {PATH_LIMIT} paths through one call; split it into smaller functions"
            )
        try:
            row, result = explorer.path(name, arity, scripts.popleft())
        except _Unknown:
            pass
        except NpiError:
            raise
        except Exception as error:
            raise unrecordable(name, error) from error
        else:
            rows.append(row)
            results.add(result)
        scripts.extend(explorer.forks)
        explorer.forks = []


def check_consistent(rows: Sequence[Row]) -> None:
    """Raise where two rows answer the same observations with different actions.

    Raises:
        NpiError: with the program, what was seen, and the two answers.
    """
    decided: dict[tuple[str, tuple[object, ...]], str] = {}
    for row in rows:
        seen: tuple[object, ...] = ()
        for step in row.steps:
            seen += (step.seen,)
            key, action = (row.program, seen), str(step.action)
            if decided.setdefault(key, action) != action:
                raise NpiError(
                    f"traces contradict each other in {row.program} after observations {list(seen)}: one "
                    f"does "
                    f"{decided[key]}, another {action}. The program must depend on its tapes alone (no "
                    f"randomness, no "
                    "global state)"
                )
