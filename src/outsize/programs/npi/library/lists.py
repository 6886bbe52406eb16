"""Higher-order functions on lists, and searching in lists. The functions that they take are the
primitives.
"""

from __future__ import annotations

import bisect
import itertools
import random
from functools import reduce
from typing import Any

from ....errors import NpiError
from ..tape import Head, Pointer, Tape
from .entry import BITS, BYTES, DIGITS, HUNDRED, Entry, integer, integers

__all__ = ["ENTRIES"]


def f(x: int) -> int:
    return (3 * x + 1) % 100


def map(xs: Pointer, out: Pointer) -> None:
    while not xs.at_end():
        out.write(f(xs.read()))
        xs.move(1)
        out.move(1)


def keep(x: int) -> bool:
    return x % 2 == 0


def filter(xs: Pointer, out: Pointer) -> None:
    while not xs.at_end():
        x = xs.read()
        if keep(x):
            out.write(x)
            out.move(1)
        xs.move(1)


def going(x: int) -> bool:
    return x < 50


def take_while(xs: Pointer, out: Pointer) -> None:
    while not xs.at_end():
        x = xs.read()
        if not going(x):
            return
        out.write(x)
        out.move(1)
        xs.move(1)


def g(x: int, y: int) -> int:
    return (x * y) % 10


def zip_with(xs: Pointer, ys: Pointer, out: Pointer) -> None:
    """Ends with the shorter list."""
    while not xs.at_end():
        if ys.at_end():
            return
        out.write(g(xs.read(), ys.read()))
        xs.move(1)
        ys.move(1)
        out.move(1)


def step(acc: int, x: int) -> int:
    return (acc + x) % 10


def fold(xs: Pointer, acc: Pointer) -> None:
    while not xs.at_end():
        acc.write(step(acc.read(), xs.read()))
        xs.move(1)


def scan(xs: Pointer, acc: Pointer, out: Pointer) -> None:
    while not xs.at_end():
        acc.write(step(acc.read(), xs.read()))
        out.write(acc.read())
        xs.move(1)
        out.move(1)


def swap(p: Pointer, q: Pointer) -> None:
    x, y = p.read(), q.read()
    p.write(y)
    q.write(x)


def reverse(first: Pointer, last: Pointer) -> None:
    while first.before(last):
        swap(first, last)
        first.move(1)
        last.move(-1)


def differs(x: int, y: int) -> bool:
    return x != y


def begins(text: Pointer, pattern: Pointer) -> bool:
    while not pattern.at_end():
        if text.at_end():
            return False
        if differs(text.read(), pattern.read()):
            return False
        text.move(1)
        pattern.move(1)
    return True


def match(text: Pointer, pattern: Pointer, found: Pointer) -> None:
    """Marks every position of the text at which the pattern begins."""
    while not text.at_end():
        t, p = text.copy(), pattern.copy()
        if begins(t, p):
            found.write(1)
        text.move(1)
        found.move(1)


def less(x: int, y: int) -> bool:
    return x < y


def binary_search(lo: Pointer, hi: Pointer, key: Pointer) -> None:
    """Leaves `lo` on the first element of a sorted list that is not less than the key."""
    while lo.before(hi):
        middle = lo.middle(hi)
        if less(middle.read(), key.read()):
            lo.goto(middle)
            lo.move(1)
        else:
            hi.goto(middle)


def _output(heads: tuple[Head, ...]) -> list[int]:
    return heads[-1].tape.cells[: heads[-1].position]


def _unary(domain: range) -> Any:
    def encode(xs: list[int]) -> tuple[Head, ...]:
        return Tape(xs, domain=domain).at(), Tape([0] * len(xs), domain=domain).at()

    return encode


def _encode_zip(xs: list[int], ys: list[int]) -> tuple[Head, ...]:
    n = min(len(xs), len(ys))
    return Tape(xs, domain=DIGITS).at(), Tape(ys, domain=DIGITS).at(), Tape([0] * n, domain=DIGITS).at()


def _encode_fold(xs: list[int]) -> tuple[Head, ...]:
    return Tape(xs, domain=DIGITS).at(), Tape([0], domain=DIGITS).at()


def _encode_scan(xs: list[int]) -> tuple[Head, ...]:
    return *_encode_fold(xs), Tape([0] * len(xs), domain=DIGITS).at()


def _encode_reverse(xs: list[int]) -> tuple[Head, ...]:
    tape = Tape(xs)
    return tape.at(), tape.at_last()


def _encode_match(text: str, pattern: str) -> tuple[Head, ...]:
    tapes = [Tape(_bytes(t), domain=BYTES) for t in (text, pattern)]
    return tapes[0].at(), tapes[1].at(), Tape([0] * len(text), domain=BITS).at()


def _bytes(text: str) -> list[int]:
    try:
        return list(text.encode("latin-1"))
    except UnicodeEncodeError as error:
        raise NpiError(f"match works on characters of one byte (Latin-1): {error}") from error


