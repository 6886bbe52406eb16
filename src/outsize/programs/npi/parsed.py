"""The syntax tree of a function, and proof that it is the tree of what runs.

What a program means is read off its text, so the text must be the one that was compiled: a file that was edited since, a
decorator, two lambdas on one line or generated code all make `inspect.getsource` answer with something else. Here the
whole file is compiled again, and the tree at a function's place counts only if it gives the function's own bytecode.
"""

from __future__ import annotations
import __future__

import ast
import functools
import linecache
from collections.abc import Iterator
from os.path import basename
from types import CodeType, FunctionType
from typing import Any, NoReturn

from ...errors import NpiError

__all__ = ["Tree", "place", "tree_of"]

Tree = ast.FunctionDef | ast.Lambda
_FUTURE = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag, __future__.all_feature_names, 0
)


def place(function: FunctionType) -> str:
    """File and line of a function, for messages."""
    return f"{basename(function.__code__.co_filename)}:{function.__code__.co_firstlineno}"


def tree_of(function: FunctionType) -> Tree:
    """The function's syntax tree, line numbers those of its file. Not to be changed: it is kept for the next call.

    Raises:
        NpiError: its source cannot be read, or is not what runs.
    """
    code = function.__code__
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    if not text.strip():
        _refuse(function, "its source cannot be read; put it into a file")
    try:
        module, codes = _compiled(text, code.co_filename, code.co_flags & _FUTURE)
    except (SyntaxError, ValueError, RecursionError) as error:
        _refuse(function, f"its file cannot be compiled ({error})")
    # pytest compiles `assert` into something longer that means the same, in every module of tests.
    here = [c for c in codes if (c.co_name, c.co_firstlineno) == (code.co_name, code.co_firstlineno)]
    if not any(_key(c) == _key(code) for c in here) and not (here and "@pytest_ar" in function.__globals__):
        _refuse(function, "its source is not what runs; was the file edited since it was imported?")
    found = [
        n for n in _functions(module) if _first_line(n) == code.co_firstlineno and _named(n) == code.co_name
    ]
    if len(found) > 1 and (span := _span(code)) is not None:
        found = [n for n in found if isinstance(n, ast.Lambda) and _range(n.body) == span]
    if len(found) != 1:
        _refuse(
            function,
            f"line {code.co_firstlineno} holds more than one function of that name; give each a line",
        )
    return found[0]


def _refuse(function: FunctionType, why: str) -> NoReturn:
    raise NpiError(f"{function.__name__} ({place(function)}) cannot be looked into: {why}")


@functools.lru_cache(maxsize=32)
def _compiled(text: str, filename: str, flags: int) -> tuple[ast.Module, tuple[CodeType, ...]]:
    module = ast.parse(text)
    return module, tuple(_codes(compile(text, filename, "exec", flags=flags, dont_inherit=True)))


def _functions(module: ast.Module) -> Iterator[Tree]:
    return (n for n in ast.walk(module) if isinstance(n, ast.FunctionDef | ast.Lambda))


def _named(node: Tree) -> str:
    return node.name if isinstance(node, ast.FunctionDef) else "<lambda>"


def _first_line(node: Tree) -> int:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return min([node.lineno, *(d.lineno for d in decorators)])


def _codes(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from _codes(inner)


def _key(code: CodeType) -> tuple[Any, ...]:
    """What a code object does and where it stands in its file."""
    return tuple(code.co_positions()), _essence(code)


def _essence(code: CodeType) -> tuple[Any, ...]:
    constants = tuple(_essence(c) if isinstance(c, CodeType) else (type(c), _text(c)) for c in code.co_consts)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    return (code.co_code, code.co_exceptiontable, constants, names, counts)


def _text(constant: object) -> str:
    return str(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)


def _span(code: CodeType) -> tuple[int, int, int, int] | None:
    """Where a lambda's body begins and ends: the hull of its instructions' places."""
    places = [p for p in code.co_positions() if None not in p and p[2:] != (0, 0)]
    if not places:
        return None
    begin = min((line, column) for line, _, column, _ in places)
    end = max((line, column) for _, line, _, column in places)
    return (*begin, *end)  # type: ignore[return-value]


def _range(node: ast.expr) -> tuple[int, int | None, int, int | None]:
    return (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset)
