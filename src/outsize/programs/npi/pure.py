"""Data functions: plain Python on integers, which must answer by their arguments alone.

A data function becomes a primitive: it is asked for every input of its domain, once, and the answers are what the network
learns. That stands for the function only if it computes the same whenever it is asked, and changes nothing. So its text
is looked at: it may use what Python offers for computing, on what is its own, and read constants and tables.
"""

from __future__ import annotations

import ast
import builtins
import functools
import math
import operator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NoReturn, final

from ...errors import NpiError
from .names import BUILTINS, MISSING, Names, constant, frozen
from .parsed import Tree, place, tree_of

__all__ = ["check_data"]

_FORBIDDEN: dict[type[ast.AST], str] = {
    ast.Global: "`global`", ast.Nonlocal: "`nonlocal`", ast.Import: "an import", ast.ImportFrom: "an import",
    ast.ClassDef: "a class", ast.AsyncFunctionDef: "`async`", ast.Await: "`await`", ast.Yield: "`yield`",
    ast.YieldFrom: "`yield`", ast.With: "`with`", ast.AsyncWith: "`async`", ast.AsyncFor: "`async`",
}  # fmt: skip
#: Builtins that look at more than their arguments' values, or do something.
_IMPURE = {"open", "input", "print", "eval", "exec", "compile", "globals", "locals", "vars", "dir", "setattr", "getattr",
           "delattr", "hasattr", "id", "hash", "breakpoint", "memoryview", "super", "object", "exit", "quit", "help",
           "type", "property", "classmethod", "staticmethod", "copyright", "credits", "license"}  # fmt: skip
#: Modules whose functions are pure.
_MODULES: tuple[ModuleType, ...] = (math, operator)
_IN_PLACE = {"setitem", "delitem", "iadd", "iconcat", "imul", "ior", "iand", "ixor", "isub"}
#: Methods that read a table and leave it as it is.
_READING = {"get", "index", "count", "keys", "values", "items", "copy", "issubset", "issuperset", "isdisjoint", "union",
            "intersection", "difference", "startswith", "endswith", "find", "split", "join", "strip"}  # fmt: skip


def check_data(function: FunctionType) -> None:
    """Raise unless the function, and every function that it uses, answers by its arguments alone.

    Raises:
        NpiError: naming the function, the line and what to write.
    """
    waiting, met = [function], {id(function)}
    while waiting:
        check = _Check(waiting.pop())
        check.run()
        for used in check.uses:
            if id(used) not in met:
                met.add(id(used))
                waiting.append(used)


@final
class _Check:
    def __init__(self, function: FunctionType) -> None:
        self.function, self.names = function, Names(function)
        self.uses: list[FunctionType] = []

    def run(self) -> None:
        tree = tree_of(self.function)
        if isinstance(tree, ast.FunctionDef) and tree.decorator_list:
            self._refuse(
                tree, "a decorator", "what it does to the function is not looked into; call it without"
            )
        for name in self.names.assigned:
            self._refuse(tree, f"the outer name {name}, which it assigns", "return what it computes instead")
        defaults = [*(self.function.__defaults__ or ()), *(self.function.__kwdefaults__ or {}).values()]
        for default in defaults:
            if not constant(default):
                self._refuse(tree, f"a default of type {type(default).__name__}", "use a constant")
        for name, value in self.names.outer.items():
            self._outer(tree, name, value)
        for node in ast.walk(tree):
            self._node(node)

    def _outer(self, tree: Tree, name: str, value: Any) -> None:
        if name.startswith("@"):
            return  # of pytest, for its `assert`
        if isinstance(value, FunctionType):
            self.uses.append(value)
        elif value is MISSING:
            self._refuse(
                tree, f"the name {name}, which is not defined", "define it before the program is traced"
            )
        elif name in BUILTINS and value is BUILTINS[name]:
            if name in _IMPURE:
                self._refuse(tree, f"`{name}`", "compute the answer from the arguments alone")
        elif not (frozen(value) or self._known(value)):
            self._refuse(
                tree,
                f"{name}, {_article(value)}",
                "use constants, tables of constants, functions, `math` and `operator`",
            )

    def _known(self, value: Any) -> bool:
        """A module of pure functions, one of their functions, or a builtin under another name."""
        if isinstance(value, BuiltinFunctionType):
            return any(vars(m).get(value.__name__) is value for m in (*_MODULES, builtins)) and (
                value.__name__ not in _IMPURE
            )
        return any(value is m for m in _MODULES) or value is functools.reduce

    def _node(self, node: ast.AST) -> None:
        if type(node) in _FORBIDDEN:
            self._refuse(node, _FORBIDDEN[type(node)], "compute the answer from the arguments alone")
        if isinstance(node, ast.Attribute):
            self._attribute(node)
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            base = _base(node)
            if base is None or base in self.names.outer:
                self._refuse(
                    node, f"an assignment into {base or 'an expression'}", "build a table of its own, or none"
                )

    def _attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._refuse(node, f"an assignment to .{node.attr}", "keep state in local names")
        if node.attr.startswith("_"):
            self._refuse(node, f".{node.attr}", "use public methods of plain values")
        value = self.names.outer.get(node.value.id, MISSING) if isinstance(node.value, ast.Name) else MISSING
        if isinstance(value, ModuleType):  # one of _MODULES, or it was refused
            if node.attr in _IN_PLACE or isinstance(vars(value).get(node.attr), FunctionType | ModuleType):
                self._refuse(
                    node, f"{value.__name__}.{node.attr}", "use functions that leave their arguments alone"
                )
            return
        if value is not MISSING and node.attr not in _READING:
            self._refuse(node, f".{node.attr} of an outer name", "read tables only; what changes is local")

    def _refuse(self, node: ast.AST, what: str, write: str) -> NoReturn:
        line = getattr(node, "lineno", self.function.__code__.co_firstlineno)
        raise NpiError(
            f"{self.function.__name__} ({place(self.function)}) is a data function and uses {what} at line {line}: a "
            f"primitive answers by its inputs alone; {write}"
        )


def _base(node: ast.expr) -> str | None:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _article(value: Any) -> str:
    return (
        f"the module {value.__name__}"
        if isinstance(value, ModuleType)
        else f"an object of type {type(value).__name__}"
    )
