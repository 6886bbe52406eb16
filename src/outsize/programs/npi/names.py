"""What the names in a function's text stand for, outside of the function: globals, closed-over names, builtins.

A program and its data functions are proved as they were when they were traced. So everything that they take from
around them has to be a constant, a function or a table that nobody changes; a digest over all of it tells later whether
somebody did.
"""

from __future__ import annotations

import ast
import builtins
import dis
import hashlib
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, final

from .parsed import tree_of

__all__ = ["BUILTINS", "MISSING", "Names", "builtins_of", "constant", "digest", "frozen"]

#: The builtins as they were when this module was loaded: a name that stands for another object was replaced.
BUILTINS = {name: getattr(builtins, name) for name in dir(builtins) if not name.startswith("_")}
MISSING = object()
_SCALARS = (int, bool, str, float, bytes, complex, type(None))


def constant(value: object) -> bool:
    """Whether a value is of a plain type that nothing can change."""
    if type(value) in (tuple, frozenset):
        return all(constant(v) for v in value)  # type: ignore[attr-defined]
    return type(value) in _SCALARS or type(value) is range


def frozen(value: object) -> bool:
    """Whether a value is a constant or a plain table of constants."""
    if type(value) is dict:
        return all(constant(k) and frozen(v) for k, v in value.items())
    if type(value) in (list, set, tuple):
        return all(frozen(v) for v in value)  # type: ignore[attr-defined]
    return constant(value)


@final
class Names:
    """The outer names of one function.

    Attributes:
        outer: what its code and the code inside of it look up around it, by name (`MISSING` where there is nothing).
        assigned: outer names that it assigns or deletes.
        replaced: names of builtins that stand for something else than Python's own.
    """

    def __init__(self, function: FunctionType) -> None:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
        self.outer: dict[str, Any] = {}
        self.assigned: set[str] = set()
        self.replaced: set[str] = set()
        for name, cell in cells.items():
            try:
                self.outer[name] = cell.cell_contents
            except ValueError:
                self.outer[name] = MISSING
        for code in _codes(function.__code__):
            for step in dis.get_instructions(code):
                name = str(step.argval)
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    self.outer[name] = function.__globals__.get(
                        name, builtins_of(function).get(name, MISSING)
                    )
                elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_NAME", "DELETE_NAME") or (
                    step.opname in ("STORE_DEREF", "DELETE_DEREF") and name in cells
                ):
                    self.assigned.add(name)
        for name, value in self.outer.items():
            around = name in cells or name in function.__globals__
            if not around and value is not BUILTINS.get(name, MISSING):
                self.replaced.add(name)


def builtins_of(function: FunctionType) -> dict[str, Any]:
    """The builtins that a function was made with, which are what it looks up."""
    found: dict[str, Any] = function.__builtins__  # type: ignore[attr-defined]
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def digest(function: FunctionType) -> str:
    """SHA-256 of a function's text and of everything that it takes from around it, functions included."""
    lines: list[str] = []
    _describe(function, {}, lines)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _describe(function: FunctionType, known: dict[int, int], lines: list[str]) -> None:
    """Append the function's text, its defaults and its outer names; a function met before is a number."""
    known[id(function)] = len(known)
    tree = tree_of(function)
    lines.append(f"function {known[id(function)]}: {ast.dump(tree)}")
    lines.append(f"defaults {_value(function.__defaults__)} {_value(function.__kwdefaults__)}")
    for name, value in sorted(Names(function).outer.items()):
        if isinstance(value, FunctionType):
            lines.append(f"{name} = function {known.get(id(value), len(known))}")
            if id(value) not in known:
                _describe(value, known, lines)
        else:
            lines.append(f"{name} = {_value(value)}")


def _value(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    if isinstance(value, ModuleType | type | BuiltinFunctionType):
        return f"{getattr(value, '__module__', '')} {value.__name__}"
    if type(value) in (set, frozenset):
        return f"{type(value).__name__} {sorted(map(repr, value))}"
    if type(value) is tuple:
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, FunctionType):
        return f"function {digest(value)}"
    return repr(value) if frozen(value) else f"{type(value).__name__} {id(value)}"
