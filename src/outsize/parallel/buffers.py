"""Rank 0's buffers (running statistics, say) for everybody, before a forward pass.

The first worker of a node writes them to the arena, the others copy; two counters keep it from
overwriting what has not been read. Between nodes, the first workers broadcast. Where rank 0 has run out of inputs
(`join`), another worker's buffers count, and buffers may outgrow what was reserved for them; both are rare, and go
over the process group.
"""

from __future__ import annotations

from typing import final

import torch
import torch.distributed as dist

from .faults import Field
from .worker import Worker


@final
class Buffers:
    """Copies of one module's buffers through shared memory.

    Attributes:
        source: the rank whose buffers count.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._shared = worker.arena.tensor("buffers", torch.uint8)
        self._round = 0
        self.source = 0

    @torch.no_grad()
    def run(self) -> None:
        """Take the source's buffers. Collective."""
        worker, node = self._worker, self._worker.node
        buffers = [b.detach() for b in worker.module.buffers() if b.numel()]
        if not buffers or node.world == 1:
            return
        if self.source != 0 or sum(map(n_bytes, buffers)) > self._shared.numel():
            for buffer in buffers:
                whole = buffer.contiguous()
                with worker.control.collective():
                    dist.broadcast(whole, self.source, group=worker.groups.everyone)
                buffer.copy_(whole)
            return
        self._round += 1
        control = worker.control
        if node.leads:
            control.wait(Field.COPIED, self._round - 1)
            if node.rank == 0:
                self._pack(buffers)
            if worker.groups.peers is not None:
                with control.collective():
                    dist.broadcast(self._shared, 0, group=worker.groups.peers)
            control.post(Field.FILLED, self._round)
        else:
            control.wait(Field.FILLED, self._round, worker=0)
        if node.rank != 0:
            self._unpack(buffers)
        control.post(Field.COPIED, self._round)

    def _pack(self, buffers: list[torch.Tensor]) -> None:
        end = 0
        for buffer in buffers:
            raw = buffer.contiguous().view(-1).view(torch.uint8)
            self._shared[end : end + raw.numel()] = raw
            end += raw.numel()

    def _unpack(self, buffers: list[torch.Tensor]) -> None:
        end = 0
        for buffer in buffers:
            size = n_bytes(buffer)
            part = self._shared[end : end + size].clone()  # aligned, whatever precedes it
            buffer.copy_(part.view(buffer.dtype).view(buffer.shape))
            end += size


def n_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
