"""The language of programs: which Python a function over pointers may be written in.

A program is run by Python itself, on pointers that report and on values that remember where they came from. So its
meaning is Python's as long as nothing can tell such a value from an integer, and nothing outlives a call but tapes and
positions. What keeps to that is listed here, by kind of syntax; everything else is refused before the program runs, with
the line and with what to write instead. Data functions, which see integers only, have a looser rule (`pure.py`).
"""

from __future__ import annotations

import ast
from types import FunctionType
from typing import Any, NoReturn, final

from ...errors import NpiError
from .names import BUILTINS, MISSING, Names, constant
from .parsed import place, tree_of

__all__ = ["POINTER_METHODS", "check_program", "passable"]

POINTER_METHODS = {
    "read",
    "write",
    "move",
    "at_end",
    "at_start",
    "before",
    "meets",
    "goto",
    "copy",
    "middle",
    "seek",
}
#: Builtins that compare, add up or arrange their arguments and do nothing else.
_BUILTINS = {"abs", "all", "any", "bool", "divmod", "enumerate", "int", "len", "list", "max", "min", "range",
             "reversed", "sorted", "sum", "tuple", "zip"}  # fmt: skip
#: Builtins that use up a generator at once.
_CONSUMERS = {"all", "any", "list", "max", "min", "sorted", "sum", "tuple"}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift,
              ast.RShift)  # fmt: skip
_PLAIN = (ast.Pass, ast.Break, ast.Continue)

_TAPE = "what outlives a call lives on a tape (`write`) or in a pointer's position"
#: What to write instead of a kind of syntax: (its name, the advice).
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Raise: ("`raise`", "write a mark to a tape and return; an input that has no answer belongs into a data function"),
    ast.Assert: ("`assert`", "check in the code that calls the program, or write a mark to a tape and return"),
    ast.Try: ("`try`", "ask with at_end() or at_start() before reading or moving"),
    ast.With: ("`with`", "leave it to the code that calls the program"),
    ast.Global: ("`global`", _TAPE),
    ast.Nonlocal: ("`nonlocal`", _TAPE),
    ast.Delete: ("`del`", "leave the name alone"),
    ast.Import: ("an import", "import at the top of the module"),
    ast.ImportFrom: ("an import", "import at the top of the module"),
    ast.FunctionDef: ("a function that is defined inside of another function", "define it at the top of the module"),
    ast.AsyncFunctionDef: ("`async`", "write a plain function"),
    ast.ClassDef: ("a class", _TAPE),
    ast.Lambda: ("a lambda", "define a function at the top of the module and pass it by name"),
    ast.NamedExpr: ("`:=`", "assign in a statement of its own; in a loop's test, compute it again inside"),
    ast.Yield: ("`yield`", "write to a tape"),
    ast.YieldFrom: ("`yield`", "write to a tape"),
    ast.Await: ("`await`", "write a plain function"),
    ast.JoinedStr: ("an f-string", "compute on integers, or in a function of the values, which becomes a primitive"),
    ast.Dict: ("a dictionary", "look values up in a function of the values, which becomes a primitive"),
    ast.Set: ("a set", "compare with `in (a, b)`, or compute in a function of the values, which becomes a primitive"),
    ast.DictComp: ("a dictionary", "look values up in a function of the values, which becomes a primitive"),
    ast.SetComp: ("a set", "compare with `in (a, b)`"),
    ast.Starred: ("`*`", "pass each argument by itself"),
    ast.Is: ("`is`", "compare with ==, or ask a pointer (at_end, meets); only `parameter is None` is known"),
    ast.IsNot: ("`is not`", "compare with !=, or ask a pointer; only `parameter is not None` is known"),
    ast.Div: ("`/`", "tapes hold integers: use `//`"),
    ast.Pow: ("`**`", "multiply, or compute in a function of the values, which becomes a primitive"),
    ast.MatMult: ("`@`", "compute in a function of the values, which becomes a primitive"),
    ast.MatchClass: ("a class pattern", "a value is an integer; use `case 0 | 1:` or if and elif"),
    ast.MatchSingleton: ("a pattern that asks for identity", "use if and elif"),
}  # fmt: skip
_BUILTIN_HINTS = {
    "print": "print after the run", "str": "compute in a function of the value, which becomes a primitive",
    "isinstance": "a value read from a tape is always an integer", "type": "a value is always an integer",
    "map": "write a comprehension or a loop", "filter": "write a comprehension or a loop",
}  # fmt: skip


