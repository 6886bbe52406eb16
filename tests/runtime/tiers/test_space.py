"""Extents of the swap file against an oracle that paints every byte."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outsize.runtime.tiers.space import Space

UNIT = 8


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=80))
@settings(max_examples=150, deadline=None)
def test_extents_never_overlap_and_nothing_is_lost(calls: list[tuple[bool, int]]) -> None:
    space, painted, held = Space(UNIT), set[int](), list[tuple[int, int]]()
    for take, value in calls:
        if take:
            longest = run = 0
            for at in range(space.size):  # the longest run of free bytes, by looking at each
                run = 0 if at in painted else run + 1
                longest = max(longest, run)
            length = space.rounded(value)
            short = space.shortage(value)
            assert (short == 0) == (longest >= length)
            assert short <= length
            if short:
                space.grow(short)
            offset = space.take(value)
            mine = set(range(offset, offset + length))
            assert offset % UNIT == 0
            assert offset + length <= space.size
            assert not mine & painted
            painted |= mine
            held.append((offset, value))
        elif held:
            offset, nbytes = held.pop(value % len(held))
            space.give(offset, nbytes)
            painted -= set(range(offset, offset + space.rounded(nbytes)))
        assert space.free == space.size - len(painted)
    for offset, nbytes in held:
        space.give(offset, nbytes)
    assert space.free == space.size
    assert space.size == 0 or space.shortage(space.size) == 0  # one hole again
