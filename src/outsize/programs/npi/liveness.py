"""Which names a piece of a function needs from before it: liveness, backward over the syntax tree.

A loop becomes a function of its own (`lifting.py`); what it needs become its parameters, and what is needed
after it decides whether it may be a plain call.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Exits", "live_in", "loads", "stores"]

Names = frozenset[str]


@dataclass(frozen=True)
class Exits:
    """Names needed where `break` and `continue` lead."""

    leave: Names = frozenset()
    again: Names = frozenset()


def loads(node: ast.AST) -> Names:
    """Names that a node uses."""
    nodes = list(ast.walk(node))
    inner = {id(n) for part in nodes for n in _own(part)}
    names = [n for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)]
    used = {n.id for n in names if id(n) not in inner}
    changed = {
        n.target.id for n in ast.walk(node) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
    }
    return frozenset(used | changed)


def _own(node: ast.AST) -> Iterator[ast.Name]:
    """Uses of a comprehension's own names inside of it; its first iterable is looked up around it."""
    if isinstance(node, ast.ListComp | ast.GeneratorExp):
        targets = [n for part in node.generators for n in ast.walk(part.target)]
        own = {n.id for n in targets if isinstance(n, ast.Name)}
        outer = {id(n) for n in ast.walk(node.generators[0].iter)}
        for n in ast.walk(node):
            if isinstance(n, ast.Name) and n.id in own and id(n) not in outer:
                yield n


def stores(body: Sequence[ast.AST]) -> list[str]:
    """Names that statements assign, each once, in order; not those of functions and comprehensions inside."""
    return list(dict.fromkeys(name for node in body for name in _stored(node)))


def _stored(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    if isinstance(node, ast.FunctionDef):
        yield node.name
    if not isinstance(
        node, ast.FunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ):
        for child in ast.iter_child_nodes(node):
            yield from _stored(child)


def live_in(body: Sequence[ast.stmt], after: Names, exits: Exits) -> Names:
    """The names needed before `body`, given those needed after it."""
    for statement in reversed(body):
        after = _before(statement, after, exits)
    return after


def _before(s: ast.stmt, after: Names, exits: Exits) -> Names:
    match s:
        case ast.Return() | ast.Raise():
            return loads(s)
        case ast.Break():
            return exits.leave
        case ast.Continue():
            return exits.again
        case ast.If():
            return loads(s.test) | live_in(s.body, after, exits) | live_in(s.orelse, after, exits)
        case ast.Match():
            ways = [live_in(case.body, after, exits) for case in s.cases]
            return frozenset().union(loads(s.subject), after, *map(loads, _heads(s)), *ways)
        case ast.While():
            return _around(s.body, loads(s.test) | live_in(s.orelse, after, exits), after)
        case ast.For():
            # A `for` over a pointer uses the pointer in every round.
            around = live_in(s.orelse, after, exits) | loads(s.iter)
            return _around(s.body, around, after, frozenset(stores([s.target])))
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.Expr() | ast.Pass() | ast.FunctionDef():
            return (after - frozenset(stores([s]))) | loads(s)
    return after | loads(s)


def _heads(s: ast.Match) -> list[ast.AST]:
    return [part for case in s.cases for part in (case.pattern, case.guard) if part is not None]


def _around(body: Sequence[ast.stmt], head: Names, after: Names, set_: Names = frozenset()) -> Names:
    """Names needed at a loop's head, to a fixed point."""
    while True:
        inside = live_in(body, head, Exits(leave=after, again=head)) - set_
        if inside <= head:
            return head
        head |= inside
