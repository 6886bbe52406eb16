"""Which operators and argument orders could be wrong, and which changes would change nothing.

A bug that is injected must change what the program means, and a repair that is proposed must fit the text as
it
stands: `a + b * c` with `*` made `+` would regroup. So an operator may be exchanged for one that binds
equally tightly, or for any of its family where parentheses (or the lack of neighbours) make the grouping
certain. The set that fits is the same before and after an exchange, hence every injected bug has its repair
among the proposals.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from .grammar import FAMILIES, OPERATOR, TIGHTNESS
from .python_nodes import Operator, number

#: A call of these gives the same with its arguments exchanged.
SYMMETRIC_CALLS = frozenset({"max", "min", "gcd", "lcm", "isclose", "hypot", "allclose", "array_equal"})
#: Arguments considered for an exchange: the first four positional ones, six pairs.
MAX_ARGUMENTS = 4
_FAMILY = {op: family for family in FAMILIES for op in family}
_BLANK = rb"(?:\s|\\|\#[^\r\n]*)"
_PATTERN: dict[str, re.Pattern[bytes]] = {}
_UNMOVABLE = (ast.GeneratorExp, ast.Yield, ast.YieldFrom, ast.NamedExpr, ast.Starred)
_OPERATIONS = (ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.Await)


def offsets(node: ast.AST, lines: Sequence[int]) -> tuple[int, int]:
    start = lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
    return start, lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]


def operator_span(leaf: Operator, text: bytes, lines: Sequence[int]) -> tuple[int, int] | None:
    """Bytes of the operator in the gap between its operands, comments passed over."""
    low, high = offsets(leaf.left, lines)[1], offsets(leaf.right, lines)[0]
    spelled = leaf.text + leaf.suffix
    pattern = _PATTERN.get(spelled)
    if pattern is None:
        words = (re.escape(word.encode()) for word in spelled.split())
        pattern = _PATTERN[spelled] = re.compile(rb"#[^\r\n]*|(" + (_BLANK + b"+").join(words) + b")")
    for match in pattern.finditer(text, low, high):
        if match[1] is not None:
            return match.span(1)
    return None


def in_parentheses(node: ast.AST, text: bytes, lines: Sequence[int]) -> bool:
    start, end = offsets(node, lines)
    return text[:start].rstrip()[-1:] == b"(" and text[end : end + 80].lstrip()[:1] == b")"


def operator_masks(
    node: ast.AST, leaf: Operator, around: object, text: bytes, lines: Sequence[int]
) -> tuple[int, int]:
    """Bit sets over `grammar.OPERATORS`: those that fit, and those of them that change the meaning."""
    own = leaf.text
    if isinstance(node, ast.BoolOp) and len(node.values) != 2:
        return 0, 0
    certain = isinstance(node, ast.AugAssign | ast.Compare) or _grouped(node, around, text, lines)
    fits = [op for op in _FAMILY[own] if certain or TIGHTNESS[op] == TIGHTNESS[own]]
    differs = [op for op in fits if op != own and not _same(own, op, leaf)]
    return _bits(fits) if len(fits) > 1 else 0, _bits(differs)


def _bits(operators: Sequence[str]) -> int:
    return sum(1 << OPERATOR[op] for op in operators)


def _grouped(node: ast.AST, around: object, text: bytes, lines: Sequence[int]) -> bool:
    """Whether neither the operation around nor the operands could regroup under a looser or tighter
    operator.
    """
    operands = [node.left, node.right] if isinstance(node, ast.BinOp) else getattr(node, "values", [])
    inner = (op for op in operands if isinstance(op, _OPERATIONS) and not _tight(op))
    if any(not in_parentheses(op, text, lines) for op in inner):
        return False
    if isinstance(around, ast.Compare) and isinstance(node, ast.BinOp):
        return True
    return not isinstance(around, _OPERATIONS) or in_parentheses(node, text, lines)


def _tight(operand: ast.AST) -> bool:
    """Operands that no binary operator here can split: powers, and signs."""
    if isinstance(operand, ast.BinOp):
        return isinstance(operand.op, ast.Pow)
    return isinstance(operand, ast.Await) or (
        isinstance(operand, ast.UnaryOp) and not isinstance(operand.op, ast.Not)
    )


def _same(own: str, other: str, leaf: Operator) -> bool:
    """Whether exchanging the operator provably leaves the value as it was."""
    left, right = leaf.left, leaf.right
    pair = {own, other}
    zero_or_one = number(right)
    if zero_or_one == 0 and pair <= {"+", "-", "|", "^", "<<", ">>"}:
        return True
    if zero_or_one == 1 and pair <= {"*", "/", "//"}:
        return True
    if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
        return _folded(own, left.value, right.value) == _folded(other, left.value, right.value)
    if pair <= {"and", "or", "&", "|"} and ast.dump(left) == ast.dump(right):
        return True
    if zero_or_one == 0 and (pair == {">", "!="} or pair == {"<=", "=="}):
        return isinstance(left, ast.Call) and isinstance(left.func, ast.Name) and left.func.id == "len"
    return False


def _folded(op: str, left: object, right: object) -> object:
    """Value of an operation on two small whole numbers; a fresh object (equal to nothing) where there is
    none.
    """
    if type(left) is not int or type(right) is not int or max(abs(left), abs(right)) > 1000:
        return object()
    table = {
        "+": left + right, "-": left - right, "*": left * right, "&": left & right, "|": left | right,
        "^": left ^ right, "==": left == right, "!=": left != right, "<": left < right, "<=": left <= right,
        ">": left > right, ">=": left >= right, "and": left and right, "or": left or right,
    }  # fmt: skip
    return table.get(op, object())


def sticks(literal: ast.AST, above: object) -> bool:
    """Whether another number in this place, with or without a sign, would be read as another tree."""
    if isinstance(above, ast.BinOp):
        return isinstance(above.op, ast.Pow) and above.left is literal
    if isinstance(above, ast.Subscript):
        return above.value is literal
    return isinstance(above, ast.UnaryOp | ast.Attribute | ast.Await)


def argument_pairs(call: ast.Call, text: bytes, lines: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Pairs of positional arguments whose texts differ: `(first, second, whether the order matters)`."""
    if len(call.args) < 2 or any(isinstance(arg, ast.Starred) for arg in call.args):
        return
    spelled = []
    for arg in call.args[:MAX_ARGUMENTS]:
        start, end = offsets(arg, lines)
        spelled.append(b"" if isinstance(arg, _UNMOVABLE) else text[start:end])
    name = getattr(call.func, "id", None) or getattr(call.func, "attr", "")
    matters = name not in SYMMETRIC_CALLS
    for i in range(len(spelled)):
        for j in range(i + 1, len(spelled)):
            if spelled[i] and spelled[j] and spelled[i] != spelled[j]:
                yield i, j, matters
