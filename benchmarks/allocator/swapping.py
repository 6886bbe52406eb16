"""A crude swap of a step's early activations, by autograd's saved-tensor hooks: enough traffic to judge allocators.

The first step learns which storages are saved, in order; from the second on, the earliest ones, up to a share of the
bytes, go to the tier when they are saved and come back a few uses ahead of the backward pass. The planner does this
better; here every allocator gets the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from outsize.runtime.tiers import Arrival, Block, Tier

AHEAD_BYTES = 96 * 2**20
LEAST_BYTES = 2**20


class _Entry:
    def __init__(self, index: int, block: Block) -> None:
        self.index, self.block, self.uses = index, block, 0
        self.arrival: Arrival | None = None


class Swapper:
    def __init__(self, tier: Tier, resident: Sequence[torch.Tensor], *, share: float) -> None:
        self.tier, self.share = tier, share
        self.resident = {t.untyped_storage()._cdata for t in resident}
        self.limit = 0  # storages to swap; the first step swaps none and counts
        self.sizes: list[int] = []

    @contextmanager
    def forward(self) -> Iterator[None]:
        self.seen: dict[int, tuple[StorageWeakRef, _Entry | None]] = {}
        self.entries: list[_Entry] = []
        self.sizes.clear()
        self.total = 0
        with torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack):
            yield
        self.seen.clear()
        self.swapped = sum(entry.block.nbytes for entry in self.entries)
        total, running = sum(self.sizes), 0
        for count, size in enumerate(self.sizes):
            running += size
            if running > self.share * total:
                self.limit = count
                break

    def pack(self, tensor: torch.Tensor) -> object:
        storage = tensor.untyped_storage()
        if storage.nbytes() < LEAST_BYTES or storage._cdata in self.resident:
            return tensor
        reference = StorageWeakRef(storage)
        known = self.seen.get(reference.cdata)
        if known is None or known[0].expired():
            entry = None
            if len(self.sizes) < self.limit:
                entry = _Entry(len(self.entries), self.tier.write(storage))
                self.entries.append(entry)
            self.sizes.append(storage.nbytes())
            self.total += storage.nbytes()
            self.seen[reference.cdata] = known = (reference, entry)
        if known[1] is None:
            return (
                tensor,
                self.total,
            )  # how many saved bytes come back before it, so that prefetching can begin
        known[1].uses += 1
        return known[1], tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset()

    def unpack(self, packed: object) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        if len(packed) == 2:  # type: ignore[arg-type]
            tensor, before = packed  # type: ignore[misc]
            if before - self.swapped < AHEAD_BYTES:
                self.prefetch(len(self.entries) - 1)
            return tensor
        entry, dtype, size, stride, offset = packed  # type: ignore[misc]
        self.prefetch(entry.index)
        flat = entry.arrival.wait()
        entry.uses -= 1
        if entry.uses == 0:  # the caller's tensor is now the only one
            entry.arrival = None
            entry.block.release()
        return flat.view(dtype).as_strided(size, stride, offset)

    def prefetch(self, start: int) -> None:
        ahead = 0
        for entry in reversed(self.entries[: start + 1]):
            if entry.uses and entry.arrival is None:
                entry.arrival = self.tier.read(entry.block)
            ahead += entry.block.nbytes if entry.uses else 0
            if ahead > AHEAD_BYTES:
                return
