"""Frames, registers and primitive sites of a program under a listener's ear, and the pointers that report to it.

`Session` is what recording (record.py) and exploring (closure.py) share. A call starts with the pointers and values that
it is passed; what it reads, computes or gets back from calls become further registers.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from ...errors import NpiError
from .calls import COPY, Action, Row, Step, fold, observation, tailed
from .returns import Kind
from .slots import Site, Slots
from .source import Linker, Program
from .tape import Head, Pointer, cell_value
from .value import Value, evaluate, registers
from .where import caller

__all__ = ["CALL_LIMIT", "Frame", "Outcome", "Probe", "Session", "Tail"]

#: A call that issues more system calls than this without returning is taken to loop. The longest call of the
#: library has 16 after normalisation.
CALL_LIMIT = 512
_numbers = itertools.count()


class Outcome(NamedTuple):
    """What a call comes back with: the observation, and the value (None while explored) where it returns one."""

    kind: Kind
    yes: bool = False
    number: int | None = None


@dataclass(eq=False)
class Frame:
    """One call in progress: its registers and its log. `returned` is the register of the last call's value."""

    program: str
    pointers: dict[int, str]
    keep: list[Probe]
    steps: list[Step] = field(default_factory=list)
    seen: int = 0
    numbers: list[int | None] = field(default_factory=list)
    domains: list[Sequence[int] | None] = field(default_factory=list)
    serial: int = field(default_factory=_numbers.__next__)
    returned: int = -1


@final
@dataclass(frozen=True)
class Tail:
    """What a loop's round returns under a recorder: the next round, which is made after this one has ended."""

    name: str
    function: Program
    arguments: tuple[Pointer | Value, ...]


class Session(ABC):
    """Frames and primitive sites of a program under a listener's ear."""

    def __init__(self, linker: Linker, slots: Slots, limit: int = CALL_LIMIT) -> None:
        self.linker, self.slots, self.limit = linker, slots, limit
        self.frames: list[Frame] = []

    @abstractmethod
    def decide(self, answer: bool | None, options: tuple[bool | None, ...]) -> bool | None:
        """The answer of a test: the one computed on data, or one of the options when there is no data."""

    @abstractmethod
    def call(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any:
        """A program calls another one; its answer."""

    def again(self, name: str, function: Program, arguments: tuple[Pointer | Value, ...]) -> Any:
        """A loop goes on to its next round, with which this call ends."""
        self.linker.returns.join(self.frame.program, name)
        return self.call(name, function, arguments)

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def open(self, name: str, arguments: tuple[Pointer | Value, ...]) -> tuple[Pointer | Value, ...]:
        """A new frame; its arguments as they are called in it."""
        probes = [a for a in arguments if isinstance(a, Probe)]
        frame = Frame(name, {id(p): f"p{i}" for i, p in enumerate(probes)}, probes)
        if len(frame.pointers) < len(probes):
            raise NpiError(f"{name} is called with the same pointer twice; pass a copy() for one of them")
        self.frames.append(frame)
        return tuple(self.new_value(a.number, a.line) if isinstance(a, Value) else a for a in arguments)

    def new_value(self, number: int | None, line: str, domain: Sequence[int] | None = None) -> Value:
        """A new value register of the current frame."""
        frame = self.frame
        frame.numbers.append(number)
        frame.domains.append(domain)
        return Value(("v", len(frame.numbers) - 1), number, frame.serial, line, self.test)

    def keep(self, value: Value | int, label: str = "", where: str = "") -> Value:
        """A value in a register: as it was read, or computed by a primitive of its own."""
        if not isinstance(value, Value):
            value = Value(("c", int(value)), int(value), self.frame.serial, "kept", self.test)
        self.own(value)
        if value.expr[0] == "v":
            return value
        site = self.site("compute", value, None, where, label)
        number = self.answer(site, value)
        self.emit(Action("compute", tuple(f"v{r}" for r in registers(value.expr)), site.name), None)
        if number is not None and not -(1 << 63) < number < 1 << 63:
            raise NpiError(f"an integer of more than 64 bits is kept at {caller()}; cells have 64")
        return self.new_value(number, f"kept at {caller()}")

    def close(self, result: object) -> tuple[Row, Outcome]:
        frame = self.frame
        bit = isinstance(result, bool) or (isinstance(result, Value) and result.is_comparison)
        if result is not None and not isinstance(result, bool | int | Value):
            raise NpiError(
                f"{frame.program} returns {type(result).__name__}: a program returns nothing, True or "
                "False, or a value; leave positions in a pointer that was passed in"
            )
        kind = self.linker.returns.add(
            frame.program, "nothing" if result is None else "bit" if bit else "value"
        )
        outcome, passes_on = Outcome(kind), False
        if kind == "value":
            if not isinstance(result, int | Value):
                raise ValueError(f"{frame.program} returns no value here, and one elsewhere")
            value = self.keep(result, frame.program, "its return")
            passes_on = value.expr[1] == frame.returned
            self.emit(Action("return value", (f"v{value.expr[1]}",)), None)
            outcome = Outcome(kind, number=value.number)
        else:
            # A path that returns nothing answers no where others answer: None is false.
            yes = self.test(result, "its return") if isinstance(result, Value) else bool(result)
            self.emit(Action("return" if kind == "nothing" else f"return {'yes' if yes else 'no'}"), None)
            outcome = Outcome(kind, yes=yes)
        self.frames.pop()
        row = Row(frame.program, fold(frame.steps, passes_on))
        return tailed(row, self.linker.tails), outcome

    def result(self, action: Action, outcome: Outcome, none: bool) -> Any:
        """Log a call that came back; what the caller gets."""
        bit = None if outcome.kind != "bit" else outcome.yes
        self.emit(action, bit)
        if outcome.kind == "value":
            value = self.new_value(outcome.number, f"returned by {action.key.partition(' ')[2]}")
            self.frame.returned = value.expr[1]
            return value
        return None if none and not bit else bit

    def operands(self, arguments: tuple[Pointer | Value, ...]) -> tuple[str, ...]:
        """Registers of a call's arguments, pointers first."""
        pointers = [self.register(a) for a in arguments if isinstance(a, Probe)]
        for value in (a for a in arguments if isinstance(a, Value)):
            self.own(value)
        return (*pointers, *(f"v{a.expr[1]}" for a in arguments if isinstance(a, Value)))

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

    def site(self, kind: str, value: Value, target: Probe | None, where: str = "", label: str = "") -> Site:
        where = where or caller()
        used = registers(value.expr)
        label = label if target is None else self.parameter(target)
        site = self.slots.site(kind, self.frame.program, where, value.expr, label)
        if target is not None and target.head is not None:
            site.widen_target(target.head.tape.domain)
        if value.number is not None or not used:
            inputs = tuple(self.frame.numbers[r] for r in used)
            if None not in inputs:
                site.observe(inputs, [self.frame.domains[r] for r in used])
        return site

    def parameter(self, probe: Probe) -> str:
        name = self.frame.program
        kinds = self.linker.kinds.get(name, "p" * len(self.linker.parameters[name]))
        names = [n for n, kind in zip(self.linker.parameters[name], kinds) if kind == "p"]
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
        number = None if self.head is None else self.head.read()
        domain = None if self.head is None else self.head.tape.domain
        if domain is not None and number is not None and number not in domain:
            raise NpiError(f"{number} is read at {caller()}, outside of the tape's domain {_brief(domain)}")
        return self.session.new_value(number, f"read at {caller()}", domain)

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
        value = self.session.keep(value, "position")
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
