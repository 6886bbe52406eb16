"""Shared memory of one node: one anonymous file, mapped by every worker of the node.

Problem: named shared memory is limited (64 MB in a container by default), readable by name, and stays behind
when a process is killed. Mechanism: `memfd_create` gives a file without a name, mode 0600, sealed against
resizing; it vanishes with the last process that maps it. How the other workers get it is `node`'s business.

Sections start on pages. Pages that nobody touches cost nothing.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import final

import torch

from ..errors import ParallelError

_PAGE = 4096


@final
class Layout:
    """Names, offsets and sizes (bytes) of the sections, in the given order."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, size in sizes.items():
            self.places[name] = (end, size)
            end += -(-max(size, 1) // _PAGE) * _PAGE
        self.total = end


@final
class Arena:
    """The mapping. Keep a reference as long as tensors of it are in use."""

    def __init__(self, layout: Layout, descriptor: int) -> None:
        self.layout = layout
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, layout.total)
        self.address = int(torch.frombuffer(self._map, dtype=torch.uint8, count=1).data_ptr())

    @classmethod
    def create(cls, layout: Layout) -> Arena:
        """A new arena, zeroed.

        Raises:
            ParallelError: the system has no memfd.
        """
        if not hasattr(os, "memfd_create"):
            raise ParallelError(
                "chunk-wise data parallelism needs Linux (memfd and futex); elsewhere use "
                "torch.nn.parallel.DistributedDataParallel"
            )
        import fcntl  # which Windows does not have

        descriptor = os.memfd_create("outsize", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, layout.total)
        fcntl.fcntl(
            descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        return cls(layout, descriptor)

    def at(self, section: str) -> int:
        """Address of a section in this process."""
        return self.address + self.layout.places[section][0]

    def tensor(self, section: str, dtype: torch.dtype) -> torch.Tensor:
        """The whole section as a one-dimensional tensor (no copy)."""
        offset, size = self.layout.places[section]
        count = size // dtype.itemsize
        if count == 0:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset)

    def view(self, offset: int, size: int) -> memoryview:
        """Raw bytes, writable."""
        return memoryview(self._map)[offset : offset + size]

    def forget(self, section: str) -> None:
        """Give a section's pages back to the system; it reads as zeros afterwards."""
        offset, size = self.layout.places[section]
        if size:
            self._map.madvise(mmap.MADV_REMOVE, offset, -(-size // _PAGE) * _PAGE)

    def close_descriptor(self) -> None:
        """The mapping stays; the descriptor is needed only while the other workers fetch it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
