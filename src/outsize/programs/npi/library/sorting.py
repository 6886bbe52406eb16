"""Sorting and merging. The order is a primitive: swap `less` and the same controller sorts by something
else.
"""

from __future__ import annotations

import heapq
import random
from typing import Any

from ..tape import Head, Pointer, Tape
from .entry import BYTES, Entry, integers
from .lists import less, swap

__all__ = ["ENTRIES"]


def bubble_sort(first: Pointer, last: Pointer) -> None:
    while first.before(last):
        p = first.copy()
        while p.before(last):
            q = p.copy()
            q.move(1)
            if less(q.read(), p.read()):
                swap(p, q)
            p.move(1)
        last.move(-1)


def sink(hole: Pointer) -> None:
    left = hole.copy()
    left.move(-1)
    if left.at_start():
        return
    if less(hole.read(), left.read()):
        swap(hole, left)
        sink(left)


def insertion_sort(scan: Pointer) -> None:
    while not scan.at_end():
        hole = scan.copy()
        sink(hole)
        scan.move(1)


def quick_sort(first: Pointer, last: Pointer) -> None:
    """Lomuto's partition around the last element."""
    if not first.before(last):
        return
    store, scan = first.copy(), first.copy()
    while scan.before(last):
        if less(scan.read(), last.read()):
            swap(scan, store)
            store.move(1)
        scan.move(1)
    swap(store, last)
    left = store.copy()
    left.move(-1)
    quick_sort(first, left)
    store.move(1)
    quick_sort(store, last)


def drain(source: Pointer, stop: Pointer, out: Pointer) -> None:
    while source.before(stop):
        out.write(source.read())
        source.move(1)
        out.move(1)


def interleave(a: Pointer, a_end: Pointer, b: Pointer, b_end: Pointer, out: Pointer) -> None:
    """Merge two sorted stretches; equal elements come from the first."""
    if not a.before(a_end):
        drain(b, b_end, out)
    elif not b.before(b_end):
        drain(a, a_end, out)
    else:
        x, y = a.read(), b.read()
        if less(y, x):
            out.write(y)
            b.move(1)
        else:
            out.write(x)
            a.move(1)
        out.move(1)
        interleave(a, a_end, b, b_end, out)


def merge_sort(lo: Pointer, hi: Pointer, spare: Pointer) -> None:
    """Sorts the stretch from `lo` up to, not including, `hi`; `spare` is a second tape as long."""
    if not lo.before(hi):
        return
    second = lo.copy()
    second.move(1)
    if not second.before(hi):
        return
    middle = lo.middle(hi)
    merge_sort(lo, middle, spare)
    merge_sort(middle, hi, spare)
    a, b, out = lo.copy(), middle.copy(), spare.copy()
    out.goto(lo)
    interleave(a, middle, b, hi, out)
    source, sink = spare.copy(), lo.copy()
    source.goto(lo)
    while sink.before(hi):
        sink.write(source.read())
        source.move(1)
        sink.move(1)


def merge(xs: Pointer, xs_end: Pointer, ys: Pointer, ys_end: Pointer, out: Pointer) -> None:
    interleave(xs, xs_end, ys, ys_end, out)


def _span(xs: list[int]) -> tuple[Head, Head]:
    tape = Tape(xs, domain=BYTES)
    return tape.at(), tape.at_last()


def _encode_merge_sort(xs: list[int]) -> tuple[Head, ...]:
    tape, spare = Tape(xs, domain=BYTES), Tape([0] * len(xs), domain=BYTES)
    return tape.at(), tape.at(len(xs)), spare.at()


def _encode_merge(xs: list[int], ys: list[int]) -> tuple[Head, ...]:
    a, b, out = Tape(xs, domain=BYTES), Tape(ys, domain=BYTES), Tape([0] * (len(xs) + len(ys)), domain=BYTES)
    return a.at(), a.at(len(xs)), b.at(), b.at(len(ys)), out.at()


def _sample(source: random.Random, n: int) -> tuple[list[int]]:
    return (source.choices(BYTES, k=n),)


def _sample_merge(source: random.Random, n: int) -> tuple[list[int], list[int]]:
    return sorted(source.choices(BYTES, k=n - n // 2)), sorted(source.choices(BYTES, k=n // 2))


def _sorter(name: str, program: Any, encode: Any, lessons: tuple[list[int], ...], how: str) -> Entry:
    return Entry(
        name=name,
        program=program,
        summary=f"a list in ascending order, {how}: LIST of 0..255",
        encode=encode,
        decode=lambda heads: heads[0].tape.cells,
        parse=(integers,),
        arguments=("LIST",),
        lessons=tuple((lesson,) for lesson in lessons),
        sample=_sample,
        oracle=sorted,
        wide=f"{name}_integers",
    )


ENTRIES = (
    _sorter("bubble_sort", bubble_sort, _span, ([], [2, 1], [1, 2]), "by neighbours"),
    _sorter(
        "insertion_sort",
        insertion_sort,
        lambda xs: (Tape(xs, domain=BYTES).at(),),
        ([], [3, 1, 2]),
        "by insertion",
    ),
    _sorter("quick_sort", quick_sort, _span, ([], [3, 1, 2, 5, 4]), "by partition"),
    _sorter("merge_sort", merge_sort, _encode_merge_sort, ([], [3, 1, 2, 5, 4]), "by merging, stable"),
    Entry(
        name="merge",
        program=merge,
        summary="two ascending lists as one: LIST LIST of 0..255",
        encode=_encode_merge,
        decode=lambda heads: heads[4].tape.cells,
        parse=(integers, integers),
        arguments=("LIST", "LIST"),
        lessons=(([1, 3], [2, 4]), ([2], [1, 3]), ([2, 3], [1])),
        sample=_sample_merge,
        oracle=lambda xs, ys: list(heapq.merge(xs, ys)),
        ascending=("less", (0, 1)),
        wide="merge_integers",
    ),
)
