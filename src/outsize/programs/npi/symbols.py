"""Values of one call as symbols: what a register holds in terms of what came in from outside of the call.

A symbol is a *base* (an argument, the cell under a pointer, what a call returned) or a primitive's answer to other
symbols. Where the bases have finite domains, questions about symbols are answered by enumeration: which values can
this one take where these tests came out so; is it always smaller than that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .value import BINARY, Expr

__all__ = ["Base", "Domain", "Node", "Symbol", "Test", "bases", "feasible", "gap", "image", "unanswered"]

#: Values that a base may take, ascending; None: any integer.
Domain = tuple[int, ...] | None

#: Joint values of bases that are enumerated at once: two inputs of 1,000 values each.
GRID_LIMIT = 1 << 20
#: Beyond this products no longer fit 64 bits, and Python's integers take over.
_SMALL = 1 << 31


@dataclass(frozen=True)
class Base:
    """What comes from outside. `source` says from where: its domain is looked up there."""

    source: tuple[Any, ...]


@dataclass(frozen=True)
class Node:
    """The answer of the program's own expression at a primitive's site."""

    slot: str
    inputs: tuple[Symbol, ...]


Symbol = Base | Node


class Test(NamedTuple):
    """A test that came out no or yes."""

    node: Node
    yes: bool


@dataclass(frozen=True)
class Meaning:
    """What symbols are evaluated with.

    Attributes:
        domain: of a base.
        expression: of a slot, over its inputs' registers in order.
        cap: values beyond which a slot's answer is none, by slot.
    """

    domain: Callable[[Base], Domain]
    expression: Mapping[str, tuple[Expr, Sequence[int]]]
    cap: Callable[[str], Domain]


def bases(symbol: Symbol) -> dict[Base, None]:
    """The bases that a symbol is made of, in order."""
    if isinstance(symbol, Base):
        return {symbol: None}
    return {b: None for s in symbol.inputs for b in bases(s)}


def _finite(meaning: Meaning, found: Sequence[Base]) -> bool:
    domains = [meaning.domain(b) for b in found]
    return prod(len(d) for d in domains if d is not None) <= GRID_LIMIT and None not in domains


def _narrowed(meaning: Meaning, tests: Sequence[Test]) -> Meaning:
    """Each base cut down to what every test by itself lets through, so that all of them together fit a grid."""
    cut: dict[Base, Domain] = {}

    def domain(base: Base) -> Domain:
        return cut[base] if base in cut else meaning.domain(base)

    narrow = replace(meaning, domain=domain)
    for test in tests:
        found = bases(test.node)
        if len(found) > 1 and _finite(narrow, [*found]):
            grid = _Grid(narrow, [test.node], [test])
            for base in found:
                cut[base] = tuple(sorted(set(grid.over(base).tolist())))
    return narrow


def _relevant(meaning: Meaning, wanted: dict[Base, None], tests: Sequence[Test]) -> list[Test]:
    """Tests that can be enumerated with `wanted`: those connected with it first, as many as fit."""
    kept: list[Test] = []
    found, left = dict(wanted), list(tests)
    while True:
        near = [t for t in left if bases(t.node).keys() & found.keys() or not bases(t.node)]
        near = [t for t in near if _finite(meaning, [*{**found, **bases(t.node)}])]
        if not near:
            return kept
        kept.append(near[0])
        left.remove(near[0])
        found |= bases(near[0].node)


class _Grid:
    """Joint values of bases, one axis each, cut down to those that the tests let through."""

    def __init__(self, meaning: Meaning, wanted: Sequence[Symbol], tests: Sequence[Test]) -> None:
        self.meaning = meaning
        start = {b: None for s in wanted for b in bases(s)}
        kept = _relevant(meaning, start, tests)
        self.axes = list(start | {b: None for t in kept for b in bases(t.node)})
        self.known: dict[Symbol, tuple[np.ndarray, np.ndarray]] = {}
        self.mask: np.ndarray = np.ones((1,) * len(self.axes), dtype=bool)
        for test in kept:
            value, ok = self.at(test.node)
            self.mask = self.mask & ok & ((value != 0) == test.yes)

    def at(self, symbol: Symbol) -> tuple[np.ndarray, np.ndarray]:
        """A symbol's values, and where it has one."""
        if symbol not in self.known:
            self.known[symbol] = self._at(symbol)
        return self.known[symbol]

    def _at(self, symbol: Symbol) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(symbol, Base):
            domain = self.meaning.domain(symbol)
            assert domain is not None
            shape = [1] * len(self.axes)
            shape[self.axes.index(symbol)] = len(domain)
            values = np.array(domain, dtype=np.int64 if _fits(domain) else object).reshape(shape)
            return values, np.ones_like(values, dtype=bool)
        expr, registers = self.meaning.expression[symbol.slot]
        inputs = [self.at(s) for s in symbol.inputs]
        value, ok = _evaluate(expr, dict(zip(registers, inputs)), len(self.axes))
        for _, fine in inputs:
            ok = ok & fine
        cap = self.meaning.cap(symbol.slot)
        return value, ok if cap is None else ok & np.isin(value, np.array(cap))

    def over(self, symbol: Symbol) -> np.ndarray:
        """The values that a symbol takes on the grid, flat."""
        value, ok = self.at(symbol)
        fine = self.mask & ok
        return np.broadcast_to(value, np.broadcast_shapes(value.shape, fine.shape))[  # type: ignore[no-any-return]
            np.broadcast_to(fine, np.broadcast_shapes(value.shape, fine.shape))
        ]


