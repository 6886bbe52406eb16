"""Uneven inputs: a worker that has run out takes part, with nothing to give, until all have.

Inside `join()`, every synchronised forward pass goes through a turnstile: a worker counts its pass and waits until every
other worker of the job has counted as many or has declared that it is out. So all workers agree, for each
step, on who still has inputs, who lends its buffers, and whether there is a step at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
import torch.distributed as dist

from ..errors import ParallelError
from .faults import Field
from .sinks import ReturnSink
from .worker import Worker

if TYPE_CHECKING:
    from .buffers import Buffers


@final
class Turnstile:
    """One worker's state of `join()`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._open = False
        self._agreements = 0

    def open(self, divide_by_initial: bool, throw: bool) -> None:
        self._open, self._throw, self._source, self._last = True, throw, 0, 0
        self._worker.sink.divide_by_initial = divide_by_initial
        self._worker.control.post(Field.JOINED, 0)
        self._worker.control.barrier()

    def close(self) -> None:
        self._open = False
        self._worker.sink.divide_by_initial = True

    def pass_forward(self, counts: bool, buffers: Buffers | None) -> None:
        """Before a forward pass. Raises if somebody is out and `throw_on_early_termination` was given."""
        if self._open and counts:
            if not all(self._agree(True)) and self._throw:
                self._raise()
            self._source_buffers(buffers)

    def shadow(self, buffers: Buffers | None) -> None:
        """This worker is out of inputs: mirror the others' steps until they are, too."""
        worker = self._worker
        worker.control.post(Field.JOINED, worker.engine.step + 1)
        while any(self._agree(False)):
            if self._throw:
                self._raise()
            self._source_buffers(buffers)
            if buffers is not None:
                buffers.run()
            if isinstance(worker.sink, ReturnSink):
                worker.engine.begin()
            worker.complete()
            worker.after_shadow()
        self._same_end()
        if buffers is not None:
            buffers.source = 0

    @torch.no_grad()
    def _same_end(self) -> None:
        """What is not shared ends as on the worker that had inputs for longest."""
        worker = self._worker
        if worker.groups.everyone is None:
            return
        private = isinstance(worker.sink, ReturnSink)
        for tensor in [*(worker.params if private else ()), *worker.module.buffers()]:
            whole = tensor.detach().contiguous()
            with worker.control.collective():
                dist.broadcast(whole, self._last, group=worker.groups.everyone)
            tensor.detach().copy_(whole)

    def _agree(self, has_inputs: bool) -> list[bool]:
        """Which workers, by global rank, have inputs for the next step."""
        worker = self._worker
        mine = torch.zeros(worker.node.world, dtype=torch.uint8)
        mine[worker.node.rank] = has_inputs
        if worker.groups.everyone is not None:
            self._agreements += 1
            worker.control.post(Field.FORWARD, self._agreements)
            worker.control.wait(Field.FORWARD, self._agreements)  # names a worker that does not come
            with worker.control.collective():
                dist.all_reduce(mine, group=worker.groups.everyone)
        if mine.any():  # the highest rank with inputs lends its buffers, as in DDP
            self._source = self._last = int(mine.nonzero().max())
        return [bool(flag) for flag in mine]

    def _source_buffers(self, buffers: Buffers | None) -> None:
        if buffers is not None:
            buffers.source = self._source

    def _raise(self) -> None:
        raise ParallelError(
            f"rank {self._worker.node.rank} stops: a worker ran out of inputs (throw_on_early_termination=True)"
        )
