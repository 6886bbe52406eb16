"""What `read` returns under a recorder: a value that remembers how it was computed from what was read.

The controller must never see a datum. So arithmetic on values builds an expression; writing one makes the
expression a primitive (method 3, claims 2 and 3), and branching on one makes it a primitive with a yes/no
answer. Anything else that would let a value steer the program (an index, a count, a dictionary key) is
refused with the line of the read, because no finite set of observations could then cover the program.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any, NoReturn, final

from ...errors import NpiError

__all__ = ["BINARY", "Expr", "Value", "canonical", "evaluate", "functions", "registers", "show"]

#: ("v", register) · ("c", literal) · (operator, left, right) · ("call", name, function, *arguments)
Expr = tuple[Any, ...]

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "&": operator.and_, "|": operator.or_, "^": operator.xor, "<<": lambda a, b: _shift(a, b), ">>": operator.rshift,
}  # fmt: skip
#: A larger shift by a value would only be computed to be thrown away, if memory lasts.
_MOST_SHIFTED = 4096
#: Nesting of an expression. A sum over more terms than this belongs into a data function or a loop.
_DEEPEST = 200
_COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}


def evaluate(expr: Expr, inputs: Mapping[int, int]) -> Any:
    """The expression's value, given what each value register holds: an integer, or a constant as it was written.

    Raises:
        NpiError: a data function answers with something else than an integer.
    """
    match expr:
        case ("v", register):
            return inputs[register]
        case ("c", literal):
            return literal
        case ("call", name, function, *arguments):
            given = [evaluate(a, inputs) for a in arguments]
            return _integer(function(*given), name, given)
        case (name, left, right):
            return int(BINARY[name](evaluate(left, inputs), evaluate(right, inputs)))
    raise AssertionError(expr)


def _integer(answer: object, name: str, given: Sequence[object]) -> int:
    """A data function's answer, which the program uses as Python would: so it must be what a tape can hold."""
    if type(answer) is int or type(answer) is bool:
        return int(answer)
    raise NpiError(
        f"{name}({', '.join(map(repr, given))}) answers {answer!r}: a data function answers every input with an integer, "
        "True or False (`//` and int() round), or raises ValueError where there is no answer"
    )


def _shift(left: int, right: int) -> int:
    if right > _MOST_SHIFTED:
        raise NpiError(
            f"{left} << {right} has more bits than a cell could hold; keep the second operand small"
        )
    return left << right


def registers(expr: Expr) -> list[int]:
    """Value registers in the order in which the expression names them, each once."""
    match expr:
        case ("v", register):
            return [register]
        case ("c", _):
            return []
        case ("call", _, _, *arguments):
            parts = arguments
        case (_, *parts):
            pass
    return list(dict.fromkeys(r for part in parts for r in registers(part)))


def show(expr: Expr) -> str:
    """The expression as source text, its inputs renamed x0, x1, … in order of appearance."""
    names = {register: f"x{i}" for i, register in enumerate(registers(expr))}

    def text(e: Expr) -> str:
        match e:
            case ("v", register):
                return names[register]
            case ("c", literal):
                return literal.__name__ if isinstance(literal, FunctionType) else repr(literal)
            case ("call", name, _, *arguments):
                return f"{name}({', '.join(map(text, arguments))})"
            case (name, left, right):
                return f"({text(left)} {name} {text(right)})"
        raise AssertionError(e)

    return text(expr)


def canonical(expr: Expr) -> Expr:
    """The expression with its registers numbered in order of appearance: equal for what is one primitive.

    Functions are compared as objects and constants with their types, so two functions of one name stay two.
    """
    number = {register: i for i, register in enumerate(registers(expr))}

    def walk(e: Expr) -> Expr:
        match e:
            case ("v", register):
                return ("v", number[register])
            case ("c", literal):
                return ("c", type(literal), literal if isinstance(literal, FunctionType) else repr(literal))
            case ("call", name, function, *arguments):
                return ("call", name, function, *map(walk, arguments))
            case (name, left, right):
                return (name, walk(left), walk(right))
        raise AssertionError(e)

    return walk(expr)


def functions(expr: Expr) -> Iterator[Any]:
    """The functions that an expression calls or passes on."""
    match expr:
        case ("c", literal):
            if isinstance(literal, FunctionType | BuiltinFunctionType):
                yield literal
        case ("call", _, function, *arguments):
            yield function
            for argument in arguments:
                yield from functions(argument)
        case (name, left, right) if name != "v":
            yield from functions(left)
            yield from functions(right)


