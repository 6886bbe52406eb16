"""Where in one file each block lies: extents from a free list, first the tightest hole, else the end grows.

Blocks of a training step come back in the same sizes every step, so the tightest hole is nearly always an exact one
and the file stops to grow after the first step.
"""

from __future__ import annotations

import bisect
from typing import final

__all__ = ["Space"]


@final
class Space:
    """Extents within `[0, size)`, in bytes, each a multiple of `unit`. Not thread-safe: the owner locks."""

    def __init__(self, unit: int) -> None:
        self.unit, self.size = unit, 0
        self._holes: list[tuple[int, int]] = []  # (offset, length), in order, never adjacent

    @property
    def free(self) -> int:
        return sum(length for _, length in self._holes)

    def rounded(self, nbytes: int) -> int:
        return max(-(-nbytes // self.unit), 1) * self.unit

    def shortage(self, nbytes: int) -> int:
        """How many bytes the file must grow so that `take(nbytes)` succeeds."""
        length = self.rounded(nbytes)
        if any(hole >= length for _, hole in self._holes):
            return 0
        last = self._holes[-1] if self._holes else (self.size, 0)
        return length - (last[1] if sum(last) == self.size else 0)

    def grow(self, nbytes: int) -> None:
        self.size += nbytes
        self.give(self.size - nbytes, nbytes)

    def take(self, nbytes: int) -> int:
        """Offset of a new extent of `rounded(nbytes)` bytes; the caller has grown the file by any shortage."""
        length = self.rounded(nbytes)
        fits = [(hole, offset) for offset, hole in self._holes if hole >= length]
        hole, offset = min(fits)
        index = self._holes.index((offset, hole))
        self._holes[index : index + 1] = [(offset + length, hole - length)] if hole > length else []
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        """Return an extent, merging it with the holes beside it."""
        length = self.rounded(nbytes)
        index = bisect.bisect(self._holes, (offset, 0))
        before, after = self._holes[index - 1 : index] if index else [], self._holes[index : index + 1]
        start, end = offset, offset + length
        if before and sum(before[0]) == start:
            start, index = before[0][0], index - 1
        else:
            before = []
        if after and after[0][0] == end:
            end += after[0][1]
        else:
            after = []
        self._holes[index : index + len(before) + len(after)] = [(start, end - start)]
