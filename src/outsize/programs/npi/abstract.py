"""What holds at each call of a template, for all inputs: positions as zones, marks as sets of possible cell values.

The rows of the verification set are the program. Each is walked with the constraints that hold on entry; tests,
moves and the machine's own bounds (a cell that is read exists) add to them. Calls pass constraints down and bring
the callee's summary back, until nothing changes. Out come the call sites, each with how measures of caller and callee
relate; `termination.py` decides from these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from .calls import Action, Row, valued
from .paths import Shape
from .zones import Zone

__all__ = ["Layout", "Site", "analyse"]

#: Joins of one function's entry or summary before what still grows is dropped, so that the analysis settles.
_PATIENCE = 32
#: Rounds before the analysis gives up, beside two for each function (a chain of calls hands its constraints down one
#: function a round).
_ROUNDS = 64

#: Values that a test lets through, by slot: (values that answer no, values that answer yes).
Truths = Mapping[str, tuple[frozenset[int], frozenset[int]]]
#: Values that a write may leave, by slot; None where unknown.
Outputs = Mapping[str, frozenset[int] | None]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The entry's pointers: which of them share a tape (equal numbers)."""

    tapes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One way to a call.

    Attributes:
        caller, callee: program names.
        action: the call.
        zone: constraints over `e0…` (caller's entry positions), `n0…` (their tapes' lengths), `p0…` (now).
        tapes: which parameter's tape each register of the caller is on.
        spent: (tape class, values) of cells that held one of these values and were overwritten before the call.
        row, step: where the call is.
    """

    caller: str
    callee: str
    action: Action
    zone: Zone
    tapes: tuple[int, ...]
    spent: tuple[tuple[int, frozenset[int]], ...]
    row: Row
    step: int


@dataclass
class _Function:
    arity: int
    rows: list[Row]
    values: int = 0
    valued: bool = False
    entry: Zone | None = None
    summary: Zone | None = None
    joins: int = 0
    cells: list[frozenset[int] | None] | None = None
    classes: list[set[int]] | None = None


@final
class Analysis:
    """Fixed point over all functions. See the module."""

    def __init__(
        self,
        arities: Mapping[str, int],
        rows: Sequence[Row],
        layout: Layout,
        truths: Truths,
        outputs: Outputs,
        shapes: Mapping[str, Shape],
    ) -> None:
        self.shapes = shapes
        self.functions = {name: _Function(arity, []) for name, arity in arities.items()}
        for row in rows:
            self.functions[row.program].rows.append(row)
            for _, action in row.steps:
                if action.key.startswith(("call ", "tail ")):
                    callee = self.functions[action.key[5:]]
                    callee.values = sum(o[0] == "v" for o in action.operands)
        for name in valued(rows):
            self.functions[name].valued = True
        self.truths, self.outputs = truths, outputs
        entry = self.functions[next(iter(arities))]
        entry.entry = _general(entry.arity)
        entry.cells = [None] * entry.arity
        entry.classes = [{t} for t in layout.tapes]
        self.sites: list[Site] = []
        self.writes: list[tuple[str, int, frozenset[int] | None]] = []

    def run(self) -> bool:
        """Whether it settles."""
        for _ in range(_ROUNDS + 2 * len(self.functions)):
            self.changed = False
            self.sites, self.writes = [], []
            for name, function in self.functions.items():
                if function.entry is not None:
                    for row in function.rows:
                        _Walk(self, name, function, row).go()
            if not self.changed:
                return True
        return False

    def called(
        self, name: str, zone: Zone, cells: list[frozenset[int] | None], classes: list[set[int]]
    ) -> None:
        """Weaken a function's entry until it covers this call."""
        function = self.functions[name]
        if function.entry is None or function.cells is None or function.classes is None:
            function.entry, function.cells, function.classes = zone, cells, classes
            self.changed = True
            return
        function.joins += 1
        self.changed |= function.entry.join(zone, function.joins > _PATIENCE)
        for i, cell in enumerate(cells):
            old = function.cells[i]
            new = None if old is None or cell is None else old | cell
            self.changed |= new != old
            function.cells[i] = new
            self.changed |= not classes[i] <= function.classes[i]
            function.classes[i] = function.classes[i] | classes[i]

    def returned(self, function: _Function, zone: Zone) -> None:
        if function.summary is None:
            function.summary, self.changed = zone, True
        else:
            function.joins += 1
            self.changed |= function.summary.join(zone, function.joins > _PATIENCE)


