"""Extents of the swap file against an oracle that paints every byte."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.runtime.tiers.space import Space

UNIT = 8


class Holder:
    """Has the extent while it lives."""


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=80))
@settings(max_examples=150, deadline=None)
def test_extents_never_overlap_and_nothing_is_lost(calls: list[tuple[bool, int]]) -> None:
    space, painted, held = Space(UNIT), set[int](), list[tuple[Holder, int, int]]()
    for take, value in calls:
        if take:
            longest = run = 0
            for at in range(space.size):  # the longest run of free bytes, by looking at each
                run = 0 if at in painted else run + 1
                longest = max(longest, run)
            length, holder = space.rounded(value), Holder()
            short = space.shortage(value)
            assert (short == 0) == (longest >= length)
            assert short <= length
            if short:
                assert space.take(holder, value) is None
                space.grow(space.size + short)
            offset = space.take(holder, value)
            assert offset is not None
            mine = set(range(offset, offset + length))
            assert offset % UNIT == 0
            assert offset + length <= space.size
            assert not mine & painted
            painted |= mine
            held.append((holder, offset, value))
            del holder
        elif held:
            _, offset, nbytes = held.pop(value % len(held))
            del _
            painted -= set(range(offset, offset + space.rounded(nbytes)))
        assert space.free == space.size - len(painted)
        assert space.held_bytes == sum(nbytes for _, _, nbytes in held)
    held.clear()
    assert space.free == space.size
    assert space.size == 0 or space.shortage(space.size) == 0  # one hole again


def test_threads_never_take_the_same_bytes() -> None:
    space, overlaps = Space(UNIT), list[tuple[int, int]]()
    space.grow(64 * UNIT)
    owners: dict[int, int] = {}

    def work(me: int) -> None:
        for turn in range(300):
            holder = Holder()
            if (offset := space.take(holder, UNIT * (1 + (turn + me) % 5))) is None:
                continue
            units = range(offset // UNIT, offset // UNIT + 1 + (turn + me) % 5)
            overlaps.extend((me, u) for u in units if owners.setdefault(u, me) != me)
            for u in units:
                owners.pop(u, None)
            del holder

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []
    assert space.free == space.size