def _encode_search(xs: list[int], key: int) -> tuple[Head, ...]:
    tape = Tape(xs, domain=BYTES)
    return tape.at(), tape.at(len(xs)), Tape([key], domain=BYTES).at()


def _list(domain: range) -> Any:
    def sample(source: random.Random, n: int) -> tuple[list[int]]:
        return (source.choices(domain, k=n),)

    return sample


def _two_lists(source: random.Random, n: int) -> tuple[list[int], list[int]]:
    return source.choices(DIGITS, k=n), source.choices(DIGITS, k=n)


def _sample_match(source: random.Random, n: int) -> tuple[str, str]:
    return "".join(source.choices("ab", k=n)), "".join(source.choices("ab", k=min(n, 4)))


def _sample_search(source: random.Random, n: int) -> tuple[list[int], int]:
    return sorted(source.choices(BYTES, k=n)), source.choice(BYTES)


def _positions(heads: tuple[Head, ...]) -> list[int]:
    return [i for i, found in enumerate(heads[2].tape.cells) if found]


def _take(xs: list[int]) -> list[int]:
    return list(itertools.takewhile(going, xs))


_XS: dict[str, Any] = {"parse": (integers,), "arguments": ("LIST",)}

ENTRIES = (
    Entry(
        name="map",
        program=map,
        summary="f of every element; f(x) = (3x + 1) mod 100 until swapped: LIST of 0..99",
        encode=_unary(HUNDRED),
        decode=_output,
        lessons=(([3, 4],), ([],)),
        sample=_list(HUNDRED),
        oracle=lambda xs: [f(x) for x in xs],
        **_XS,
    ),
    Entry(
        name="filter",
        program=filter,
        summary="the elements that satisfy keep (even, until swapped): LIST of 0..99",
        encode=_unary(HUNDRED),
        decode=_output,
        lessons=(([3, 4],), ([],)),
        sample=_list(HUNDRED),
        oracle=lambda xs: [x for x in xs if keep(x)],
        **_XS,
    ),
    Entry(
        name="take_while",
        program=take_while,
        summary="the elements before the first that does not satisfy going (below 50): LIST of 0..99",
        encode=_unary(HUNDRED),
        decode=_output,
        lessons=(([3, 60, 4],), ([1, 2],)),
        sample=lambda source, n: (source.choices(range(50), k=n - 1) + source.choices(HUNDRED, k=1),),
        oracle=_take,
        **_XS,
    ),
    Entry(
        name="zip_with",
        program=zip_with,
        summary="g of the elements of two lists; g(x, y) = xy mod 10: LIST LIST of 0..9",
        encode=_encode_zip,
        decode=_output,
        parse=(integers, integers),
        arguments=("LIST", "LIST"),
        lessons=(([3, 4], [5, 6]), ([1], []), ([], [1])),
        sample=_two_lists,
        oracle=lambda xs, ys: [g(x, y) for x, y in zip(xs, ys)],
    ),
    Entry(
        name="fold",
        program=fold,
        summary="step(…step(step(0, x0), x1)…); step(a, x) = (a + x) mod 10: LIST of 0..9",
        encode=_encode_fold,
        decode=lambda heads: heads[1].tape.cells[0],
        lessons=(([3, 4],), ([],)),
        sample=_list(DIGITS),
        oracle=lambda xs: reduce(step, xs, 0),
        **_XS,
    ),
    Entry(
        name="scan",
        program=scan,
        summary="all partial results of fold: LIST of 0..9",
        encode=_encode_scan,
        decode=_output,
        lessons=(([3, 4],), ([],)),
        sample=_list(DIGITS),
        oracle=lambda xs: list(itertools.accumulate(xs, step)),
        **_XS,
    ),
    Entry(
        name="reverse",
        program=reverse,
        summary="the list backwards: LIST",
        encode=_encode_reverse,
        decode=lambda heads: heads[0].tape.cells,
        lessons=(([3, 4, 5],), ([],)),
        sample=lambda source, n: ([source.randrange(10**9) for _ in range(n)],),
        oracle=lambda xs: xs[::-1],
        **_XS,
    ),
    Entry(
        name="match",
        program=match,
        summary="where a pattern begins in a text: TEXT PATTERN",
        encode=_encode_match,
        decode=_positions,
        parse=(str, str),
        arguments=("TEXT", "PATTERN"),
        lessons=(("aab", "ab"), ("a", ""), ("", "a"), ("ab", "bc")),
        sample=_sample_match,
        oracle=lambda t, p: [i for i in range(len(t)) if t.startswith(p, i)],
    ),
    Entry(
        name="binary_search",
        program=binary_search,
        summary="the first position in a sorted list whose element is not less than the key: LIST KEY",
        encode=_encode_search,
        decode=lambda heads: heads[0].position,
        parse=(integers, integer),
        arguments=("LIST", "KEY"),
        lessons=(([1, 3, 5], 4), ([], 1)),
        sample=_sample_search,
        oracle=bisect.bisect_left,
        ascending=("less", (0,)),
        wide="binary_search_integers",
    ),
)
