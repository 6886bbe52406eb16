"""Hear a program run: pointers that report each call, and the log of one execution.

`Session` owns what recording and exploring share: frames, registers, primitive sites. `Recorder` runs on
real tapes, optionally with trained primitives answering in place of the program's own arithmetic, so that
the training data is what the machine will see. `Explorer` (closure.py) runs without data.
"""

from __future__ import annotations

import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from ...errors import NpiError, OutsizeError
from .calls import COPY, Action, Row, Step, fold, observation
from .slots import Answer, Site, Slots
from .source import Linker, Program
from .tape import Head, Pointer, cell_value
from .value import Value, evaluate, registers
from .where import caller, unrecordable

__all__ = ["Frame", "Probe", "Recorder", "Session"]

#: A call that issues more system calls than this without returning is taken to loop. The longest call of the
#: library has 16 after normalisation.
CALL_LIMIT = 512
#: Calls of one example, rounds of loops included, before it is taken not to end: ten seconds.
CALLS_LIMIT = 100_000
#: Calls inside of each other (a loop's rounds are not), which Python's own stack must hold.
NESTING_LIMIT = 1_000
_PYTHON_STACK = 20_000

_numbers = itertools.count()


@dataclass(eq=False)
class Frame:
    """One call in progress: its registers and its log."""

    program: str
    pointers: dict[int, str]
    keep: list[Probe]
    steps: list[Step] = field(default_factory=list)
    seen: int = 0
    numbers: list[int | None] = field(default_factory=list)
    domains: list[Sequence[int] | None] = field(default_factory=list)
    serial: int = field(default_factory=_numbers.__next__)


@final
@dataclass(frozen=True)
class Tail:
    """What a loop's round returns under a recorder: the next round, which is made after this one has ended."""

    name: str
    function: Program
    arguments: tuple[Pointer, ...]


