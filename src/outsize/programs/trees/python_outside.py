"""The code of a file that stands in no function, cut into trees of the size of functions.

A script's bugs stand at the top level, and a class body computes its constants. Such code becomes units of two
kinds: the module's own statements, and each class with its decorators, bases and body. Functions and classes
inside of them are units of their own and stay as leaves that bind a name. The network was trained on functions of
limited size, so a long list of statements is cut into consecutive runs; a run begins with the bindings of the names
that it reads from earlier ones, since these are candidates there as an earlier local variable is in a function.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence

#: A run of statements takes no more nodes than this, as `ast` counts them, unless one statement alone does: nine in
#: ten functions of the corpus are smaller.
RUN_NODES = 256
Lines = list[tuple[int, int]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CUT = (*_FUNCTIONS, ast.ClassDef)
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """One tree to pack with `Walk(cut=True)`.

    Attributes:
        root: a module, or a class, with some of its statements.
        lines: first and last lines of its own code, those of functions and classes inside left out.
    """

    root: ast.Module | ast.ClassDef
    lines: Lines


def units_outside(tree: ast.Module, *, run_nodes: int = RUN_NODES) -> Iterator[Unit]:
    """The module's own statements and every class that is in no function, in runs of bounded size."""
    owners: list[ast.Module | ast.ClassDef] = [tree, *_classes(tree)]
    for owner in owners:
        bound: dict[str, ast.stmt] = {}
        runs = list(_runs(owner.body, run_nodes))
        for number, (run, lines) in enumerate(runs):
            here = _bindings(run) if len(runs) > 1 else {}
            body = [*_context(run, bound, here), *run] if bound else run
            bound |= here
            if isinstance(owner, ast.ClassDef):
                yield Unit(root=_class_part(owner, body, first=not number), lines=(
                    lines if number else [_head(owner), *lines]))  # fmt: skip
            elif lines:
                yield Unit(root=ast.Module(body=body, type_ignores=[]), lines=lines)


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    stack: list[ast.AST] = list(reversed(tree.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.ClassDef):
            yield node
        if isinstance(node, _BLOCKS) and not isinstance(node, _FUNCTIONS):
            stack.extend(reversed([n for n in ast.iter_child_nodes(node) if isinstance(n, _BLOCKS)]))


def _inside(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All nodes, without what is inside functions and classes."""
    stack = list(statements)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _CUT):
            stack.extend(ast.iter_child_nodes(node))


def _runs(statements: list[ast.stmt], most: int) -> Iterator[tuple[list[ast.stmt], Lines]]:
    run: list[ast.stmt] = []
    lines: Lines = []
    nodes = 0
    for statement in statements:
        size, inner = 0, []
        for node in _inside([statement]):
            size += 1
            if isinstance(node, _CUT):
                inner.append((_first_line(node), node.end_lineno or 0))
        if run and nodes + size > most:
            yield run, lines
            run, lines, nodes = [], [], 0
        run.append(statement)
        lines.extend(_own_lines(statement, sorted(inner)))
        nodes += size
    if run:
        yield run, lines


def _bindings(statements: Sequence[ast.stmt]) -> dict[str, ast.stmt]:
    """Name → a statement that does nothing but bind it, at the place of the last one that does."""
    found: dict[str, ast.stmt] = {}
    stack: list[ast.AST] = list(reversed(statements))
    while stack:
        node = stack.pop()
        if isinstance(node, _CUT):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                single: ast.stmt = ast.Import([alias])
                if isinstance(node, ast.ImportFrom):
                    single = ast.ImportFrom(node.module, [alias], node.level)
                found[name] = ast.copy_location(single, node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            # Without a value: what it was set to is the business of the run where it was.
            found[node.id] = ast.copy_location(ast.Assign([node], None), node)  # type: ignore[arg-type]
        elif not isinstance(node, _SCOPES):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))
    return found


def _context(
    run: Sequence[ast.stmt], bound: dict[str, ast.stmt], here: dict[str, ast.stmt]
) -> list[ast.stmt]:
    """Bindings of earlier runs that this one reads and does not set."""
    read = {n.id for n in _inside(run) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    names = read & bound.keys() - here.keys()
    return [bound[n] for n in sorted(names, key=lambda n: (bound[n].lineno, bound[n].col_offset, n))]


def _class_part(owner: ast.ClassDef, body: list[ast.stmt], *, first: bool) -> ast.ClassDef:
    part = ast.ClassDef(owner.name, [], [], body, [])
    if first:
        part.bases, part.keywords, part.decorator_list = owner.bases, owner.keywords, owner.decorator_list
    return ast.copy_location(part, owner)


def _head(owner: ast.ClassDef) -> tuple[int, int]:
    first = min([owner.lineno, *(decorator.lineno for decorator in owner.decorator_list)])
    return first, max(owner.lineno, _first_line(owner.body[0]) - 1)


def _first_line(statement: ast.stmt) -> int:
    decorators = statement.decorator_list if isinstance(statement, _CUT) else []
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _own_lines(statement: ast.stmt, inner: Lines) -> Iterator[tuple[int, int]]:
    """The statement's lines without those of the functions and classes in it."""
    low = _first_line(statement)
    for first, last in [*inner, ((statement.end_lineno or low) + 1, 0)]:
        if low < first:
            yield low, first - 1
        low = last + 1
