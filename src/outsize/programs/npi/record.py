"""Hear a program run on real tapes: the log of one execution.

Trained primitives may answer in place of the program's own arithmetic, so that the training data is what the machine
will see.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, final

from ...errors import NpiError, OutsizeError
from .calls import Action, Row, fold
from .returns import Reconsider
from .session import CALL_LIMIT, Outcome, Probe, Session, Tail
from .slots import Answer, Site, Slots
from .source import Linker, Program
from .tape import Head, Pointer
from .value import Value, registers
from .where import unrecordable

__all__ = ["Recorder"]

#: Calls of one example, rounds of loops included, before it is taken not to end: ten seconds.
CALLS_LIMIT = 100_000
#: Calls inside of each other (a loop's rounds are not), which Python's own stack must hold.
NESTING_LIMIT = 1_000
_PYTHON_STACK = 20_000


@final
class Recorder(Session):
    """One execution on real tapes.

    Args:
        answers: trained primitives by slot name. Where given, they compute what is written and tested.
        limit: system calls in one call before it is taken to loop.
        steps: system calls of an execution before it is given up; None: any number.
    """

    def __init__(
        self,
        linker: Linker,
        slots: Slots,
        answers: Mapping[str, Answer] | None = None,
        limit: int = CALL_LIMIT,
        steps: int | None = None,
    ) -> None:
        super().__init__(linker, slots, limit)
        self.answers = answers or {}
        self.steps, self.count = steps, 0
        self.rows: list[Row] = []
        self.calls = 0

    def decide(self, answer: bool | None, options: tuple[bool | None, ...]) -> bool | None:
        return answer

    def answer(self, site: Site, value: Value) -> int | None:
        model = self.answers.get(site.name)
        if model is None:
            return value.number
        inputs = tuple(self.frame.numbers[r] for r in registers(value.expr))
        return model(tuple(n for n in inputs if n is not None))

    def emit(self, action: Action, answer: bool | None) -> None:
        self.count += 1
        if self.steps is not None and self.count > self.steps:
            raise NpiError(f"{self.linker.name} is still running after {self.steps} system calls")
        super().emit(action, answer)

    def call(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any:
        action = Action(f"call {name}", self.operands(arguments))
        outcome, none = self.enter(name, function, arguments)
        return self.result(action, outcome, none)

    def again(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any:
        self.linker.returns.join(self.frame.program, name)
        return Tail(name, function, arguments)

    def enter(
        self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]
    ) -> tuple[Outcome, bool]:
        """Make a call and the rounds that follow it, one after the other: a loop may have any number.

        Returns:
            What comes back, and whether Python got None.
        """
        if len(self.frames) >= NESTING_LIMIT:
            raise NpiError(
                f"an example of {self.linker.name} nests {len(self.frames)} calls ({name}, {self.linker.places[name]}): "
                "trace smaller examples; the model is run on explicit stacks and has no such limit"
            )
        while True:
            self.calls += 1
            if self.calls > CALLS_LIMIT:
                raise NpiError(
                    f"{self.linker.name} is still running after {CALLS_LIMIT} calls, in {name} "
                    f"({self.linker.places[name]}): "
                    "does that loop move a pointer on every way? If it ends, trace a smaller example"
                )
            result = function(*self.open(name, arguments))
            if not isinstance(result, Tail):
                row, outcome = self.close(result)
                self.rows.append(row)
                return outcome, result is None
            self.emit(Action(f"tail {result.name}", self.operands(result.arguments)), None)
            frame = self.frames.pop()
            self.rows.append(Row(frame.program, fold(frame.steps)))
            name, function, arguments = result.name, result.function, result.arguments

    def run(self, heads: tuple[Head, ...]) -> None:
        """Run the whole program; the rows are in `rows` afterwards."""
        name, arity = self.linker.name, len(self.linker.parameters[self.linker.name])
        if len(heads) != arity or len(set(map(id, heads))) < arity:
            raise NpiError(
                f"{name} takes {arity} different pointers, an example gives {len(set(map(id, heads)))}"
            )
        if strange := [h for h in heads if not isinstance(h, Head)]:
            raise NpiError(f"an example of {name} gives {strange[0]!r}; a pointer is made by Tape(…).at()")
        self.linker.listener = self
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _PYTHON_STACK))
        try:
            self.enter(name, self.linker.functions[name], tuple(Probe(self, h) for h in heads))
        except (OutsizeError, Reconsider):
            raise
        except Exception as error:
            raise unrecordable(name, error) from error
        finally:
            sys.setrecursionlimit(limit)
            self.linker.listener = None
