"""Random programs over pointers: source text, examples, inputs, and the program's own rows run without a network.

Each program is a few functions with loops inside of loops, early exits, helpers that answer, data functions, lambdas on
one line, closures, constants and functions as arguments. It is compiled as a file would be, so that all between the text
and the tables is tried.
"""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.brains import TableBrain
from outsize.programs.npi.calls import Action
from outsize.programs.npi.machine import Machine
from outsize.programs.npi.slots import UNDEFINED
from outsize.programs.npi.tables import Tables

VALUES = range(4)
_OPERATORS = ("+", "-", "*", "&", "|", "^")
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


@dataclass(frozen=True)
class RandomProgram:
    """A program's text, the function that it is, and examples."""

    text: str
    function: Callable[..., Any]
    examples: tuple[Callable[[], Sequence[npi.Head]], ...]

    def inputs(self, source: random.Random, count: int) -> list[Callable[[], Sequence[npi.Head]]]:
        return [_tapes(source, 6) for _ in range(count)]


def _tapes(source: random.Random, longest: int) -> Callable[[], Sequence[npi.Head]]:
    cells = [source.choices(VALUES, k=source.randint(0, longest)) for _ in range(3)]
    return lambda: [npi.Tape(values, domain=VALUES).at() for values in cells]


class _Writer:
    def __init__(self, source: random.Random) -> None:
        self.r, self.lines, self.count = source, [], 0
        self.data: list[tuple[str, int]] = []
        self.tests: list[tuple[str, int]] = []
        self.helpers: list[str] = []

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def put(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    # -- data functions

    def data_functions(self) -> None:
        r = self.r
        a, b = r.randint(1, 3), r.randint(0, 3)
        self.put(0, f"up, down = (lambda x: (x * {a} + {b}) % 4), (lambda x: (x * {b} + {a}) % 4)")
        self.put(0, "def adder(n):")
        self.put(1, "def add(x): return (x + n) % 4")
        self.put(1, "return add")
        self.put(0, f"near, far = adder({r.randint(0, 3)}), adder({r.randint(0, 3)})")
        self.put(0, f"TABLE = {r.choices(VALUES, k=4)}")
        self.put(0, "def copy(x): return TABLE[x]")
        self.put(0, f"def mix(x, y, *, k={r.randint(0, 3)}): return (x {r.choice(_OPERATORS)} y * 2 + k) % 4")
        self.put(0, f"def big(x): return x {r.choice(_COMPARISONS)} {r.randint(0, 3)}")
        self.put(0, f"def under(x, y): return x {r.choice(_COMPARISONS)} y")
        self.data = [("up", 1), ("down", 1), ("near", 1), ("far", 1), ("copy", 1), ("mix", 2)]
        self.tests = [("big", 1), ("under", 2)]

    # -- expressions on the values read in this round

    def value(self, known: list[str], depth: int = 2) -> str:
        r, way = self.r, self.r.random()
        if depth == 0 or way < 0.3:
            return r.choice(known) if known and r.random() < 0.8 else str(r.randint(0, 3))
        if way < 0.6:
            name, arity = r.choice(self.data)
            given = [self.value(known, depth - 1) for _ in range(arity)]
            if name == "mix" and r.random() < 0.5:
                return f"mix(k={r.randint(0, 3)}, y={given[0]}, x={given[1]})"
            return f"{name}({', '.join(given)})"
        left, right = self.value(known, depth - 1), self.value(known, depth - 1)
        if way < 0.85:
            return f"(({left} {r.choice(_OPERATORS)} {right}) % 4)"
        if way < 0.93:
            return f"{r.choice(('min', 'max'))}({left}, {right})"
        return f"({left} if {self.test(known, [], 0)} else {right})"

    def test(self, known: list[str], pointers: list[str], depth: int = 1) -> str:
        r, way = self.r, self.r.random()
        if depth and way < 0.25:
            word = r.choice(("and", "or"))
            return f"({self.test(known, pointers, 0)} {word} {self.test(known, pointers, 0)})"
        if depth and way < 0.35:
            return f"not {self.test(known, pointers, 0)}"
        if pointers and (not known or way < 0.5):
            p = r.choice(pointers)
            others = [q for q in pointers if q != p]
            if others and r.random() < 0.5:
                return f"{p}.{r.choice(('before', 'meets'))}({r.choice(others)})"
            return f"{p}.at_end()"
        x = r.choice(known) if known else "1"
        if way < 0.6:
            return f"{x} in ({r.randint(0, 1)}, {r.randint(2, 3)})"
        if way < 0.75:
            name, arity = r.choice(self.tests)
            return f"{name}({', '.join(self.value(known, 0) for _ in range(arity))})"
        if way < 0.8:
            return f"0 {r.choice(('<', '<='))} {x} < {r.randint(1, 3)}"
        return f"{x} {r.choice(_COMPARISONS)} {self.value(known, 1)}"

    # -- statements

    def block(self, depth: int, known: list[str], pointers: list[str], loop: bool, level: int) -> None:
        for _ in range(self.r.randint(1, 2)):
            self.statement(depth, known, pointers, loop, level)

    def statement(self, depth: int, known: list[str], pointers: list[str], loop: bool, level: int) -> None:
        r, way = self.r, self.r.random()
        if way < 0.35 and pointers:
            self.put(depth, f"{r.choice(pointers)}.write({self.value(known)})")
        elif way < 0.7 and level:
            self.put(depth, f"if {self.test(known, pointers)}:")
            self.block(depth + 1, known, pointers, loop, level - 1)
            if r.random() < 0.5:
                self.put(depth, "else:")
                self.block(depth + 1, known, pointers, loop, level - 1)
        elif way < 0.78 and loop:
            self.put(depth, r.choice(("break", "continue", "continue")))
        elif way < 0.9 and self.helpers and pointers:
            name = r.choice(self.helpers)
            self.put(depth, f"{name}({r.choice(pointers)}.copy(), {r.randint(0, 1)})")
        elif pointers:
            p = r.choice(pointers)
            x = self.fresh("x")
            self.put(depth, f"{x} = {p}.read()")
            self.put(depth, f"{p}.write({self.value([*known, x])})")
        else:
            self.put(depth, "pass")

    def loop(self, depth: int, first: str, second: str, level: int) -> None:
        """A walk over two pointers that are on cells; the pointers that it leaves behind may be written to."""
        a, b = self.fresh("a"), self.fresh("b")
        self.put(depth, f"{a}, {b} = {first}.copy(), {second}.copy()")
        together = self.r.random() < 0.5
        self.put(
            depth, f"while not {a}.at_end() and not {b}.at_end():" if together else f"while not {a}.at_end():"
        )
        if not together:
            self.put(depth + 1, f"if {b}.at_end():")
            self.put(depth + 2, self.r.choice(("break", "return")))
        x, y, s, t = (self.fresh(n) for n in "xyst")
        self.put(depth + 1, f"{x}, {y} = {a}.read(), {b}.read()")
        self.put(depth + 1, f"{s}, {t} = {a}.copy(), {b}.copy()")
        self.put(depth + 1, f"for m in ({a}, {b}):")
        self.put(depth + 2, "m.move(1)")
        self.block(depth + 1, [x, y], [s, t], True, 2)
        if level and self.r.random() < 0.4:
            self.loop(depth + 1, a, b, level - 1)

    def helper(self) -> None:
        name = self.fresh("helper")
        self.put(0, f"def {name}(p, k=0):")
        self.put(1, "while not p.at_end():")
        self.put(2, "v = p.read()")
        self.put(2, f"p.write({self.value(['v'])} if k == 0 else {self.value(['v'])})")
        self.put(2, f"if {self.test(['v'], [])}:")
        self.put(3, "return")
        self.put(2, "p.move(1)")
        self.helpers.append(name)

    def program(self) -> str:
        self.data_functions()
        self.helper()
        self.put(0, "def main(p, q, out):")
        for _ in range(self.r.randint(1, 2)):
            first, second = self.r.sample(["p", "q", "out"], 2)
            self.loop(1, first, second, 1)
        return "\n".join(self.lines) + "\n"


def random_program(seed: int, examples: int = 60) -> RandomProgram:
    """The program of a seed, with so many examples."""
    source = random.Random(seed)
    text = _Writer(source).program()
    name = f"<random program {seed}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": "random_program"}
    exec(compile(text, name, "exec"), space)
    return RandomProgram(text, space["main"], tuple(_tapes(source, 4) for _ in range(examples)))