def check_program(function: FunctionType) -> ast.FunctionDef:
    """The syntax tree of a function over pointers, if it is in the language.

    Raises:
        NpiError: what is not, its line, and what to write.
    """
    tree = tree_of(function)
    check = _Check(function)
    if not isinstance(tree, ast.FunctionDef):
        check.refuse(tree, "a lambda over pointers", "write `def`")
    if tree.decorator_list:
        check.refuse(
            tree.decorator_list[0],
            "a decorator",
            "what it does is not looked into; write it into the function",
        )
    plain = not (tree.args.vararg or tree.args.kwarg or tree.args.kwonlyargs or tree.args.posonlyargs)
    if not plain:
        check.refuse(
            tree, "`*`, `**` or `/` among its parameters", "name each parameter, as in `def f(p, q, k=0)`"
        )
    defaults = zip(reversed(tree.args.args), reversed(function.__defaults__ or ()))
    for argument, default in defaults:
        if not (passable(default) or _steady(default)):
            check.refuse(argument, f"a default of type {type(default).__name__}", "use a constant, or none")
    check.parameters = {a.arg for a in tree.args.args} - _assigned(tree)
    check.statements(tree.body)
    return tree


def _assigned(tree: ast.FunctionDef) -> set[str]:
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def passable(value: object) -> bool:
    """Whether a program may pass this on as a constant: it makes a program of its own."""
    return isinstance(value, FunctionType) or (
        constant(value) and not isinstance(value, bytes | complex | range)
    )


