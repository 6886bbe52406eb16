"""The staging ring: where one worker's gradients wait until all workers' have come.

Problem: gradients of a whole model in shared memory, once per worker, are what a replica costs again.
Mechanism: each worker has room for `depth` chunks; chunk number n (counted over all steps) lies in place
n mod depth and may be overwritten when every worker is done reading chunk n − depth. Small chunks in a short
ring also stay in the last-level cache between the write and the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from .. import native
from .arena import Arena
from .chunks import Chunk, ChunkPlan, Slot
from .rules import FLAT, HYPER, LENGTH, OUT, OWN, STAGED, Addresses, Table


@final
class Ring:
    """Places of all workers of the node, for one plan.

    Args:
        arena: with a section `staging` of `workers` equal parts.
        workers: of the node.
        worker: this one.
        plan: whose largest chunk must fit.
        depth: wished number of places; fewer where the section is too small.
    """

    def __init__(self, arena: Arena, workers: int, worker: int, plan: ChunkPlan, depth: int) -> None:
        _, size = arena.layout.places["staging"]
        share = size // workers // 64 * 64
        self.capacity = -(-max((c.n_bytes for c in plan.chunks), default=64) // 64) * 64
        self.depth = max(min(depth, share // self.capacity), 1)
        first = arena.at("staging")
        self._places: list[Addresses] = [
            np.array([first + w * share + k * self.capacity for w in range(workers)], dtype=np.uint64)
            for k in range(self.depth)
        ]
        self._worker = worker

    def sources(self, number: int) -> Addresses:
        """Where each worker's copy of chunk `number` lies."""
        return self._places[number % self.depth]

    def stage(
        self,
        number: int,
        chunk: Chunk,
        parts: Sequence[tuple[int, int]],
        grads: Sequence[torch.Tensor | None],
    ) -> None:
        """Copy parts of a chunk from this worker's gradients to their place; a missing gradient counts as zeros."""
        item, rows = chunk.itemsize, []
        for part in parts:
            for slot, start, staged, length in chunk.runs(*part):
                grad = grads[slot]
                source = 0 if grad is None else grad.data_ptr() + start * item
                rows.append((source, staged * item, length * item))
        if rows:
            self._copy(np.array(rows, dtype=np.int64), int(self.sources(number)[self._worker]))

    def own(
        self,
        number: int,
        chunk: Chunk,
        rows: Table,
        slots: Sequence[Slot],
        grads: Sequence[torch.Tensor | None],
    ) -> Table:
        """The rows of this worker's slice, told where its own gradients lie; zeros are staged for missing ones."""
        item, place, rows = chunk.itemsize, int(self.sources(number)[self._worker]), rows.copy()
        missing = []
        for row in rows:
            grad = grads[row[HYPER]]
            if grad is None:
                missing.append((0, row[STAGED] * item, row[LENGTH] * item))
            else:
                row[OWN] = grad.data_ptr() + (row[FLAT] - slots[row[HYPER]].offset) * item
        if missing:
            self._copy(np.array(missing, dtype=np.int64), place)
        return rows

    def collect(
        self, number: int, chunk: Chunk, cuts: Sequence[tuple[int, int]], grads: Sequence[torch.Tensor | None]
    ) -> None:
        """Copy the summed slices back over the gradients; each worker's slice is read from that worker's place."""
        item, sources = chunk.itemsize, self.sources(number)
        rows = []
        for worker, cut in enumerate(cuts):
            for slot, start, staged, length in chunk.runs(*cut):
                grad = grads[slot]
                if grad is not None:
                    source = int(sources[worker]) + staged * item
                    rows.append((grad.data_ptr() + start * item, source, length * item))
        if rows:
            self._copy(np.array(rows, dtype=np.int64), 0)

    @staticmethod
    def _copy(rows: np.ndarray, base: int) -> None:
        assert native.kernels is not None
        native.kernels.copy(rows.ctypes.data, len(rows), base)


def table(chunk: Chunk, slots: Sequence[Slot], start: int, stop: int) -> Table:
    """Rows for the part `[start, stop)` of a chunk: read where it is staged, write at the same offset."""
    rows = [
        (slots[slot].offset + at, staged, length, slot, staged, 0)
        for slot, at, staged, length in chunk.runs(start, stop)
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 6)


def redirect(rows: Table, *, read: int | None = None, write: int | None = None, shift: int = 0) -> Table:
    """The same runs, read from (or written to) the offsets of another column minus `shift`.

    Rows that are read elsewhere lose their `OWN` address: what they read then is a sum.
    """
    changed = rows.copy()
    if read is not None:
        changed[:, STAGED] = rows[:, read] - shift
        changed[:, OWN] = 0
    if write is not None:
        changed[:, OUT] = rows[:, write] - shift
    return changed
