"""How one node of Python's `ast` becomes a row of a forest: kind, token, and the children that matter.

`ast` carries wrappers (`Expr`, load and store contexts) and leaves out what a reader sees (operators have no
place in the source). Here a context folds into the kind, a wrapper disappears, an operator becomes a leaf
between its
operands, a negative number is one leaf, and a default hangs under its argument: fewer nodes, and fewer steps
between two that belong together.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from .grammar import FIELD, KIND

#: A child: an `ast` node, or an `Operator`, or a plain name, with its role.
Child = tuple[object, str]


class Operator:
    """An operator between two operands; its place in the source lies in the gap between them."""

    __slots__ = ("left", "right", "suffix", "text")

    def __init__(self, text: str, left: ast.AST, right: ast.AST, suffix: str = "") -> None:
        self.text, self.left, self.right, self.suffix = text, left, right, suffix


_SYMBOL = {
    "Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "Mod": "%",
    "MatMult": "@", "Pow": "**",
    "LShift": "<<", "RShift": ">>", "BitAnd": "&", "BitOr": "|", "BitXor": "^", "And": "and", "Or": "or",
    "Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Is": "is", "IsNot": "is not",
    "In": "in", "NotIn": "not in",
}  # fmt: skip


def symbol(operator: ast.AST) -> str:
    return _SYMBOL[type(operator).__name__]


def number(node: ast.AST) -> int | None:
    """The whole number a node spells, with its sign; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number(node.operand) if isinstance(node.operand, ast.Constant) else None
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def constant(value: object) -> tuple[str, str]:
    """Kind and token of a literal; long texts are cut, they are read by their first words."""
    if value is None:
        return "None", ""
    if isinstance(value, bool):
        return "Bool", str(value)
    if isinstance(value, int):
        return "Int", str(value) if abs(value) < 10**9 else "big"
    if isinstance(value, float):
        return "Float", repr(value)
    if isinstance(value, str):
        return "Str", value[:40]
    if isinstance(value, bytes):
        return "Bytes", value[:40].decode("latin-1")
    return ("Ellipsis", "") if value is ... else ("Complex", repr(value))


def _stored(node: ast.AST) -> bool:
    return not isinstance(getattr(node, "ctx", None), ast.Load)


def describe(node: ast.AST) -> tuple[str, str]:
    """Kind and token of one `ast` node."""
    name = type(node).__name__
    if isinstance(node, ast.Name):
        return ("NameStore" if _stored(node) else "Name"), node.id
    if isinstance(node, ast.Attribute):
        return ("AttributeStore" if _stored(node) else "Attribute"), node.attr
    if isinstance(node, ast.Constant):
        return constant(node.value)
    if isinstance(node, ast.UnaryOp):
        value = number(node)
        return (type(node.op).__name__, "") if value is None else constant(value)
    if isinstance(node, ast.Subscript | ast.Tuple | ast.List):
        stored = _stored(node)
        return ("SubscriptStore" if name == "Subscript" else "TupleStore") if stored else name, ""
    token = getattr(node, "name", None) or getattr(node, "arg", None) or getattr(node, "module", None) or ""
    return name, token if isinstance(token, str) else ""


def _binary(node: ast.BinOp) -> list[Child]:
    return [
        (node.left, "left"),
        (Operator(symbol(node.op), node.left, node.right), "op"),
        (node.right, "right"),
    ]


def _boolean(node: ast.BoolOp) -> list[Child]:
    first, second = node.values[0], node.values[1]
    rest: list[Child] = [(value, "values") for value in node.values[1:]]
    return [(first, "values"), (Operator(symbol(node.op), first, second), "op"), *rest]


def _compare(node: ast.Compare) -> list[Child]:
    children: list[Child] = [(node.left, "left")]
    left: ast.AST = node.left
    for op, right in zip(node.ops, node.comparators):
        children += [(Operator(symbol(op), left, right), "op"), (right, "comparators")]
        left = right
    return children


def _augmented(node: ast.AugAssign) -> list[Child]:
    operator = Operator(symbol(node.op), node.target, node.value, "=")
    return [(node.target, "target"), (operator, "op"), (node.value, "value")]


def _arguments(node: ast.arguments) -> list[Child]:
    children: list[Child] = []
    for role, given in (("posonly", node.posonlyargs), ("args", node.args)):
        children += [(arg, role) for arg in given]
    if node.vararg:
        children.append((node.vararg, "vararg"))
    children += [(arg, "kwonly") for arg in node.kwonlyargs]
    if node.kwarg:
        children.append((node.kwarg, "kwarg"))
    return children


def defaults(node: ast.arguments) -> dict[int, ast.expr]:
    """`id(argument) → default`, gathered where the argument list is known."""
    positional = [*node.posonlyargs, *node.args]
    given = dict(zip(map(id, reversed(positional)), reversed(node.defaults)))
    return given | {id(a): d for a, d in zip(node.kwonlyargs, node.kw_defaults) if d is not None}


def _dict(node: ast.Dict) -> list[Child]:
    children: list[Child] = []
    for key, value in zip(node.keys, node.values):
        children += ([(key, "keys")] if key is not None else []) + [(value, "values")]
    return children


def _names(node: ast.Global | ast.Nonlocal) -> list[Child]:
    return [(name, "names") for name in node.names]


def _unary(node: ast.UnaryOp) -> list[Child]:
    return [] if number(node) is not None else [(node.operand, "operand")]


def _joined(node: ast.JoinedStr) -> list[Child]:
    return [(v.value, "values") for v in node.values if isinstance(v, ast.FormattedValue)]


_SPECIAL: dict[type, Callable[..., list[Child]]] = {
    ast.BinOp: _binary, ast.BoolOp: _boolean, ast.Compare: _compare, ast.AugAssign: _augmented,
    ast.arguments: _arguments, ast.Dict: _dict, ast.Global: _names, ast.Nonlocal: _names, ast.UnaryOp: _unary,
    ast.JoinedStr: _joined, ast.Name: lambda node: [], ast.Constant: lambda node: [],
}  # fmt: skip
_SKIPPED = frozenset(
    {"ctx", "op", "ops", "type_comment", "type_ignores", "kind", "level", "is_async", "simple"}
)
_BODIES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)


def children(node: ast.AST) -> list[Child]:
    """The children in reading order, wrappers and docstrings left out."""
    special = _SPECIAL.get(type(node))
    if special is not None:
        return special(node)
    return list(_generic(node))


def _generic(node: ast.AST) -> Iterator[Child]:
    skip_first = isinstance(node, _BODIES) and _has_docstring(node.body)
    for role in node._fields:
        if role in _SKIPPED:
            continue
        value = getattr(node, role, None)
        if isinstance(value, ast.AST):
            yield _unwrapped(value), role
        elif isinstance(value, list):
            for item in value[1:] if skip_first and role == "body" else value:
                if isinstance(item, ast.AST):
                    yield _unwrapped(item), role


def _unwrapped(node: ast.AST) -> ast.AST:
    return node.value if isinstance(node, ast.Expr) else node


def _has_docstring(body: list[ast.stmt]) -> bool:
    first = body[0] if len(body) > 1 else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and type(first.value.value) is str
    )


def kind_id(name: str) -> int:
    return KIND.get(name, 0)


def field_id(name: str) -> int:
    return FIELD.get(name, 0)
