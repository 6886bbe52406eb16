"""Where the three regions of a zero-suppressed buffer lie, to the byte.

A dense storage of N elements becomes one buffer (method 1, claims 5 to 7):

    number table │ bitmap │ nonzero data array
    ─────────────┼────────┼───────────────────
    one 32-bit   │ one bit│ the nonzeros, in
    count per    │ per    │ their order
    BLOCK elems  │ element│

Bit i % 8 of byte i // 8 of the bitmap is element i. The first two regions are padded with zero bytes to
ALIGN, so that every region can be viewed in its own type and read 16 bytes at a time on a GPU. The index of
each block's values is not stored: it is the exclusive prefix sum of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALIGN", "BLOCK", "Layout", "align"]

#: Elements per table entry: 0.1 % of fp32. The patent's readable claims do not name a size.
BLOCK = 1024
#: Bytes to which the table and the bitmap are padded: one vector load of a GPU.
ALIGN = 16


def align(count: int) -> int:
    """`count` rounded up to a multiple of ALIGN."""
    return -(-count // ALIGN) * ALIGN


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of the regions for `numel` elements of `itemsize` bytes.

    Attributes:
        numel: elements of the dense storage.
        itemsize: bytes of an element.
    """

    numel: int
    itemsize: int

    @property
    def blocks(self) -> int:
        """Entries of the number table."""
        return -(-self.numel // BLOCK)

    @property
    def table_bytes(self) -> int:
        """Bytes of the number table, padded."""
        return align(4 * self.blocks)

    @property
    def bitmap_bytes(self) -> int:
        """Bytes of the bitmap, padded."""
        return align(-(-self.numel // 8))

    @property
    def head_bytes(self) -> int:
        """Table and bitmap: where the values start."""
        return self.table_bytes + self.bitmap_bytes

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense storage."""
        return self.numel * self.itemsize

    def nbytes(self, nnz: int) -> int:
        """The buffer's exact size: `align(4·⌈N/1024⌉) + align(⌈N/8⌉) + itemsize·nnz`.

        Args:
            nnz: number of nonzeros.

        Returns:
            bytes.
        """
        return self.head_bytes + self.itemsize * nnz

    def planned_bytes(self, density: float) -> int:
        """Bytes to reserve for a tensor that is expected to have `density` nonzeros (0 to 1), rounded up.

        Args:
            density: expected share of nonzeros, 0 to 1.

        Returns:
            bytes, a multiple of `ALIGN`.
        """
        return align(self.nbytes(min(self.numel, -int(-density * self.numel // 1))))

    def room(self, capacity: int) -> int:
        """How many values fit into a buffer of `capacity` bytes; negative if not even the head does.

        Args:
            capacity: bytes of the buffer.

        Returns:
            a number of elements.
        """
        return (capacity - self.head_bytes) // self.itemsize
