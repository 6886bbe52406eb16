"""A row of a function, walked with symbols for its values: what each test, write and call is given.

Which cell a value came from is followed as far as nothing can have changed it: pointers made by `copy` stand at the
same place until one of them moves, and a write through one pointer spoils what is known under every other that may be
on the same tape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from .calls import COPY, Action, Row, valued
from .symbols import Base, Node, Symbol, Test

__all__ = ["Call", "Path", "Shape", "Use", "shapes", "walk"]


@dataclass
class Shape:
    """What is known of a function before values are looked at.

    Attributes:
        pointers, values: how many it takes.
        tapes: for each pointer parameter, the entry's pointers on whose tapes it may be.
        moves: parameters that it may move.
        writes: parameters whose tapes it may write to.
        valued: whether it returns a value.
    """

    pointers: int
    values: int
    tapes: list[set[int]]
    moves: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    valued: bool = False


@dataclass(frozen=True)
class Use:
    """A primitive's call: its inputs, the tapes that each was read from (or None), the tests before it, the tapes that
    the answer is written to (None: it is not).
    """

    slot: str
    inputs: tuple[Symbol, ...]
    read_from: tuple[frozenset[int] | None, ...]
    tests: int
    written: frozenset[int] | None


@dataclass(frozen=True)
class Call:
    """A call: step of the row, values passed, contents under the pointers passed (None: unknown), tests before it."""

    step: int
    callee: str
    values: tuple[Symbol, ...]
    contents: tuple[Symbol | None, ...]
    tapes: tuple[frozenset[int], ...]
    tests: int


@dataclass
class Path:
    """A row in symbols."""

    row: Row
    tests: list[Test] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    #: Values moved unchanged: the tapes that each was read from (None: it was not), and those it is written to.
    moved: list[tuple[frozenset[int] | None, frozenset[int]]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    returned: Symbol | None = None


def _pointers(action: Action) -> list[int]:
    return [int(o[1:]) for o in action.operands if o[0] == "p"]


def _values(action: Action) -> list[int]:
    return [int(o[1:]) for o in action.operands if o[0] == "v"]


def _called(action: Action) -> str:
    return action.key[5:] if action.key.startswith(("call ", "tail ")) else ""


def shapes(arities: Mapping[str, int], rows: Sequence[Row]) -> dict[str, Shape]:
    """The shape of every function, to a fixed point over their calls."""
    found = {name: Shape(n, 0, [set() for _ in range(n)]) for name, n in arities.items()}
    entry = next(iter(arities))
    found[entry].tapes = [{i} for i in range(arities[entry])]
    for name in valued(rows):
        found[name].valued = True
    for row in rows:
        for _, action in row.steps:
            if called := _called(action):
                found[called].values = len(_values(action))
    while True:
        before = _count(found)
        for row in rows:
            _spread(found, row)
        if _count(found) == before:
            return found


def _count(found: Mapping[str, Shape]) -> int:
    return sum(len(s.moves) + len(s.writes) + sum(map(len, s.tapes)) for s in found.values())


def _spread(found: Mapping[str, Shape], row: Row) -> None:
    shape = found[row.program]
    origin = list(range(shape.pointers))
    for _, action in row.steps:
        p = _pointers(action)
        if action.key in ("copy", "middle"):
            origin.append(origin[p[0]])
        moved = p if action.key in ("left", "right") else p[:1] if action.key in ("goto", "seek") else []
        shape.moves |= {r for r in moved if r < shape.pointers}
        if action.key == "write":
            shape.writes.add(origin[p[0]])
        if called := _called(action):
            callee = found[called]
            shape.moves |= {p[k] for k in callee.moves if p[k] < shape.pointers}
            shape.writes |= {origin[p[k]] for k in callee.writes}
            for k, r in enumerate(p):
                callee.tapes[k] |= shape.tapes[origin[r]]


def walk(found: Mapping[str, Shape], row: Row, number: int, layout: Sequence[int]) -> Path:
    """One row in symbols; `number` tells its bases from other rows'. `layout` says which of the entry's pointers share
    a tape (equal numbers).
    """
    return _Walk(found, row, number, layout).go()


@final
class _Walk:
    def __init__(self, found: Mapping[str, Shape], row: Row, number: int, layout: Sequence[int]) -> None:
        self.found, self.row, self.number, self.layout = found, row, number, layout
        self.shape = found[row.program]
        n = self.shape.pointers
        self.origin, self.place, self.places = list(range(n)), list(range(n)), n
        self.on = {k: frozenset(t) for k, t in enumerate(self.shape.tapes)}  # tapes of a place
        self.contents: dict[int, Symbol] = {k: Base(("cell", row.program, k)) for k in range(n)}
        self.values: list[Symbol] = [Base(("value", row.program, i)) for i in range(self.shape.values)]
        self.read_from: list[frozenset[int] | None] = [None] * self.shape.values
        self.path = Path(row)

    def go(self) -> Path:
        seen = [s.seen for s in self.row.steps[1:]] + [0]
        for step, (action, answer) in enumerate(zip((s.action for s in self.row.steps), seen)):
            if called := _called(action):
                self._call(step, action, called)
            elif action.key == "return value":
                self.path.returned = self.values[_values(action)[0]]
            else:
                self._simple(action, answer)
        return self.path

    def _tapes(self, register: int) -> frozenset[int]:
        return frozenset(self.shape.tapes[self.origin[register]])

    def _keep(self, value: Symbol, read_from: frozenset[int] | None = None) -> None:
        self.values.append(value)
        self.read_from.append(read_from)

    def _put(self, register: int, same: int | None = None) -> None:
        """A place for a pointer: that of another, or a new one."""
        if same is None:
            same, self.places = self.places, self.places + 1
            self.on[same] = self._tapes(register)
        self.place[register] = same

    def _simple(self, action: Action, answer: int) -> None:
        p, v = _pointers(action), _values(action)
        match action.key:
            case "read":
                for r in p:
                    fresh = Base(("read", self._tapes(r), self.number, len(self.values)))
                    self._keep(self.contents.setdefault(self.place[r], fresh), self._tapes(r))
            case "left" | "right":
                for r in p:
                    self._put(r)
            case "goto" | "seek":
                self._put(p[0])
            case "copy" | "middle":
                self.origin.append(self.origin[p[0]])
                self.place.append(-1)
                self._put(len(self.place) - 1, self.place[p[0]] if action.key == "copy" else None)
            case "write":
                value = self._answer(action.slot, v, self._tapes(p[0]))
                self._spoil(self._tapes(p[0]))
                self.contents[self.place[p[0]]] = value
            case "compute":
                self._keep(self._answer(action.slot, v))
            case "test" if answer:
                node = self._answer(action.slot, v)
                assert isinstance(node, Node)
                self.path.tests.append(Test(node, answer == 2))

    def _answer(self, slot: str, v: Sequence[int], written: frozenset[int] | None = None) -> Symbol:
        inputs = tuple(self.values[r] for r in v)
        if slot == COPY:
            self.path.moved.append((self.read_from[v[0]], written or frozenset()))
            return inputs[0]
        read_from = tuple(self.read_from[r] for r in v)
        self.path.uses.append(Use(slot, inputs, read_from, len(self.path.tests), written))
        return Node(slot, inputs)

    def _spoil(self, tapes: frozenset[int]) -> None:
        spoiled = {self.layout[t] for t in tapes}
        self.contents = {
            k: s for k, s in self.contents.items() if not spoiled & {self.layout[t] for t in self.on[k]}
        }

    def _call(self, step: int, action: Action, called: str) -> None:
        p, callee = _pointers(action), self.found[called]
        self.path.calls.append(
            Call(
                step,
                called,
                tuple(self.values[r] for r in _values(action)),
                tuple(self.contents.get(self.place[r]) for r in p),
                tuple(self._tapes(r) for r in p),
                len(self.path.tests),
            )
        )
        for k in callee.writes:
            self._spoil(self._tapes(p[k]))
        for k in callee.moves:
            self._put(p[k])
        if callee.valued:
            self._keep(Base(("result", called, self.number, step)))
        if action.key.startswith("tail ") and callee.valued:
            self.path.returned = self.values[-1]
