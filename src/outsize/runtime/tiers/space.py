"""Where in one file or slab each block lies: first the tightest hole, else the end grows.

Blocks of a training step come back in the same sizes every step, so the tightest hole is nearly always an exact one
and the file stops to grow after the first step.

Nobody gives an extent back: it is taken for a *holder*, and free again when that object is gone. So an interrupt can
lose none, wherever it strikes, and there is no second book to keep. Nor is there a lock that an interrupt could leave
held: the extents are an immutable value, and a change succeeds if nobody else has replaced that value first.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import final

__all__ = ["Space"]


class _Lease(weakref.ref):  # type: ignore[type-arg]
    """An extent, for as long as its holder lives."""

    __slots__ = ("length", "nbytes", "offset")
    offset: int
    length: int
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Extents:
    """The extents at one time, by offset, and those that replaced them: `setdefault` lets one change through."""

    size: int
    leases: tuple[_Lease, ...]
    after: dict[None, _Extents] = field(default_factory=dict)

    def held(self) -> tuple[_Lease, ...]:
        return tuple(lease for lease in self.leases if lease() is not None)


@final
class Space:
    """Extents within `[0, size)`, in bytes, each a multiple of `unit`. Any thread may call, and be interrupted."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self._latest = _Extents(0, ())  # or one before it

    def _now(self) -> _Extents:
        extents = self._latest
        while extents.after:
            extents = extents.after[None]
        return extents

    def _replace(self, old: _Extents, new: _Extents) -> bool:
        if old.after.setdefault(None, new) is not new:
            return False
        self._latest = new
        return True

    @property
    def size(self) -> int:
        return self._now().size

    @property
    def free(self) -> int:
        now = self._now()
        return now.size - sum(lease.length for lease in now.held())

    @property
    def held_bytes(self) -> int:
        """Bytes that were asked for and are still held."""
        return sum(lease.nbytes for lease in self._now().held())

    def rounded(self, nbytes: int) -> int:
        return max(-(-nbytes // self.unit), 1) * self.unit

    def shortage(self, nbytes: int) -> int:
        """How many bytes the file must grow so that `take(nbytes)` succeeds."""
        length, now = self.rounded(nbytes), self._now()
        held = now.held()
        if _tightest(held, now.size, length) is not None:
            return 0
        end = held[-1].offset + held[-1].length if held else 0
        return length - (now.size - end)

    def grow(self, size: int) -> None:
        """The file has at least `size` bytes now."""
        while True:
            now = self._now()
            if now.size >= size or self._replace(now, _Extents(size, now.held())):
                return

    def take(self, holder: object, nbytes: int) -> int | None:
        """Offset of a new extent of `rounded(nbytes)` bytes, held while `holder` lives; None if no hole is so large."""
        length = self.rounded(nbytes)
        while True:
            now = self._now()
            held = now.held()
            if (found := _tightest(held, now.size, length)) is None:
                return None
            index, offset = found
            lease = _Lease(holder)
            lease.offset, lease.length, lease.nbytes = offset, length, nbytes
            if self._replace(now, _Extents(now.size, (*held[:index], lease, *held[index:]))):
                return offset


def _tightest(held: tuple[_Lease, ...], size: int, length: int) -> tuple[int, int] | None:
    """The smallest hole of at least `length` bytes, the lowest of several: its place among the extents, its offset."""
    best: tuple[int, int] | None = None
    tightest, end = size + 1, 0
    for index, lease in enumerate(held):
        if length <= lease.offset - end < tightest:
            best, tightest = (index, end), lease.offset - end
        end = lease.offset + lease.length
    return (len(held), end) if length <= size - end < tightest else best
