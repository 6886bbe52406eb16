"""The rules of a checker, read from its source, and the checker without one of them.

A rule is a `raise`; a call of a function of the file that holds rules; or one part of the condition that guards a rule.
Rules are found in the syntax tree, so one that is added is found too, and is asked for its wrong example. The checker
without it is compiled from the changed tree; no file is written.
"""

from __future__ import annotations

import ast
import copy
import importlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from outsize.errors import OutsizeError


@dataclass(frozen=True)
class Rule:
    """One rule, or one part of its condition.

    Attributes:
        name: function and message, readable and free of line numbers.
        kind: `raise`, `call` or `part`.
        path: where in the syntax tree: the number of the node in a walk.
        part: which operand of the condition, for `part`.
        lines: first and last line of a `raise`.
    """

    name: str
    kind: str
    path: int
    part: int = -1
    lines: tuple[int, int] = (0, 0)


class Checker:
    """A module that checks, and the rules in its source."""

    def __init__(self, module: str, errors: tuple[str, ...], source: str | None = None) -> None:
        self.module = importlib.import_module(module)
        self.name = module
        self.file = str(self.module.__file__)
        self.tree = ast.parse(Path(self.file).read_text() if source is None else source)
        self.errors = errors
        if source is not None:
            self.module = self._compiled(copy.deepcopy(self.tree))
        self.rules = list(self._rules())

    def _rules(self) -> Iterator[Rule]:
        holders = self._functions_with_rules()
        for number, node, function in _walk(self.tree):
            if isinstance(node, ast.Raise):
                lines = (node.lineno, node.end_lineno or node.lineno)
                yield Rule(f"{function}: {_message(node)}", "raise", number, lines=lines)
            elif isinstance(node, ast.Expr) and _called(node.value) in holders:
                yield Rule(f"{function}: {ast.unparse(node)}", "call", number)
            elif (
                isinstance(node, ast.If)
                and isinstance(node.test, ast.BoolOp)
                and isinstance(node.body[0], ast.Raise)
            ):
                for part, operand in enumerate(node.test.values):
                    text = f"{_message(node.body[0])} where {ast.unparse(operand)}"
                    yield Rule(f"{function}: {text}", "part", number, part)

    def _functions_with_rules(self) -> set[str]:
        """Names of functions that raise, or call one that does."""
        functions = [n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef)]
        found = {f.name for f in functions if any(isinstance(n, ast.Raise) for n in ast.walk(f))}
        while (
            more := {
                f.name
                for f in functions
                if any(_called(n) in found for n in ast.walk(f) if isinstance(n, ast.Call))
            }
            - found
        ):
            found |= more
        return found

    def without(self, rule: Rule) -> ModuleType:
        """The module with that rule taken out."""
        tree = copy.deepcopy(self.tree)
        node = next(node for number, node, _ in _walk(tree) if number == rule.path)
        if rule.kind == "part":
            assert isinstance(node, ast.If)
            assert isinstance(node.test, ast.BoolOp)
            left = node.test.values[: rule.part] + node.test.values[rule.part + 1 :]
            node.test = left[0] if len(left) == 1 else ast.BoolOp(op=node.test.op, values=left)
            changed: ast.AST = tree
        else:
            changed = _Removed(node).visit(tree)
        return self._compiled(changed)

    def _compiled(self, tree: ast.AST) -> ModuleType:
        module = ModuleType(self.name)
        module.__dict__.update(__package__=self.name.rpartition(".")[0], __file__=self.file)
        exec(compile(ast.fix_missing_locations(tree), self.file, "exec"), module.__dict__)
        return module

    def verdict(self, module: ModuleType, example: Callable[[ModuleType], Any]) -> str:
        """`accepted`, the name of the rule that refused, or `crashed`."""
        try:
            example(module)
        except OutsizeError as error:
            if type(error).__name__ not in self.errors:
                return f"crashed: {error!r}"
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self.file]
            raised = [
                r for r in self.rules if r.kind == "raise" and r.lines[0] <= (lines[-1] or 0) <= r.lines[1]
            ]
            return raised[0].name if raised else f"crashed: {error!r}"
        except Exception as error:
            return f"crashed: {error!r}"
        return "accepted"


class _Removed(ast.NodeTransformer):
    """`pass` in the place of one statement."""

    def __init__(self, node: ast.AST) -> None:
        self.node = node

    def visit(self, node: ast.AST) -> Any:
        return ast.copy_location(ast.Pass(), node) if node is self.node else self.generic_visit(node)


def _walk(tree: ast.AST) -> Iterator[tuple[int, ast.AST, str]]:
    """Nodes in the order of the text with their numbers, and the function around each."""
    count = 0
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, function = stack.pop()
        yield count, node, function
        count += 1
        name = node.name if isinstance(node, ast.FunctionDef) else function
        stack.extend((child, name) for child in reversed(list(ast.iter_child_nodes(node))))


def _called(node: ast.AST) -> str:
    """Name of the function or method that is called."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _message(node: ast.Raise) -> str:
    """The constant words of what is raised."""
    texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return " ".join(" ".join(texts).split())
