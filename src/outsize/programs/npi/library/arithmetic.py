"""Arithmetic on decimal digits of any length: schoolbook programs, one digit at a time."""

from __future__ import annotations

import itertools
import random
from typing import Any

from ....errors import NpiError
from ..tape import Head, Pointer, Tape
from .entry import BITS, DIGITS, Entry, digits, number

__all__ = ["ENTRIES"]


def digit(x: int, y: int, c: int) -> int:
    return (x + y + c) % 10


def carry(x: int, y: int, c: int) -> int:
    return (x + y + c) // 10


def addition(a: Pointer, b: Pointer, c: Pointer, out: Pointer) -> None:
    """Pointers on the last digits of two numbers of one width and of the result; `c` on the carry."""
    while not a.at_start():
        x, y, z = a.read(), b.read(), c.read()
        out.write(digit(x, y, z))
        c.write(carry(x, y, z))
        a.move(-1)
        b.move(-1)
        out.move(-1)
    out.write(c.read())


def difference(x: int, y: int, c: int) -> int:
    return (x - y - c) % 10


def borrow(x: int, y: int, c: int) -> int:
    return int(x - y - c < 0)


def subtraction(a: Pointer, b: Pointer, c: Pointer, out: Pointer) -> None:
    """As `addition`: the same template, other primitives."""
    while not a.at_start():
        x, y, z = a.read(), b.read(), c.read()
        out.write(difference(x, y, z))
        c.write(borrow(x, y, z))
        a.move(-1)
        b.move(-1)
        out.move(-1)
    out.write(c.read())


def low(x: int, y: int, z: int, c: int) -> int:
    return (x * y + z + c) % 10


def high(x: int, y: int, z: int, c: int) -> int:
    return (x * y + z + c) // 10


def multiplication(a: Pointer, b: Pointer, c: Pointer, out: Pointer) -> None:
    """Adds a times each digit of b to the result, from the last digit on."""
    while not b.at_start():
        x, o = a.copy(), out.copy()
        c.write(0)
        while not x.at_start():
            p, q, r, s = x.read(), b.read(), o.read(), c.read()
            o.write(low(p, q, r, s))
            c.write(high(p, q, r, s))
            x.move(-1)
            o.move(-1)
        o.write(c.read())
        b.move(-1)
        out.move(-1)


def _two(a: str, b: str, width: int, held: range) -> tuple[Head, ...]:
    n = max(len(a), len(b))
    tapes = [Tape(digits(a, n), domain=DIGITS), Tape(digits(b, n), domain=DIGITS)]
    out = Tape([0] * width, domain=DIGITS)
    return tapes[0].at_last(), tapes[1].at_last(), Tape([0], domain=held).at(), out.at_last()


def _encode_sum(a: str, b: str) -> tuple[Head, ...]:
    return _two(a, b, max(len(a), len(b)) + 1, BITS)


def _encode_difference(a: str, b: str) -> tuple[Head, ...]:
    if (len(a), a) < (len(b), b):
        raise NpiError(
            f"subtraction works on natural numbers: the first must not be smaller ({a[:20]} < {b[:20]})"
        )
    return _encode_sum(a, b)


def _encode_product(a: str, b: str) -> tuple[Head, ...]:
    x, y = Tape(digits(a), domain=DIGITS), Tape(digits(b), domain=DIGITS)
    out = Tape([0] * (len(a) + len(b)), domain=DIGITS)
    return x.at_last(), y.at_last(), Tape([0], domain=DIGITS).at(), out.at_last()


def _decode(heads: tuple[Head, ...]) -> str:
    return "".join(map(str, heads[3].tape.cells)).lstrip("0") or "0"


def _number(random_: random.Random, n: int) -> str:
    return str(random_.randint(1, 9)) + "".join(random_.choices("0123456789", k=n - 1))


def _two_numbers(random_: random.Random, n: int) -> tuple[str, str]:
    return _number(random_, n), _number(random_, n)


def _ordered(random_: random.Random, n: int) -> tuple[str, str]:
    a, b = sorted(_two_numbers(random_, n), reverse=True)
    return a, b


def _lessons(order: bool) -> tuple[tuple[str, str], ...]:
    """Twenty pairs of up to three digits."""
    source = random.Random(7)
    pairs = [(str(source.randrange(1000)), str(source.randrange(1000))) for _ in range(18)] + [("0", "0")]
    return tuple((a, b) if not order or int(a) >= int(b) else (b, a) for a, b in [*pairs, ("999", "1")])


def big(text: str) -> int:
    """`int(text)` for any length, in pieces that the interpreter's digit limit allows."""
    value = 0
    for part in itertools.batched(text, 4000) if hasattr(itertools, "batched") else _parts(text):
        value = value * 10 ** len(part) + int("".join(part))
    return value


def _parts(text: str) -> list[str]:
    return [text[i : i + 4000] for i in range(0, len(text), 4000)]


def small(value: int) -> str:
    """`str(value)` for any length."""
    parts = []
    base = 10**4000
    while value >= base:
        value, rest = divmod(value, base)
        parts.append(str(rest).zfill(4000))
    return str(value) + "".join(reversed(parts))


_SHARED: dict[str, Any] = {"decode": _decode, "parse": (number, number), "arguments": ("A", "B")}

ENTRIES = (
    Entry(
        name="addition",
        program=addition,
        summary="the sum of two natural numbers: A B",
        encode=_encode_sum,
        lessons=_lessons(order=False),
        sample=_two_numbers,
        oracle=lambda a, b: small(big(a) + big(b)),
        **_SHARED,
    ),
    Entry(
        name="subtraction",
        program=subtraction,
        summary="A minus B, for A >= B (addition's controller, other primitives)",
        encode=_encode_difference,
        lessons=_lessons(order=True),
        sample=_ordered,
        oracle=lambda a, b: small(big(a) - big(b)),
        like="addition",
        **_SHARED,
    ),
    Entry(
        name="multiplication",
        program=multiplication,
        summary="the product of two natural numbers: A B",
        encode=_encode_product,
        lessons=(("12", "34"), ("0", "7"), ("99", "99")),
        sample=_two_numbers,
        oracle=lambda a, b: small(big(a) * big(b)),
        **_SHARED,
    ),
)