@final
class _Check:
    """One function's statements and expressions against the lists above."""

    def __init__(self, function: FunctionType) -> None:
        self.function, self.names = function, Names(function)
        self.parameters: set[str] = set()

    def refuse(self, node: ast.AST, what: str, write: str) -> NoReturn:
        line = getattr(node, "lineno", self.function.__code__.co_firstlineno)
        raise NpiError(
            f"{self.function.__name__} ({place(self.function)}) uses {what} at line {line}, which a program over "
            f"pointers cannot: {write}"
        )

    def _unknown(self, node: ast.AST, at: ast.AST) -> NoReturn:
        what, write = _REFUSED.get(
            type(node), (type(node).__name__, "see docs/npi.md for what a program may do")
        )
        self.refuse(at, what, write)

    # -- statements

    def statements(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Expr(value=value) | ast.AnnAssign(value=value) | ast.Return(value=value):
                if isinstance(node, ast.AnnAssign):
                    self._target(node.target)
                if value is not None:
                    self._expression(value)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._target(target)
                self._expression(value)
            case ast.AugAssign(target=target, op=op, value=value):
                if not isinstance(target, ast.Name):
                    self._target(target)
                self._operator(op, node)
                self._expression(value)
            case ast.If(test=test) | ast.While(test=test):
                self._expression(test)
                self.statements(node.body)
                self.statements(node.orelse)
            case ast.For(target=target, iter=over):
                self._target(target)
                self._expression(over)
                self.statements(node.body)
                self.statements(node.orelse)
            case ast.Match(subject=subject, cases=cases):
                self._expression(subject)
                for case in cases:
                    self._pattern(case.pattern, node)
                    if case.guard is not None:
                        self._expression(case.guard)
                    self.statements(case.body)
            case _ if not isinstance(node, _PLAIN):
                self._unknown(node, node)

    def _pattern(self, node: ast.pattern, at: ast.AST) -> None:
        match node:
            case ast.MatchValue(value=value):
                self._expression(value)
            case ast.MatchOr(patterns=patterns):
                for pattern in patterns:
                    self._pattern(pattern, at)
            case ast.MatchAs(pattern=None, name=None):
                pass
            case _:
                what = _REFUSED.get(type(node), ("a pattern other than constants and `_`", "use if and elif"))
                self.refuse(node, *what)

    def _target(self, node: ast.expr) -> None:
        match node:
            case ast.Name(id=name):
                if name in self.names.assigned:
                    self.refuse(node, f"the outer name {name}, which it assigns", _TAPE)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self._target(part)
            case ast.Starred():
                self._unknown(node, node)
            case _:
                self.refuse(node, "an assignment into an object", _TAPE)

    # -- expressions

    def _expression(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=value):
                if not passable(value):
                    self.refuse(node, f"the constant {value!r}", "use integers")
            case ast.Name(id=name):
                self._name(node, name)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.BoolOp(values=parts):
                self._all(parts)
            case ast.BinOp(left=left, op=op, right=right):
                self._operator(op, node)
                self._all([left, right])
            case ast.UnaryOp(operand=operand):
                self._expression(operand)
            case ast.Compare():
                self._comparison(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._all([test, body, orelse])
            case ast.Subscript(value=value, slice=index):
                self._all([value, index])
            case ast.Slice():
                self._all([p for p in (node.lower, node.upper, node.step) if p is not None])
            case ast.ListComp():
                self._comprehension(node)
            case ast.Call():
                self._call(node)
            case ast.Attribute(attr=attr):
                self.refuse(
                    node,
                    f".{attr}",
                    f"a pointer is known by its methods alone ({', '.join(sorted(POINTER_METHODS))})",
                )
            case ast.GeneratorExp():
                self.refuse(node, "a generator that is kept", "use it up at once, as in any(… for …)")
            case _:
                self._unknown(node, node)

    def _all(self, nodes: list[ast.expr]) -> None:
        for node in nodes:
            self._expression(node)

    def _operator(self, op: ast.operator, at: ast.AST) -> None:
        if not isinstance(op, _OPERATORS):
            self._unknown(op, at)

    def _comparison(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for op, left, right in zip(node.ops, sides, sides[1:]):
            if isinstance(op, ast.Is | ast.IsNot):
                nothing = isinstance(right, ast.Constant) and right.value is None
                if not (nothing and isinstance(left, ast.Name) and left.id in self.parameters):
                    self._unknown(op, node)
        self._all(sides)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> None:
        for part in node.generators:
            if part.is_async:
                self.refuse(node, "`async`", "write a plain loop")
            self._target(part.target)
            self._all([part.iter, *part.ifs])
        self._expression(node.elt)

    def _call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name):
                self._expression(node.func)
            case ast.Attribute(value=value, attr=attr) if attr in POINTER_METHODS:
                name = ""
                if isinstance(value, ast.Name) and value.id in self.names.outer:
                    self.refuse(
                        node,
                        f"{value.id}.{attr}",
                        f"import {attr} by name; pass every pointer as an argument",
                    )
                self._expression(value)
            case ast.Attribute(value=ast.Name(id=module), attr=attr) if module in self.names.outer:
                theirs = isinstance(getattr(self.names.outer[module], attr, None), FunctionType)
                advice = f"import it by name (`from {module} import {attr}`)"
                self.refuse(
                    node, f"{module}.{attr}", advice if theirs else "compute in a function of the values"
                )
            case _:
                self._expression(node.func)
                self.refuse(node, "a call of an expression", "give the function a name first")
        for argument in node.args:
            if isinstance(argument, ast.GeneratorExp) and name in _CONSUMERS and name in self.names.outer:
                self._comprehension(argument)
            else:
                self._expression(argument)
        for keyword in node.keywords:
            if keyword.arg is None:
                self.refuse(node, "`**`", "pass each argument by itself")
            self._expression(keyword.value)

    def _name(self, node: ast.AST, name: str) -> None:
        if name.startswith("__"):
            self.refuse(node, name, "names with two underscores are Python's own")
        if name not in self.names.outer:
            return
        value: Any = self.names.outer[name]
        if name in self.names.replaced and value is not MISSING:
            self.refuse(
                node, f"{name}, which was replaced among the builtins", "give the function another name"
            )
        builtin = name in BUILTINS and value is BUILTINS[name]
        if builtin and name in _BUILTINS:
            return
        if builtin:
            self.refuse(node, f"`{name}`", _BUILTIN_HINTS.get(name, "compute in a function of the values"))
        if value is MISSING:
            self.refuse(
                node, f"the name {name}, which is not defined", "define it before the program is traced"
            )
        if not (isinstance(value, FunctionType) or _steady(value)):
            kind = getattr(value, "__name__", "") if callable(value) else ""
            self.refuse(
                node, f"{name}, {kind or 'an object'} of type {type(value).__name__}",
                "around a program there are functions and constants (integers, tuples); a builtin goes into a function "
                f"of the values, which becomes a primitive, and {_TAPE}",
            )  # fmt: skip


def _steady(value: object) -> bool:
    """Constants, and tuples of constants and functions."""
    if type(value) is tuple:
        return all(_steady(v) or isinstance(v, FunctionType) for v in value)
    return constant(value)
