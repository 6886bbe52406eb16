"""The breadth-first walk of one Python function: node columns, and what may be wrong in it.

See `python_front` for the problem. The walk keeps a queue of (node, parent, role, scope, inside an f-string);
scopes are numbered as they open, and a name's scope is where its look-up starts.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from . import python_nodes as nodes
from .functions import TABLES
from .grammar import (
    ATTRIBUTE,
    CALLED,
    FIELD,
    INT_HIGH,
    INT_LOW,
    KIND,
    LITERAL,
    LOAD,
    OPERATION,
    OPERATOR,
    OTHER,
    PARAMETER,
    RESERVED,
    STORE,
    SWAP,
    VARIABLE,
)
from .python_places import argument_pairs, operator_masks, operator_span, sticks

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
#: Roles of a function's children that are evaluated outside of it.
_OUTSIDE = frozenset({"decorator_list", "returns", "bases", "keywords"})
_CUT = (*_FUNCTIONS, ast.ClassDef)
_NO_SCOPE = -1


class Walk:
    """Columns of the functions walked so far; `pack` adds one.

    Args:
        text: the source in UTF-8.
        lines: where its lines start.
        max_nodes: a larger tree is left out.
        cut: functions and classes below the root are leaves, see `python_outside`.
    """

    def __init__(
        self, text: bytes, lines: Sequence[int], *, max_nodes: int = 10**9, cut: bool = False
    ) -> None:
        self.text, self.lines, self.max_nodes, self.cut = text, lines, max_nodes, cut
        self.tokens: dict[str, int] = {token: index for index, token in enumerate(RESERVED)}
        self.ptr: list[int] = [0]
        self.parent: list[int] = []
        self.kind: list[int] = []
        self.field: list[int] = []
        self.token: list[int] = []
        self.pos: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.rows: dict[str, list[int]] = {name: [] for names in TABLES.values() for name in names}
        self.table_ptr: dict[str, list[int]] = {table: [0] for table in TABLES}
        self.skipped = 0

    def pack(self, root: ast.AST) -> bool:
        """Add the tree under `root`; one larger than `max_nodes` is counted in `skipped` and left out: False."""
        unit = _Unit(self, root)
        if len(unit.parent) > self.max_nodes:
            self.skipped += 1
            for table, names in TABLES.items():
                for name in names:
                    del self.rows[name][self.table_ptr[table][-1] :]
            return False
        for name in ("parent", "kind", "field", "token", "pos", "start", "end"):
            getattr(self, name).extend(getattr(unit, name))
        self.ptr.append(len(self.parent))
        unit.resolve()
        for table, names in TABLES.items():
            self.table_ptr[table].append(len(self.rows[names[0]]))
        return True

    def number(self, token: str) -> int:
        return self.tokens.setdefault(token, len(self.tokens))

    def add(self, table: str, *values: int) -> None:
        for name, value in zip(TABLES[table], values):
            self.rows[name].append(value)


class _Unit:
    """One function while it is walked."""

    def __init__(self, walk: Walk, root: ast.AST) -> None:
        self.walk = walk
        self.root = root
        #: The names of a class body are seen by its own statements only, not by the scopes inside.
        self.shut = isinstance(root, ast.ClassDef)
        self.parent: list[int] = []
        self.kind: list[int] = []
        self.field: list[int] = []
        self.token: list[int] = []
        self.pos: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.outer: list[int] = [_NO_SCOPE]  # scope → the scope around it
        self.scope_node: list[int] = [0]
        self.class_scopes: set[int] = set()
        self.bound: list[dict[str, int]] = [{}]  # scope → name → symbol
        self.declared: list[set[str]] = [set()]  # scope → global and nonlocal names
        self.names: list[tuple[int, str, int, int, bool]] = []  # node, name, scope, role, inside an f-string
        self.attributes: list[tuple[int, str, str, int, bool]] = []  # node, base, attribute, role, f-string
        self.copies: list[tuple[str, str, int]] = []
        self.defaults: dict[int, ast.expr] = {}
        self.called: set[int] = set()
        self.spanless: list[tuple[int, int, int]] = []
        self._walk()

    def _walk(self) -> None:
        queue: list[tuple[object, int, str, int, bool]] = [(self.root, -1, "", 0, False)]
        place = 0
        limit = self.walk.max_nodes
        for index, (node, parent, role, scope, quoted) in enumerate(queue):
            if index > limit:
                return
            place = place + 1 if index and parent == self.parent[-1] else 0
            self.parent.append(parent)
            self.field.append(FIELD.get(role, 0))
            self.pos.append(place)
            if isinstance(node, ast.AST):
                below = self._row(node, queue[parent][0] if index else None, index, scope, quoted)
                self.queue_children(queue, node, index, scope, below, quoted)
            else:
                self._leaf(node, queue[parent][0], queue, index, quoted)
        for index, first, count in reversed(self.spanless):
            if count:
                self.start[index] = min(self.start[first : first + count])
                self.end[index] = max(self.end[first : first + count])

    def _row(self, node: ast.AST, above: object, index: int, scope: int, quoted: bool) -> int:
        """Write the node's columns and notes; returns the scope of what hangs under it."""
        kind, token = nodes.describe(node)
        self.kind.append(KIND.get(kind, 0))
        self.token.append(self.walk.number(token) if token else 0)
        self._span(node, index, quoted)
        if isinstance(node, ast.Name):
            role = CALLED if id(node) in self.called else LOAD if kind == "Name" else STORE
            self.names.append((index, node.id, scope, role, quoted))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            role = CALLED if id(node) in self.called else LOAD if kind == "Attribute" else STORE
            self.attributes.append((index, node.value.id, node.attr, role, quoted))
        elif isinstance(node, ast.Call):
            self.called.add(id(node.func))
        elif isinstance(node, ast.arg):
            self.names.append((index, node.arg, scope, PARAMETER, quoted))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and len(node.targets) == 1:
            if isinstance(node.targets[0], ast.Name):
                self.copies.append((node.targets[0].id, node.value.id, scope))
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.alias):
            self._bind_by_text(node, index, scope)
        elif isinstance(node, ast.Constant | ast.UnaryOp) and not quoted and not sticks(node, above):
            self._literal(node, index)
        return self._scope(node, index, scope)

    def _bind_by_text(self, node: ast.AST, index: int, scope: int) -> None:
        name = getattr(node, "asname", None) or getattr(node, "name", None)
        if isinstance(name, str):
            self.names.append((index, name.split(".")[0], scope, OTHER, True))

    def _scope(self, node: ast.AST, index: int, scope: int) -> int:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and index:
            self.names.append((index, node.name, scope, OTHER, True))
        if index == 0 or not isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS, ast.Lambda, ast.ClassDef)):
            if isinstance(node, ast.Global | ast.Nonlocal) and scope >= 0:
                self.declared[scope].update(node.names)
            return scope
        self.outer.append(scope)
        self.scope_node.append(index)
        self.bound.append({})
        self.declared.append(set())
        if isinstance(node, ast.ClassDef):
            self.class_scopes.add(len(self.outer) - 1)
        return len(self.outer) - 1

    def queue_children(
        self, queue: list[tuple[object, int, str, int, bool]], node: ast.AST, index: int, scope: int,
        below: int, quoted: bool,
    ) -> None:  # fmt: skip
        first = len(queue)
        if index and self.walk.cut and isinstance(node, _CUT):
            return
        outside = _NO_SCOPE if index == 0 else scope
        if isinstance(node, ast.arguments):
            self.defaults |= nodes.defaults(node)
        if isinstance(node, ast.arg):
            around = self.outer[scope] if scope >= 0 else _NO_SCOPE
            extra = [(node.annotation, "annotation"), (self.defaults.get(id(node)), "default")]
            queue.extend((n, index, role, around, quoted) for n, role in extra if n is not None)
        else:
            quoted = quoted or isinstance(node, ast.JoinedStr)
            for child, role in nodes.children(node):
                queue.append((child, index, role, outside if (role in _OUTSIDE and below != scope) or (
                    index == 0 and role in _OUTSIDE) else below, quoted))  # fmt: skip
        if self.start[index] < 0:
            above = self.parent[index]
            self.start[index] = self.end[index] = self.start[above] if above >= 0 else 0
            self.spanless.append((index, first, len(queue) - first))
        if isinstance(node, ast.Call) and not quoted:
            for left, right, matters in argument_pairs(node, self.walk.text, self.walk.lines):
                self.place(index, SWAP, first + 1 + left, first + 1 + right, int(matters))

    def _span(self, node: ast.AST, index: int, quoted: bool) -> None:
        if quoted:
            above = self.parent[index]
            self.start.append(self.start[above])
            self.end.append(self.end[above])
            return
        line = getattr(node, "lineno", None)
        if line is None:
            self.start.append(-1)
            self.end.append(-1)
            return
        lines = self.walk.lines
        self.start.append(lines[line - 1] + node.col_offset)  # type: ignore[attr-defined]
        self.end.append(lines[node.end_lineno - 1] + node.end_col_offset)  # type: ignore[attr-defined]

    def _leaf(
        self,
        leaf: object,
        above: object,
        queue: list[tuple[object, int, str, int, bool]],
        index: int,
        quoted: bool,
    ) -> None:
        text = leaf.text if isinstance(leaf, nodes.Operator) else str(leaf)
        self.kind.append(KIND["Op" if isinstance(leaf, nodes.Operator) else "Identifier"])
        self.token.append(self.walk.number(text))
        parent = self.parent[index]
        span = None
        if isinstance(leaf, nodes.Operator) and not quoted:
            span = operator_span(leaf, self.walk.text, self.walk.lines)
        self.start.append(span[0] if span else self.start[parent])
        self.end.append(span[1] if span else self.end[parent])
        if span and isinstance(leaf, nodes.Operator) and text in OPERATOR and isinstance(above, ast.AST):
            around = queue[self.parent[parent]][0] if parent else None
            fits, differs = operator_masks(above, leaf, around, self.walk.text, self.walk.lines)
            if fits:
                self.place(index, OPERATION, OPERATOR[text], fits, differs)

    def _literal(self, node: ast.Constant | ast.UnaryOp, index: int) -> None:
        value = nodes.number(node)
        truth = isinstance(node, ast.Constant) and isinstance(node.value, bool)
        if truth or (value is not None and INT_LOW <= value <= INT_HIGH):
            self.place(index, LITERAL, self.token[index], int(truth), 1)

    def place(self, node: int, kind: int, a: int, b: int, c: int) -> None:
        self.walk.add("place", node, kind, a, b, c)

    # Names, once everything is known.

    def resolve(self) -> None:
        """Write symbols, occurrences and the places of names."""
        self.symbols: list[list[tuple[int, int, bool]]] = []
        for node, name, scope, role, quoted in self.names:
            if role not in (LOAD, CALLED):
                self._occur(self._bind(name, scope), node, role, quoted)
        for node, name, scope, role, quoted in self.names:
            if role in (LOAD, CALLED):
                self._occur(self._look_up(name, scope), node, role, quoted or (self.shut and scope > 0))
        for a, b, scope in self.copies:
            left, right = self._look_up(a, scope), self._look_up(b, scope)
            if left is not None and right is not None:
                self.walk.add("alias", left, right)
        self._attribute_symbols()
        for symbol, found in enumerate(self.symbols):
            for node, role, _ in sorted(found):
                self.walk.add("occurrence", node, symbol, role)

    def _bind(self, name: str, scope: int) -> int | None:
        while scope in self.class_scopes or (scope >= 0 and name in self.declared[scope]):
            if scope in self.class_scopes:
                return None
            scope = self.outer[scope]
        if scope < 0:
            return None
        if name not in self.bound[scope]:
            self.bound[scope][name] = self._symbol(name, 0, self.scope_node[scope])
        return self.bound[scope][name]

    def _look_up(self, name: str, scope: int) -> int | None:
        inner = scope
        while scope >= 0:
            shut = scope in self.class_scopes or (self.shut and scope == 0 < inner)
            if not shut and name in self.bound[scope]:
                return self.bound[scope][name]
            scope = self.outer[scope]
        return None

    def _symbol(self, name: str, group: int, node: int) -> int:
        self.walk.add("symbol", self.walk.number(name), group, node, node)
        self.symbols.append([])
        return len(self.symbols) - 1

    def _occur(self, symbol: int | None, node: int, role: int, quoted: bool, kind: int = VARIABLE) -> None:
        if symbol is None:
            return
        self.symbols[symbol].append((node, role, quoted))
        if role in (LOAD, CALLED) and not quoted:
            self.place(node, kind, symbol, 0, 1)

    def _attribute_symbols(self) -> None:
        groups: dict[str, int] = {}
        known: dict[tuple[str, str], int] = {}
        for node, base, name, role, quoted in self.attributes:
            if (base, name) not in known:
                group = groups.setdefault(base, len(groups) + 1)
                known[base, name] = self._symbol(name, group, 0)
            self._occur(known[base, name], node, role, quoted, ATTRIBUTE)