def _fits(domain: tuple[int, ...]) -> bool:
    return not domain or max(abs(domain[0]), abs(domain[-1])) < _SMALL


def _evaluate(
    expr: Expr, inputs: Mapping[int, tuple[np.ndarray, np.ndarray]], axes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The expression on arrays, and where Python would give an answer."""
    match expr:
        case ("v", register):
            return inputs[register]
        case ("c", literal):
            value = np.full((1,) * axes, literal, dtype=np.int64 if abs(literal) < _SMALL else object)
            return value, np.ones_like(value, dtype=bool)
        case ("call", _, function, *arguments):
            return _each(function, [_evaluate(a, inputs, axes) for a in arguments])
        case (name, left, right):
            (x, fine), (y, good) = _evaluate(left, inputs, axes), _evaluate(right, inputs, axes)
            if name in ("<<", ">>", "**") or max(_largest(x), _largest(y)) >= _SMALL:
                return _each(BINARY[name], [(x, fine), (y, good)])
            ok = fine & good
            if name in ("//", "%"):
                ok, y = ok & (y != 0), np.where(y == 0, 1, y)
            return np.asarray(BINARY[name](x, y)).astype(np.int64), ok
    raise AssertionError(expr)


def _largest(x: np.ndarray) -> int:
    return max((abs(int(v)) for v in (x.min(), x.max())), default=0) if x.size else 0


def _each(
    function: Callable[..., Any], arguments: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """A Python function, element by element."""
    shape = np.broadcast_shapes(*(v.shape for v, _ in arguments))
    columns = [np.broadcast_to(v, shape).reshape(-1).tolist() for v, _ in arguments]
    values, ok = [], np.ones(len(columns[0]) if columns else 1, dtype=bool)
    for i, row in enumerate(zip(*columns)):
        try:
            values.append(int(function(*row)))
        except Exception:  # the program itself fails on this input, whatever it raises
            values.append(0)
            ok[i] = False
    small = all(-(1 << 62) < v < 1 << 62 for v in values)
    array = np.array(values, dtype=np.int64 if small else object).reshape(shape)
    fine = ok.reshape(shape)
    for _, good in arguments:
        fine = fine & good
    return array, fine


def feasible(meaning: Meaning, tests: Sequence[Test]) -> bool:
    """Whether some values let all the tests come out so, as far as enumeration can tell."""
    meaning, left = _narrowed(meaning, tests), list(tests)
    while left:
        first = left.pop(0)
        if not _finite(meaning, [*bases(first.node)]):
            continue
        grid = _Grid(meaning, [first.node], [first, *left])
        if not grid.mask.any():
            return False
        left = [t for t in left if not bases(t.node).keys() <= set(grid.axes)]
    return True


def image(meaning: Meaning, symbol: Symbol, tests: Sequence[Test]) -> Domain:
    """The values that a symbol can take; None where there is no telling."""
    meaning = _narrowed(meaning, tests)
    if not _finite(meaning, [*bases(symbol)]):
        return meaning.cap(symbol.slot) if isinstance(symbol, Node) else None
    values = _Grid(meaning, [symbol], tests).over(symbol)
    return tuple(int(v) for v in sorted(set(values.tolist())))


def gap(meaning: Meaning, new: Symbol, old: Symbol, tests: Sequence[Test]) -> tuple[int, int] | None:
    """The least and the largest value of `new - old`; None where there is no telling, or no such call."""
    meaning = _narrowed(meaning, tests)
    if not _finite(meaning, [*(bases(new) | bases(old))]):
        return (0, 0) if new == old else None
    grid = _Grid(meaning, [new, old], tests)
    (x, ok), (y, good) = grid.at(new), grid.at(old)
    change, fine = np.broadcast_arrays(x - y, grid.mask & ok & good)
    found = change[fine] if change.shape == fine.shape else np.zeros(0)
    return (int(found.min()), int(found.max())) if found.size else None


def unanswered(meaning: Meaning, node: Node, tests: Sequence[Test]) -> set[tuple[int, ...]] | None:
    """Inputs that a site is given and that its expression has no answer to; None where there is no telling."""
    meaning = _narrowed(meaning, tests)
    if not _finite(meaning, [*bases(node)]):
        return None
    grid = _Grid(meaning, [node], tests)
    given = [grid.at(s) for s in node.inputs]
    _, ok = grid.at(node)
    asked, answered, *values = np.broadcast_arrays(grid.mask, ok, *(v for v, _ in given))
    for _, fine in given:
        asked = asked & fine
    missing = asked & ~answered
    columns = [v[missing].tolist() for v in values]
    return set(zip(*columns)) if columns else {()} if missing.any() else set()
