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
from typing import Any, NoReturn, final

from ...errors import NpiError
from .calls import Action, Row, tail_calls, tailed
from .returns import Reconsider
from .session import Outcome, Probe, Session
from .slots import Slots
from .source import Linker, Program
from .tape import Pointer
from .value import Value
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
        impossible: paths that no values of the tapes' domains can take.
    """

    rows: tuple[Row, ...]
    prefixes: int
    impossible: tuple[Row, ...] = ()

    def without(self, impossible: frozenset[Row]) -> Closure:
        """The same, rows that cannot happen set apart."""
        rows = tuple(row for row in self.rows if row not in impossible)
        apart = tuple(row for row in self.rows if row in impossible)
        return Closure(rows=rows, prefixes=_prefixes(rows), impossible=apart)


@final
class _Unknown(Exception):
    """The path calls a function of which no return is known yet; a later sweep takes it up."""


@final
class _No:
    """What a call gives that may answer False or return nothing: false, and of no other use."""

    def __bool__(self) -> bool:
        return False

    def _refuse(self, *_: object) -> NoReturn:
        raise NpiError(
            "a function returns True on some paths and nothing on others; only its truth can be used"
        )

    __int__ = __index__ = __eq__ = __ne__ = __add__ = __radd__ = __hash__ = _refuse


@final
class Explorer(Session):
    """Runs one function on pointers without tapes; answers come from a script and fork where it ends."""

    def __init__(self, linker: Linker, slots: Slots, returns: dict[str, set[Outcome]]) -> None:
        super().__init__(linker, slots)
        self.returns = returns
        self.called: dict[str, str] = {}
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

    def call(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any:
        probes = {id(a) for a in arguments if isinstance(a, Probe)}
        if len(probes) < sum(isinstance(a, Probe) for a in arguments):
            raise NpiError(f"{name} is called with the same pointer twice; pass a copy() for one of them")
        self.called[name] = self.linker.kinds[name]
        options = tuple(sorted(self.returns.get(name, set()), key=str))
        if not options:
            raise _Unknown
        action = Action(f"call {name}", self.operands(arguments))
        if options[0].kind != "bit":
            return self.result(action, options[0], none=True)
        yes = self.decide(None, tuple(o.yes for o in options))
        result = self.result(action, Outcome("bit", bool(yes)), none=False)
        return _No() if "nothing" in self.linker.returns[name] and not result else result

    def path(self, name: str, kinds: str, script: list[bool | None]) -> tuple[Row, Outcome]:
        self.script, self.taken, self.frames = script, [], []
        unknown = Value(("v", 0), None, 0, f"passed to {name}", self.test)
        arguments = self.open(name, tuple(Probe(self, None) if k == "p" else unknown for k in kinds))
        result = self.linker.functions[name](*arguments)
        return self.close(None if isinstance(result, _No) else result)


def close(linker: Linker, slots: Slots) -> Closure:
    """The verification set of a program, to a fixed point over functions and over what they return."""
    returns: dict[str, set[Outcome]] = {}
    linker.tails = frozenset()
    while True:
        before = {name: set(found) for name, found in returns.items()}
        closure = _sweep(linker, slots, returns)
        if returns == before:
            if endless := sorted(name for name, found in returns.items() if not found):
                raise NpiError(
                    f"no path through {', '.join(endless)} ever returns: give the recursion an end"
                )
            linker.tails = tail_calls(closure.rows)
            rows = tuple(dict.fromkeys(tailed(row, linker.tails) for row in closure.rows))
            return Closure(rows=rows, prefixes=_prefixes(rows))


def _sweep(linker: Linker, slots: Slots, returns: dict[str, set[Outcome]]) -> Closure:
    explorer = Explorer(linker, slots, returns)
    linker.listener = explorer
    kinds, queue = {linker.name: "p" * len(linker.parameters[linker.name])}, deque([linker.name])
    rows: list[Row] = []
    try:
        while queue:
            name = queue.popleft()
            _walk(explorer, name, kinds[name], rows)
            for called, takes in explorer.called.items():
                if called not in kinds:
                    kinds[called] = takes
                    queue.append(called)
    finally:
        linker.listener = None
    return Closure(rows=tuple(dict.fromkeys(rows)), prefixes=_prefixes(rows))


def _prefixes(rows: Sequence[Row]) -> int:
    return len({(r.program, r.steps[:n]) for r in rows for n in range(1, len(r.steps) + 1)})


def _walk(explorer: Explorer, name: str, kinds: str, rows: list[Row]) -> None:
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
            row, result = explorer.path(name, kinds, scripts.popleft())
        except _Unknown:
            pass
        except (NpiError, Reconsider):
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
