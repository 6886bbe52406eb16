"""Python text to packed functions, through `ast`.

One walk per function, breadth first with an explicit queue, writes the node columns and notes what it meets:
names with their scope, attributes, operators, literals, calls. Names are resolved once the walk is over,
because a function may bind a name after it is read. Nothing recurses, nothing is executed, and every node's
span slices back to its text (except inside an f-string, where Python before 3.12 gives no usable places:
those nodes carry the span of the whole f-string and are never suspected).
"""

from __future__ import annotations

import ast
import dataclasses
import io
import re
import tokenize
import warnings
from collections.abc import Iterator

import numpy as np

from ...errors import TreesError
from .evidence import signatures
from .forest import Forest
from .functions import TABLES, Functions, preorder
from .grammar import FIELDS, KINDS
from .python_outside import RUN_NODES, Lines, units_outside
from .python_walk import Walk

#: A longer function is skipped in a scan: the packed tables grow with (names x places).
MAX_NODES = 8192
_NEWLINE = re.compile(rb"\r\n|\r|\n")


class Source:
    """A file's text as UTF-8 bytes, and where its lines start."""

    __slots__ = ("lines", "text")

    def __init__(self, source: str | bytes) -> None:
        self.text = decode(source).encode("utf-8", "surrogatepass")
        self.lines = [0, *(match.end() for match in _NEWLINE.finditer(self.text))]

    def offset(self, line: int, column: int) -> int:
        return self.lines[line - 1] + column


def decode(source: str | bytes) -> str:
    """Text of a Python file by its own declared encoding.

    Raises:
        TreesError: the bytes are not in that encoding.
    """
    if isinstance(source, str):
        return source
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        return source.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise TreesError(f"not readable as Python text: {error}") from error


def syntax_tree(source: Source) -> ast.Module:
    """Raises:
    TreesError: not valid Python, or nested too deeply for Python's own parser.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # As str: a declared encoding must not be applied to what is UTF-8 by now.
            return ast.parse(source.text.decode("utf-8", "surrogatepass"))
    except SyntaxError as error:
        raise TreesError(f"not valid Python: {error.msg} (line {error.lineno})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise TreesError(f"Python's parser gave up: {str(error) or type(error).__name__}") from error


def parse_python(source: str | bytes) -> Forest:
    """The whole module as one tree."""
    text = Source(source)
    walk = Walk(text.text, text.lines)
    walk.pack(syntax_tree(text))
    return _forest(walk)


def python_functions(source: str | bytes, *, max_nodes: int = MAX_NODES) -> Functions:
    """Every outermost function and method of a file; nested functions stay inside the function that holds
    them.

    Raises:
        TreesError: unreadable text.
    """
    text = Source(source)
    walk = Walk(text.text, text.lines, max_nodes=max_nodes)
    for node in outermost_functions(syntax_tree(text)):
        walk.pack(node)
    return finished(walk)


def python_outside(
    source: str | bytes, *, max_nodes: int = MAX_NODES, run_nodes: int = RUN_NODES
) -> tuple[Functions, list[Lines]]:
    """The code that is in no function (see `python_outside`), as if each unit were a function; and the lines of each.

    Raises:
        TreesError: unreadable text.
    """
    text = Source(source)
    return _outside(text, syntax_tree(text), max_nodes, run_nodes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """What a scan takes from one text.

    Attributes:
        functions: as `python_functions`.
        outside, lines: as `python_outside`.
        signatures: of the functions and methods that it defines (`evidence.signatures`).
    """

    functions: Functions
    outside: Functions
    lines: list[Lines]
    signatures: dict[str, tuple[str, ...]]


def python_file(text: Source) -> File:
    """`python_functions`, `python_outside` and the signatures of one text that is parsed once."""
    tree = syntax_tree(text)
    walk = Walk(text.text, text.lines, max_nodes=MAX_NODES)
    for node in outermost_functions(tree):
        walk.pack(node)
    outside, lines = _outside(text, tree, MAX_NODES, RUN_NODES)
    return File(functions=finished(walk), outside=outside, lines=lines, signatures=signatures(tree))


def _outside(text: Source, tree: ast.Module, max_nodes: int, run_nodes: int) -> tuple[Functions, list[Lines]]:
    walk = Walk(text.text, text.lines, max_nodes=max_nodes, cut=True)
    lines: list[Lines] = []
    for unit in units_outside(tree, run_nodes=run_nodes):
        if walk.pack(unit.root):
            lines.append(unit.lines)
    return finished(walk), lines


def outermost_functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Functions that are not inside a function, in the order of the text."""
    stack: list[ast.AST] = list(reversed(tree.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _forest(walk: Walk) -> Forest:
    return Forest(
        ptr=np.asarray(walk.ptr, np.int64), parent=np.asarray(walk.parent, np.int32),
        kind=np.asarray(walk.kind, np.int16), field=np.asarray(walk.field, np.int16),
        token=np.asarray(walk.token, np.int32), pos=np.asarray(walk.pos, np.int32),
        start=np.asarray(walk.start, np.int32), end=np.asarray(walk.end, np.int32),
        kinds=KINDS, fields=FIELDS, tokens=list(walk.tokens),
    )  # fmt: skip


def finished(walk: Walk) -> Functions:
    """The walk's lists as arrays, with the ranks that need the whole forest."""
    forest = _forest(walk)
    order, last = preorder(forest)
    columns = {f"{table}_ptr": np.asarray(walk.table_ptr[table], np.int64) for table in TABLES}
    for names in TABLES.values():
        columns |= {name: np.asarray(walk.rows[name], np.int32) for name in names}
    scope = columns["symbol_low"].astype(np.int64)
    base = np.repeat(np.asarray(forest.ptr[:-1]), np.diff(columns["symbol_ptr"]))
    columns["symbol_low"], columns["symbol_high"] = order[base + scope], last[base + scope]
    return Functions(forest=forest, order=order, last=last, columns=columns)