def _general(arity: int) -> Zone:
    """What holds on every entry: -1 <= position <= length, length >= 0."""
    zone = Zone([f"{kind}{i}" for kind in "en" for i in range(arity)])
    for i in range(arity):
        zone.at_most("0", f"e{i}", 1)
        zone.at_most(f"e{i}", f"n{i}", 0)
        zone.at_most("0", f"n{i}", 0)
    return zone


@final
class _Walk:
    """One row of one function, from its entry's constraints to its return."""

    def __init__(self, analysis: Analysis, name: str, function: _Function, row: Row) -> None:
        assert function.entry is not None
        assert function.cells is not None
        assert function.classes is not None
        self.a, self.name, self.f, self.row = analysis, name, function, row
        self.zone = function.entry.copy()
        self.tapes = list(range(function.arity))
        self.cells: list[frozenset[int] | None] = list(function.cells)
        self.classes = function.classes
        for i in range(function.arity):
            self.zone.add(f"p{i}")
            self.zone.equal(f"p{i}", f"e{i}")
        # The pointer register that a value was read through, while that still stands where it stood.
        self.values: list[int | None] = [None] * function.values
        self.spent: list[tuple[int, frozenset[int]]] = []

    def go(self) -> None:
        seen = [s.seen for s in self.row.steps[1:]] + [0]
        for i, (step, answer) in enumerate(zip(self.row.steps, seen)):
            verb, _, called = step.action.key.partition(" ")
            if verb in ("call", "tail"):
                if not self._call(i, step.action, called):
                    return
            elif verb != "return":
                self._simple(step.action, answer)
            if self.zone.empty:
                return
        n = self.f.arity
        names = [f"{kind}{i}" for kind in "enp" for i in range(n)]
        self.a.returned(self.f, self.zone.project(names, names))

    def _simple(self, action: Action, answer: int) -> None:
        p = [o for o in action.operands if o[0] == "p"]
        v = [int(o[1:]) for o in action.operands if o[0] == "v"]
        match action.key:
            case "read":
                for x in p:
                    self._read(x)
            case "left" | "right":
                for x in p:
                    self._move(x, 1 if action.key == "right" else -1)
            case "compute":
                self.values.append(None)
            case "write":
                self._write(p[0], action.slot)
            case "test":
                self._test(action.slot, v, answer)
            case "copy" | "middle":
                self._copy(p[0], p[1] if len(p) > 1 else None)
            case "goto" | "seek":
                self._place(p[0], p[1] if len(p) > 1 else None)
            case _ if answer:
                self._relation(action.key, p, answer == 2)

    def _relation(self, key: str, p: list[str], yes: bool) -> None:
        z = self.zone
        if key == "at end":
            z.at_most(self._length(p[0]), p[0], 0) if yes else z.at_most(p[0], self._length(p[0]), -1)
        elif key == "at start":
            z.at_most(p[0], "0", -1) if yes else z.at_most("0", p[0], 0)
        elif key == "before":
            z.at_most(p[0], p[1], -1) if yes else z.at_most(p[1], p[0], 0)
        elif key == "meets" and yes:
            z.equal(p[0], p[1])

    def _length(self, p: str) -> str:
        return f"n{self.tapes[int(p[1:])]}"

    def _inside(self, p: str, low: int, high: int) -> None:
        self.zone.at_most("0", p, -low)
        self.zone.at_most(p, self._length(p), high)

    def _read(self, p: str) -> None:
        self._inside(p, 0, -1)
        self.values.append(int(p[1:]))

    def _move(self, p: str, by: int) -> None:
        self.zone.shift(p, by)
        self._inside(p, -1, 0)
        self._lost(int(p[1:]))

    def _lost(self, register: int) -> None:
        self.cells[register] = None
        self.values = [None if r == register else r for r in self.values]

    def _place(self, p: str, other: str | None) -> None:
        self.zone.assign(p, other) if other else self.zone.forget(p)
        self._inside(p, -1, 0)
        self._lost(int(p[1:]))

    def _copy(self, p: str, other: str | None) -> None:
        new = f"p{len(self.tapes)}"
        self.zone.add(new)
        self.tapes.append(self.tapes[int(p[1:])])
        self.cells.append(self.cells[int(p[1:])] if other is None else None)
        if other is None:
            self.zone.equal(new, p)
            return
        for x, y in ((p, other), (other, p)):
            ahead = -self.zone.difference(x, y)  # y is at least so far ahead of x
            if ahead >= 0:
                self.zone.at_most(x, new, -1 if ahead >= 2 else 0)
                self.zone.at_most(new, y, -1 if ahead >= 1 else 0)

    def _test(self, slot: str, values: list[int], answer: int) -> None:
        register = self.values[values[0]] if len(values) == 1 else None
        if register is not None and slot in self.a.truths and answer:
            allowed = self.a.truths[slot][answer - 1]
            known = self.cells[register]
            self.cells[register] = allowed if known is None else known & allowed
            if not self.cells[register]:
                self.zone.at_most("0", "0", -1)  # no value answers so: the path cannot happen

    def _write(self, p: str, slot: str) -> None:
        self._inside(p, 0, -1)
        register = int(p[1:])
        tape, left = self._class(register), self.a.outputs.get(slot)
        self.a.writes += [(self.name, t, left) for t in tape]
        held = self.cells[register]
        if held is not None and len(tape) == 1:
            self.spent.append((next(iter(tape)), held))
        self._forget_cells(tape)
        self.cells[register] = left

    def _class(self, register: int) -> set[int]:
        return self.classes[self.tapes[register]]

    def _forget_cells(self, tape: set[int]) -> None:
        for r in range(len(self.tapes)):
            if self._class(r) & tape:
                self._lost(r)

    def _call(self, step: int, action: Action, called: str) -> bool:
        """Pass constraints down and take the summary; False where the callee is not known to return yet."""
        arguments, callee = [o for o in action.operands if o[0] == "p"], self.a.functions[called]
        registers = [int(p[1:]) for p in arguments]
        lengths = [self._length(p) for p in arguments]
        renamed = [f"{kind}{i}" for kind in "en" for i in range(len(arguments))]
        entry = Zone(renamed)
        at = [*arguments, *lengths]
        index = [0, *(self.zone.names.index(x) for x in at)]
        entry.bound = self.zone.bound[index][:, index].copy()
        cells, classes = [self.cells[r] for r in registers], [self._class(r) for r in registers]
        self.a.called(called, entry, cells, classes)
        self.a.sites.append(
            Site(
                caller=self.name, callee=called, action=action, zone=self.zone.copy(), tapes=tuple(self.tapes),
                spent=tuple(self.spent), row=self.row, step=step,
            )
        )  # fmt: skip
        if callee.summary is None:
            return False
        before = [f"old{i}" for i in range(len(arguments))]
        for old, p in zip(before, arguments):
            self.zone.add(old)
            self.zone.equal(old, p)
        for p in arguments:
            self.zone.forget(p)
        # Two arguments on one tape name its length twice; the summary is met once per name.
        self.zone.meet(
            _merged(callee.summary, [*before, *lengths, *arguments]),
            _distinct([*before, *lengths, *arguments]),
        )
        keep = [n for n in self.zone.names[1:] if n not in before]
        self.zone = self.zone.project(keep, keep)
        shape = self.a.shapes[called]
        self._forget_cells({t for k in shape.writes for t in self._class(registers[k])})
        for k in shape.moves:
            self._lost(registers[k])
        self.values += [None] * callee.valued
        return True


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _merged(zone: Zone, names: Sequence[str]) -> Zone:
    """The zone under `names`, where equal names become one variable."""
    distinct = _distinct(names)
    out = Zone(distinct)
    at = [0, *(1 + distinct.index(n) for n in names)]
    for i, row in enumerate(zone.bound):
        for j, c in enumerate(row):
            out.bound[at[i], at[j]] = min(out.bound[at[i], at[j]], c)
    return out


def analyse(
    arities: Mapping[str, int],
    rows: Sequence[Row],
    layout: Layout,
    truths: Truths,
    outputs: Outputs,
    shapes: Mapping[str, Shape],
) -> Analysis | None:
    """Run the analysis; its `sites` and `writes` are what termination is decided from. None: it does not settle.

    `shapes` says which of its pointers each function moves, and to which pointers' tapes it writes.
    """
    analysis = Analysis(arities, rows, layout, truths, outputs, shapes)
    return analysis if analysis.run() else None