def rows_machine(template: npi.Template) -> Machine:
    """The verification set as tables, and the program's expressions as primitives: a model that cannot err."""
    actions: dict[Action, int] = {}
    states: dict[tuple[Any, ...], int] = {}
    programs = tuple(template.arities)
    act: list[int] = []
    follow: list[list[int]] = []
    for row in template.closure.rows:
        path: tuple[Any, ...] = (row.program,)
        last = -1
        for seen, action in row.steps:
            path = (*path, seen)
            if path not in states:
                states[path] = len(act)
                act.append(actions.setdefault(action, len(actions)))
                follow.append([-1, -1, -1])
            if last >= 0:
                follow[last][seen] = states[path]
            last = states[path]
    start = [states.get((p, 0), -1) for p in programs]  # -1: no values lead to a call of it
    arrays = (np.array(a, dtype=np.int32) for a in (start, act, follow))
    tables = Tables(programs, tuple(actions), *arrays)
    slots = {name: _caller(site) for name, site in template.sites.items()}
    return Machine(TableBrain(tables), slots, npi.Limits(steps=5_000))


def _caller(site: Any) -> Any:
    known: dict[tuple[int, ...], int] = {}

    def answer(inputs: np.ndarray, near: np.ndarray) -> np.ndarray:
        out = []
        for row in map(tuple, inputs.tolist()):
            if row not in known:
                known[row] = site._answer(row)
            if known[row] == UNDEFINED:
                raise NpiError(f"no answer to {row}")
            out.append(known[row])
        return np.array(out, dtype=np.int64)

    return answer


def outcome(run: Callable[[Sequence[npi.Head]], Any], make: Callable[[], Sequence[npi.Head]]) -> Any:
    """Tapes and positions after a run, or "fails"."""
    heads = make()
    try:
        run(heads)
    except (NpiError, ArithmeticError, ValueError, LookupError):
        return "fails"
    return [(h.tape.cells, h.position) for h in heads]
