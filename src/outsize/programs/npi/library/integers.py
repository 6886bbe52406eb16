"""Sorting, merging and searching over integers of any size: the order is a program of its own, digit by digit.

A cell of the list holds where its number begins on a tape of digits; only that is moved. A number is its sign (0 below
zero, 1 else), its digits to base 16, the least first, and `END`. `precedes` reads two of them once, from the least digit
on, and what it has found so far is a value that the next round is given.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from typing import Any

from ..tape import Head, Pointer, Tape
from .entry import BITS, Entry, integer_of_any_size, integers_of_any_size

__all__ = ["ENTRIES"]

BASE = 16
END = BASE
_CELL = range(BASE + 1)


def ended(digit: int) -> bool:
    return digit == END


def below(x: int, y: int) -> bool:
    return x < y


def smaller(a: Pointer, b: Pointer) -> bool:
    """Whether the natural number under `a` is less than that under `b`."""
    found = False
    while True:
        a.move(1)
        b.move(1)
        x, y = a.read(), b.read()
        if ended(y):
            return ended(x) and found
        if ended(x):
            return True
        if below(x, y):
            found = True
        elif below(y, x):
            found = False


def precedes(x: int, y: int, digits: Pointer) -> bool:
    """Whether the number that begins at x is less than the one at y."""
    a, b = digits.copy(), digits.copy()
    a.seek(x)
    b.seek(y)
    if below(a.read(), b.read()):
        return True
    if below(b.read(), a.read()):
        return False
    if below(a.read(), 1):
        return smaller(b, a)
    return smaller(a, b)


def bubble_sort_integers(first: Pointer, last: Pointer, digits: Pointer) -> None:
    while first.before(last):
        p = first.copy()
        while p.before(last):
            q = p.copy()
            q.move(1)
            x, y = p.read(), q.read()
            if precedes(y, x, digits):
                p.write(y)
                q.write(x)
            p.move(1)
        last.move(-1)


def insertion_sort_integers(scan: Pointer, digits: Pointer) -> None:
    while not scan.at_end():
        hole, left = scan.copy(), scan.copy()
        x = scan.read()
        left.move(-1)
        while not left.at_start() and precedes(x, left.read(), digits):
            hole.write(left.read())
            hole.move(-1)
            left.move(-1)
        hole.write(x)
        scan.move(1)


def quick_sort_integers(first: Pointer, last: Pointer, digits: Pointer) -> None:
    """Lomuto's partition around the last element."""
    if not first.before(last):
        return
    store, scan = first.copy(), first.copy()
    pivot = last.read()
    while scan.before(last):
        x = scan.read()
        if precedes(x, pivot, digits):
            scan.write(store.read())
            store.write(x)
            store.move(1)
        scan.move(1)
    last.write(store.read())
    store.write(pivot)
    left = store.copy()
    left.move(-1)
    quick_sort_integers(first, left, digits)
    store.move(1)
    quick_sort_integers(store, last, digits)


def drain(source: Pointer, stop: Pointer, out: Pointer) -> None:
    while source.before(stop):
        out.write(source.read())
        source.move(1)
        out.move(1)


def merge_integers(
    a: Pointer, a_end: Pointer, b: Pointer, b_end: Pointer, out: Pointer, digits: Pointer
) -> None:
    """Merge two sorted stretches; equal elements come from the first."""
    while a.before(a_end) and b.before(b_end):
        x, y = a.read(), b.read()
        if precedes(y, x, digits):
            out.write(y)
            b.move(1)
        else:
            out.write(x)
            a.move(1)
        out.move(1)
    drain(a, a_end, out)
    drain(b, b_end, out)


def merge_sort_integers(lo: Pointer, hi: Pointer, spare: Pointer, digits: Pointer) -> None:
    """Sorts the stretch from `lo` up to, not including, `hi`; `spare` is a second tape as long."""
    if not lo.before(hi):
        return
    second = lo.copy()
    second.move(1)
    if not second.before(hi):
        return
    middle = lo.middle(hi)
    merge_sort_integers(lo, middle, spare, digits)
    merge_sort_integers(middle, hi, spare, digits)
    a, b, out = lo.copy(), middle.copy(), spare.copy()
    out.goto(lo)
    merge_integers(a, middle, b, hi, out, digits)
    source, sink = spare.copy(), lo.copy()
    source.goto(lo)
    drain_back(source, sink, hi)


def drain_back(source: Pointer, sink: Pointer, stop: Pointer) -> None:
    while sink.before(stop):
        sink.write(source.read())
        source.move(1)
        sink.move(1)


def binary_search_integers(lo: Pointer, hi: Pointer, key: Pointer, digits: Pointer) -> None:
    """Leaves `lo` on the first element of a sorted list that is not less than the key."""
    k = key.read()
    while lo.before(hi):
        middle = lo.middle(hi)
        if precedes(middle.read(), k, digits):
            lo.goto(middle)
            lo.move(1)
        else:
            hi.goto(middle)


def signed_smaller(a: Pointer, b: Pointer) -> bool:
    """As `precedes`, of the numbers that begin under two pointers."""
    if below(a.read(), b.read()):
        return True
    if below(b.read(), a.read()):
        return False
    if below(a.read(), 1):
        return smaller(b, a)
    return smaller(a, b)


def less_integers(a: Pointer, b: Pointer, answer: Pointer) -> None:
    """Writes whether the number that begins under `a` is less than the one under `b`: what can fill a sort's slot."""
    if signed_smaller(a, b):
        answer.write(1)
    else:
        answer.write(0)