@final
class Value:
    """A datum under a recorder. `number` is None while the program is explored without data."""

    __slots__ = ("answered", "ask", "depth", "expr", "frame", "line", "number")

    def __init__(
        self,
        expr: Expr,
        number: int | None,
        frame: int,
        line: str,
        ask: Callable[[Value], bool],
        depth: int = 0,
    ) -> None:
        self.expr, self.number, self.frame, self.line, self.ask = expr, number, frame, line, ask
        self.depth = depth
        self.answered: bool | None = None

    @property
    def is_comparison(self) -> bool:
        return self.expr[0] in _COMPARISONS

    def derive(self, expr: Expr, number: int | None, depth: int = 0) -> Value:
        depth = max(depth, self.depth) + 1
        if depth > _DEEPEST:
            raise NpiError(
                f"an expression of a value {self.line} is nested {depth} deep; compute it in a function of the values, "
                "or write partial results to a tape"
            )
        return Value(expr, number, self.frame, self.line, self.ask, depth)

    def _binary(self, name: str, other: object, reverse: bool = False) -> Value:
        if isinstance(other, Value):
            right, known = other.expr, other.number
            if other.frame != self.frame:
                raise NpiError(
                    f"values read in two different calls are combined ({self.line}, {other.line}); "
                    "write one to a tape cell and read it where it is needed"
                )
        elif type(other) in (int, bool):
            right, known = ("c", int(other)), int(other)  # type: ignore[call-overload]
        else:
            raise NpiError(f"a value {self.line} is combined with {other!r}, which is not an integer")
        sides = (right, self.expr) if reverse else (self.expr, right)
        numbers = (known, self.number) if reverse else (self.number, known)
        number = None if None in numbers else int(BINARY[name](*numbers))
        return self.derive((name, *sides), number, other.depth if isinstance(other, Value) else 0)

    def __bool__(self) -> bool:
        """Its truth: asked for once, since what was read does not change."""
        if self.answered is None:
            self.answered = self.ask(self)
        return self.answered

    def _refuse(self, what: str) -> NoReturn:
        raise NpiError(
            f"the program's control depends on an unbounded value: {what} of what was {self.line}. No finite "
            "set of observations covers that; branch on a comparison of the value, `seek` a pointer to it, or compute "
            "in a function of the value, which becomes a primitive"
        )

    def __abs__(self) -> Value:
        number = None if self.number is None else abs(self.number)
        return self.derive(("call", "abs", abs, self.expr), number)

    def __pos__(self) -> Value:
        return self

    def __invert__(self) -> Value:
        return self._binary("^", -1)

    def __divmod__(self, other: object) -> tuple[Value, Value]:
        return self // other, self % other

    def __truediv__(self, other: object) -> NoReturn:
        raise NpiError(f"a value {self.line} is divided by `/`; tapes hold integers: use `//`")

    def __int__(self) -> int:
        self._refuse("the number itself is taken")

    def __index__(self) -> int:
        self._refuse("an index or a count is made")

    def __hash__(self) -> int:
        self._refuse("a hash is taken")

    def __add__(self, other: object) -> Value:
        return self._binary("+", other)

    def __radd__(self, other: object) -> Value:
        return self._binary("+", other, reverse=True)

    def __sub__(self, other: object) -> Value:
        return self._binary("-", other)

    def __rsub__(self, other: object) -> Value:
        return self._binary("-", other, reverse=True)

    def __mul__(self, other: object) -> Value:
        return self._binary("*", other)

    def __rmul__(self, other: object) -> Value:
        return self._binary("*", other, reverse=True)

    def __floordiv__(self, other: object) -> Value:
        return self._binary("//", other)

    def __rfloordiv__(self, other: object) -> Value:
        return self._binary("//", other, reverse=True)

    def __mod__(self, other: object) -> Value:
        return self._binary("%", other)

    def __rmod__(self, other: object) -> Value:
        return self._binary("%", other, reverse=True)

    def __and__(self, other: object) -> Value:
        return self._binary("&", other)

    def __or__(self, other: object) -> Value:
        return self._binary("|", other)

    def __xor__(self, other: object) -> Value:
        return self._binary("^", other)

    def __lshift__(self, other: object) -> Value:
        return self._binary("<<", other)

    def __rshift__(self, other: object) -> Value:
        return self._binary(">>", other)

    def __rand__(self, other: object) -> Value:
        return self._binary("&", other, reverse=True)

    def __ror__(self, other: object) -> Value:
        return self._binary("|", other, reverse=True)

    def __rxor__(self, other: object) -> Value:
        return self._binary("^", other, reverse=True)

    def __rlshift__(self, other: object) -> Value:
        return self._binary("<<", other, reverse=True)

    def __rrshift__(self, other: object) -> Value:
        return self._binary(">>", other, reverse=True)

    def __rdivmod__(self, other: object) -> tuple[Value, Value]:
        return other // self, other % self

    def __neg__(self) -> Value:
        return self._binary("-", 0, reverse=True)

    def __lt__(self, other: object) -> Value:
        return self._binary("<", other)

    def __le__(self, other: object) -> Value:
        return self._binary("<=", other)

    def __gt__(self, other: object) -> Value:
        return self._binary(">", other)

    def __ge__(self, other: object) -> Value:
        return self._binary(">=", other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self._binary("==", other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return self._binary("!=", other)
