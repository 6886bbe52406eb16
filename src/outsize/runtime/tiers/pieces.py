"""A block crosses in pieces: each hashed, moved straight between the tensor and the disk where addresses allow.

A direct transfer needs an aligned address and an aligned length. The arena's blocks start on a page, so all but a
last partial sector moves without a copy; that sector rides along in the same call from a small aligned buffer. Other
memory is copied through an aligned buffer, a piece at a time, so no second copy of a block ever exists.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress
from typing import final

import torch
import xxhash

from ...errors import ChecksumError, TierError
from .file import RawFile

__all__ = ["PieceMover"]


@final
class PieceMover:
    """Moves blocks for one thread.

    Args:
        file: reads and writes at aligned offsets.
        piece_bytes: bytes per call and per checksum, a multiple of the file's alignments.
    """

    def __init__(self, file: RawFile, piece_bytes: int) -> None:
        self._file, self._piece = file, piece_bytes
        self._align = file.offset_align
        self._bounce: memoryview | None = None
        self._sector = memoryview(mmap.mmap(-1, max(self._align, mmap.PAGESIZE)))

    def write(self, flat: torch.Tensor, offset: int) -> list[int]:
        """Write all bytes of `flat` from `offset` on; the checksum of each piece."""
        source = flat.numpy().data
        direct, digests = flat.data_ptr() % self._file.memory_align == 0, []
        for start in range(0, len(source), self._piece):
            piece = source[start : start + self._piece]
            digests.append(xxhash.xxh3_64_intdigest(piece))
            _whole(self._file.write, self._buffers(piece, direct=direct, fill=True), offset + start)
        return digests

    def read(self, flat: torch.Tensor, offset: int, digests: list[int], what: str) -> None:
        """Read into all bytes of `flat`; `what` names the block in an error.

        Raises:
            ChecksumError: a piece has another checksum than `digests` says.
        """
        target = flat.numpy().data
        direct = flat.data_ptr() % self._file.memory_align == 0
        for index, start in enumerate(range(0, len(target), self._piece)):
            piece = target[start : start + self._piece]
            buffers = self._buffers(piece, direct=direct, fill=False)
            _whole(self._file.read, buffers, offset + start)
            landed = len(piece) - len(piece) % self._align if direct else 0
            if landed < len(piece):
                piece[landed:] = buffers[-1][: len(piece) - landed]
            found = xxhash.xxh3_64_intdigest(piece)
            if found != digests[index]:
                raise ChecksumError(
                    f"{what}: bytes {start} to {start + len(piece)} came back with checksum {found:016x}, and went "
                    f"out with {digests[index]:016x}; the disk or a driver changed them, so the step cannot go on"
                )

    def _buffers(self, piece: memoryview, *, direct: bool, fill: bool) -> list[memoryview]:
        """Aligned buffers that stand for `piece`, together of its length rounded up to the alignment."""
        rest = len(piece) % self._align
        if direct:
            if rest == 0:
                return [piece]
            tail = self._sector[: self._align]
            if fill:
                tail[:rest] = piece[len(piece) - rest :]
            return [piece[: len(piece) - rest], tail] if len(piece) > rest else [tail]
        if self._bounce is None:
            self._bounce = _huge_buffer(self._piece)
        if fill:
            self._bounce[: len(piece)] = piece
        return [self._bounce[: len(piece) + (self._align - rest) % self._align]]


def _huge_buffer(nbytes: int) -> memoryview:
    """Private pages, large where the kernel has them: a request of few segments moves at twice the speed."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(mmap.mmap(-1, nbytes))
    area = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        area.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(area)


def _whole(call: Callable[[list[memoryview], int], int], buffers: list[memoryview], offset: int) -> None:
    """Repeat a call that may do part of its work until all is done."""
    left = list(buffers)
    while left:
        done = call(left, offset)
        if done <= 0:
            raise TierError(
                f"the file ended at byte {offset}, {sum(map(len, left))} bytes before the block did"
            )
        offset += done
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if done:
            left[0] = left[0][done:]