class Session(ABC):
    """Frames and primitive sites of a program under a listener's ear."""

    def __init__(self, linker: Linker, slots: Slots, limit: int = CALL_LIMIT) -> None:
        self.linker, self.slots, self.limit = linker, slots, limit
        self.frames: list[Frame] = []

    @abstractmethod
    def decide(self, answer: bool | None, options: tuple[bool | None, ...]) -> bool | None:
        """The answer of a test: the one computed on data, or one of the options when there is no data."""

    @abstractmethod
    def call(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> bool | None:
        """A program calls another one; its answer."""

    def again(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> Any:
        """A loop goes on to its next round, with which this call ends."""
        return self.call(name, function, arguments)

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def open(self, name: str, arguments: tuple[Pointer, ...]) -> Frame:
        probes = [a for a in arguments if isinstance(a, Probe)]
        frame = Frame(name, {id(p): f"p{i}" for i, p in enumerate(probes)}, probes)
        if len(frame.pointers) < len(arguments):
            raise NpiError(f"{name} is called with the same pointer twice; pass a copy() for one of them")
        self.frames.append(frame)
        return frame

    def close(self, result: object) -> tuple[Row, bool | None]:
        if isinstance(result, Value) and result.is_comparison:
            result = self.test(result, "its return")
        if result is not None and not isinstance(result, bool):
            raise NpiError(
                f"{self.frame.program} returns {type(result).__name__}: a program returns nothing, True or "
                "False; return bool(…) of a test, leave data on a tape and positions in a pointer that was passed in"
            )
        self.emit(Action({None: "return", False: "return no", True: "return yes"}[result]), None)
        frame = self.frames.pop()
        return Row(frame.program, fold(frame.steps)), result

    def emit(self, action: Action, answer: bool | None) -> None:
        frame = self.frame
        if len(frame.steps) >= self.limit:
            raise NpiError(
                f"one call of {frame.program} has made {self.limit} system calls and not returned; write the "
                "repetition as a `while` loop or a call, so that each round starts afresh, in a function of the module "
                "(what is defined inside of another function is not looked into)"
            )
        frame.steps.append(Step(frame.seen, action))
        frame.seen = observation(answer)

    def register(self, probe: Probe) -> str:
        found = self.frame.pointers.get(id(probe))
        if found is None:
            raise NpiError(
                f"{self.frame.program} uses a pointer that was not passed to it; pass it as an argument"
            )
        return found

    def new_pointer(self, head: Head | None) -> Probe:
        probe = Probe(self, head)
        self.frame.pointers[id(probe)] = f"p{len(self.frame.pointers)}"
        self.frame.keep.append(probe)
        return probe

    def own(self, value: Value) -> None:
        if value.frame != self.frame.serial:
            raise NpiError(
                f"a value {value.line} in another call is used in {self.frame.program}; write it to a tape "
                f"cell"
            )

    def test(self, value: Value, where: str = "") -> bool:
        self.own(value)
        site = self.site("test", value, None, where)
        operands = tuple(f"v{r}" for r in registers(value.expr))
        answer = self.answer(site, value)
        result = self.decide(None if answer is None else bool(answer), (False, True))
        self.emit(Action("test", operands, site.name), result)
        return bool(result)

    def site(self, kind: str, value: Value, target: Probe | None, where: str = "") -> Site:
        where = where or caller()
        used = registers(value.expr)
        label = "" if target is None else self.parameter(target)
        site = self.slots.site(kind, self.frame.program, where, value.expr, label)
        if target is not None and target.head is not None:
            site.widen_target(target.head.tape.domain)
        if value.number is not None or not used:
            inputs = tuple(self.frame.numbers[r] for r in used)
            if None not in inputs:
                site.observe(inputs, [self.frame.domains[r] for r in used])
        return site

    def parameter(self, probe: Probe) -> str:
        names = self.linker.parameters[self.frame.program]
        index = int(self.register(probe)[1:])
        return names[index] if index < len(names) else f"copy{index}"

    def answer(self, site: Site, value: Value) -> int | None:
        return value.number

    def compute(self, name: str, function: Program, arguments: tuple[Any, ...]) -> Value:
        values = [a for a in arguments if isinstance(a, Value)]
        for value in values:
            self.own(value)
        parts = tuple(a.expr if isinstance(a, Value) else ("c", a) for a in arguments)
        expr = ("call", name, function, *parts)
        numbers = dict(enumerate(self.frame.numbers))
        known = all(numbers[r] is not None for r in registers(expr))
        number = evaluate(expr, {r: n for r, n in numbers.items() if n is not None}) if known else None
        return values[0].derive(expr, number, max(v.depth for v in values))


@final
class Recorder(Session):
    """One execution on real tapes.

    Args:
        answers: trained primitives by slot name. Where given, they compute what is written and tested.
        limit: system calls in one call before it is taken to loop.
    """

    def __init__(
        self,
        linker: Linker,
        slots: Slots,
        answers: Mapping[str, Answer] | None = None,
        limit: int = CALL_LIMIT,
    ) -> None:
        super().__init__(linker, slots, limit)
        self.answers = answers or {}
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

    def call(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> bool | None:
        operands = tuple(self.register(a) for a in arguments if isinstance(a, Probe))
        result = self.enter(name, function, arguments)
        self.emit(Action(f"call {name}", operands), result)
        return result

    def again(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> Any:
        return Tail(name, function, arguments)

    def enter(self, name: str, function: Program, arguments: tuple[Pointer, ...]) -> bool | None:
        """Make a call and the rounds that follow it, one after the other: a loop may have any number."""
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
            self.open(name, arguments)
            result = function(*arguments)
            if not isinstance(result, Tail):
                row, answer = self.close(result)
                self.rows.append(row)
                return answer
            operands = tuple(self.register(a) for a in result.arguments if isinstance(a, Probe))
            self.emit(Action(f"tail {result.name}", operands), None)
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
        except OutsizeError:
            raise
        except Exception as error:
            raise unrecordable(name, error) from error
        finally:
            sys.setrecursionlimit(limit)
            self.linker.listener = None


@final
class Probe(Pointer):
    """A pointer that reports each call to its session and moves a real head, if there is one."""

    def __init__(self, session: Session, head: Head | None) -> None:
        self.session, self.head = session, head

    def _tell(self, key: str, *operands: str) -> None:
        self.session.emit(Action(key, (self.session.register(self), *operands)), None)

    def _ask(self, key: str, answer: bool | None, *operands: str) -> bool:
        operands = (self.session.register(self), *operands)
        result = self.session.decide(answer, (False, True))
        self.session.emit(Action(key, operands), result)
        return bool(result)

    def read(self) -> Value:
        self._tell("read")
        frame, number = self.session.frame, None if self.head is None else self.head.read()
        domain = None if self.head is None else self.head.tape.domain
        if domain is not None and number is not None and number not in domain:
            raise NpiError(f"{number} is read at {caller()}, outside of the tape's domain {_brief(domain)}")
        frame.numbers.append(number)
        frame.domains.append(domain)
        expr = ("v", len(frame.numbers) - 1)
        return Value(expr, number, frame.serial, f"read at {caller()}", self.session.test)

    def write(self, value: int | Value) -> None:
        session = self.session
        if not isinstance(value, Value):
            value = cell_value(value, f"written at {caller()}")
            value = Value(("c", value), value, session.frame.serial, "written", session.test)
        session.own(value)
        name, number = COPY, value.number
        if value.expr[0] != "v":
            site = session.site("write", value, self)
            name, number = site.name, session.answer(site, value)
        operands = (session.register(self), *(f"v{r}" for r in registers(value.expr)))
        session.emit(Action("write", operands, name), None)
        if number is not None and not -(1 << 63) < number < 1 << 63:
            raise NpiError(f"an integer of more than 64 bits is written at {caller()}; cells have 64")
        if self.head is not None and number is not None:
            domain = self.head.tape.domain
            if domain is not None and number not in domain:
                raise NpiError(
                    f"{number} is written at {caller()}, outside of the tape's domain {_brief(domain)}"
                )
            self.head.write(number)

    def move(self, steps: int | Value = 1) -> None:
        if isinstance(steps, Value):
            steps._refuse("a distance is made")
        if type(steps) is not int:
            raise NpiError(f"move({steps!r}) at {caller()}: a distance is an integer")
        for _ in range(abs(steps)):
            self._tell("right" if steps > 0 else "left")
        if self.head is not None:
            self.head.move(steps)

    def at_end(self) -> bool:
        return self._ask("at end", None if self.head is None else self.head.at_end())

    def at_start(self) -> bool:
        return self._ask("at start", None if self.head is None else self.head.at_start())

    def before(self, other: Pointer) -> bool:
        answer = None if self.head is None else self.head.before(_bare(other))
        return self._ask("before", answer, self._other(other))

    def meets(self, other: Pointer) -> bool:
        answer = None if self.head is None else self.head.meets(_bare(other))
        return self._ask("meets", answer, self._other(other))

    def goto(self, other: Pointer) -> None:
        self._tell("goto", self._other(other))
        if self.head is not None:
            self.head.goto(_bare(other))

    def copy(self) -> Probe:
        self._tell("copy")
        return self.session.new_pointer(None if self.head is None else self.head.copy())

    def middle(self, other: Pointer) -> Probe:
        self._tell("middle", self._other(other))
        return self.session.new_pointer(None if self.head is None else self.head.middle(_bare(other)))

    def seek(self, value: int | Value) -> None:
        if not isinstance(value, Value) or value.expr[0] != "v":
            raise NpiError(
                f"seek at {caller()} takes a value just as it was read; write a computed one to a cell first"
            )
        self.session.own(value)
        self._tell("seek", f"v{value.expr[1]}")
        if self.head is not None and value.number is not None:
            self.head.seek(value.number)

    def _other(self, other: Pointer) -> str:
        if not isinstance(other, Probe):
            raise NpiError(
                "a recorded pointer met one that is not recorded: pass every pointer as an argument"
            )
        return self.session.register(other)


def _bare(pointer: Pointer) -> Head:
    assert isinstance(pointer, Probe)
    assert pointer.head is not None
    return pointer.head


def _brief(domain: Sequence[int]) -> str:
    return f"{min(domain)} to {max(domain)} ({len(domain)} values)"