def spelled(number: int) -> list[int]:
    """A number as its cells on the tape of digits."""
    cells, rest = [int(number >= 0)], abs(number)
    while rest:
        cells.append(rest % BASE)
        rest //= BASE
    return [*cells, END]


def _digits(numbers: list[int]) -> tuple[list[int], Tape]:
    """Where each number begins, and the tape of their digits."""
    starts: list[int] = []
    cells: list[int] = []
    for number in numbers:
        starts.append(len(cells))
        cells += spelled(number)
    return starts, Tape(cells, domain=_CELL)


def _number(cells: list[int], start: int) -> int:
    stop = cells.index(END, start + 1)
    value: int = sum(d * BASE**i for i, d in enumerate(cells[start + 1 : stop]))
    return (2 * cells[start] - 1) * value


def _decoded(which: int, pointer: int = -1) -> Any:
    def decode(heads: tuple[Head, ...]) -> list[int]:
        digits = heads[pointer].tape.cells
        return [_number(digits, start) for start in heads[which].tape.cells]

    return decode


def _span(xs: list[int]) -> tuple[Head, ...]:
    starts, digits = _digits(xs)
    tape = Tape(starts)
    return tape.at(), tape.at_last(), digits.at()


def _scan(xs: list[int]) -> tuple[Head, ...]:
    starts, digits = _digits(xs)
    return Tape(starts).at(), digits.at()


def _spare(xs: list[int]) -> tuple[Head, ...]:
    starts, digits = _digits(xs)
    tape = Tape(starts)
    return tape.at(), tape.at(len(xs)), Tape([0] * len(xs)).at(), digits.at()


def _two(xs: list[int], ys: list[int]) -> tuple[Head, ...]:
    starts, digits = _digits([*xs, *ys])
    a, b, out = Tape(starts[: len(xs)]), Tape(starts[len(xs) :]), Tape([0] * len(starts))
    return a.at(), a.at(len(xs)), b.at(), b.at(len(ys)), out.at(), digits.at()


def _search(xs: list[int], key: int) -> tuple[Head, ...]:
    starts, digits = _digits([*xs, key])
    tape = Tape(starts[:-1])
    return tape.at(), tape.at(len(xs)), Tape(starts[-1:]).at(), digits.at()


def _pair(x: int, y: int) -> tuple[Head, ...]:
    a, b = Tape(spelled(x), domain=_CELL), Tape(spelled(y), domain=_CELL)
    return a.at(), b.at(), Tape([0], domain=BITS).at()


def _sample_pair(source: random.Random, n: int) -> tuple[int, int]:
    """Numbers of few and of many digits, equal ones among them."""
    x, y = (source.randint(-(10 ** (k := source.randint(0, 8 * n))), 10**k) for _ in range(2))
    return (x, y) if source.random() < 0.8 else (x, x)


def _sample(source: random.Random, n: int) -> tuple[list[int]]:
    """From few to many digits, equal numbers and both signs among them."""
    return ([source.randint(-(10 ** source.randint(0, 40)), 10 ** source.randint(0, 40)) for _ in range(n)],)


def _sample_two(source: random.Random, n: int) -> tuple[list[int], list[int]]:
    return sorted(_sample(source, n - n // 2)[0]), sorted(_sample(source, n // 2)[0])


def _sorter(name: str, program: Any, encode: Any, how: str) -> Entry:
    return Entry(
        name=name,
        program=program,
        summary=f"a list of integers of any size in ascending order, {how}: LIST",
        encode=encode,
        decode=_decoded(0),
        parse=(integers_of_any_size,),
        arguments=("LIST",),
        lessons=(([],), ([300, -5, 300, 70000, -5, -300, 2],)),
        sample=_sample,
        oracle=sorted,
    )


ENTRIES = (
    Entry(
        name="less_integers",
        program=less_integers,
        summary="whether one integer of any size is less than another: INTEGER INTEGER",
        encode=_pair,
        decode=lambda heads: heads[2].tape.cells == [1],
        parse=(integer_of_any_size, integer_of_any_size),
        arguments=("INTEGER", "INTEGER"),
        lessons=((300, 70000), (-300, -5), (2, -2)),
        sample=_sample_pair,
        oracle=lambda x, y: x < y,
    ),
    _sorter("bubble_sort_integers", bubble_sort_integers, _span, "by neighbours"),
    _sorter("insertion_sort_integers", insertion_sort_integers, _scan, "by insertion"),
    _sorter("quick_sort_integers", quick_sort_integers, _span, "by partition"),
    _sorter("merge_sort_integers", merge_sort_integers, _spare, "by merging, stable"),
    Entry(
        name="merge_integers",
        program=merge_integers,
        summary="two ascending lists of integers of any size as one: LIST LIST",
        encode=_two,
        decode=_decoded(4),
        parse=(integers_of_any_size, integers_of_any_size),
        arguments=("LIST", "LIST"),
        lessons=(([-300, 2, 300], [-300, 5, 70000]), ([2], [1, 3])),
        sample=_sample_two,
        oracle=lambda xs, ys: list(heapq.merge(xs, ys)),
        ordered=(0, 1),
    ),
    Entry(
        name="binary_search_integers",
        program=binary_search_integers,
        summary="the first position in a sorted list of integers of any size that is not less than the key: LIST KEY",
        encode=_search,
        decode=lambda heads: heads[0].position,
        parse=(integers_of_any_size, integer_of_any_size),
        arguments=("LIST", "KEY"),
        lessons=(([-300, 2, 300, 70000], 5), ([], 1)),
        sample=lambda source, n: (sorted(_sample(source, n)[0]), source.randint(-(10**9), 10**9)),
        oracle=bisect_left,
        ordered=(0,),
    ),
)
