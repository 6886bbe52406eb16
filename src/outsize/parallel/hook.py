"""A communication hook for plain DDP: the first step of a migration.

    model = DistributedDataParallel(model)
    model.register_comm_hook(None, outsize.parallel.shared_memory_hook(model))

Buckets are summed through shared memory instead of sockets, by slices, in the order of the ranks. DDP keeps its
buckets, its copies and its optimizer on every worker, which is most of what `distribute` saves: expect little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ..errors import ParallelError
from .arena import Arena, Layout
from .chunks import Chunk
from .faults import HEADER, Control, Field, lines_bytes
from .node import discover
from .rules import add_up, borrow
from .startup import open_groups
from .worker import share

Hook = Callable[[object, Any], torch.futures.Future[torch.Tensor]]


def shared_memory_hook(module: nn.Module, *, timeout: float = 60.0) -> Hook:
    """A hook that averages buckets over the workers of one node. Call it on every worker.

    Args:
        module: whose gradients the buckets hold; the largest bucket is no larger than all of them.
        timeout: seconds after which a worker that does not arrive counts as stopped.

    Returns:
        for `DistributedDataParallel.register_comm_hook(None, hook)`.

    Raises:
        ParallelError: the workers are on several nodes.
    """
    average = _Average(module, timeout)

    def shared_memory_average(state: object, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        average(bucket.buffer())
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    # DDP compares the annotations with these very classes, not with their names.
    kinds = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}  # type: ignore[attr-defined]
    shared_memory_average.__annotations__ |= kinds
    return shared_memory_average


@final
class _Average:
    """Averages one bucket after another; two places, so that a fast worker may be one bucket ahead."""

    def __init__(self, module: nn.Module, timeout: float) -> None:
        groups = open_groups(timeout)
        self._node = discover(groups.everyone)
        if self._node.count > 1:
            raise ParallelError(
                f"the hook serves the workers of one node, these are on {self._node.count}: use distribute()"
            )
        size = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
        self._capacity = (size + 8191) // 4096 * 4096
        workers = self._node.local_world
        sizes = {"header": HEADER, "lines": lines_bytes(workers), "places": 2 * workers * self._capacity}
        self._arena: Arena = share(Layout(sizes), self._node, timeout)
        self._control = Control(self._arena, self._node, timeout)
        self._control.phase = lambda: f"bucket {self._number + 1}"
        self._number = 0
        self._control.barrier()

    def __call__(self, bucket: torch.Tensor) -> None:
        control, number, workers, me = (
            self._control,
            self._number,
            self._node.local_world,
            self._node.local_rank,
        )
        control.wait(Field.DONE, max(number - 1, 0))  # the place that is overwritten has been read by all
        first = self._arena.at("places") + (number % 2) * workers * self._capacity
        places = np.array([first + w * self._capacity for w in range(workers)], dtype=np.uint64)
        length, dtype = bucket.numel(), bucket.dtype
        shared = [borrow(int(place), length, dtype) for place in places]
        shared[me].copy_(bucket)
        control.post(Field.STAGED, number + 1)
        control.wait(Field.STAGED, number + 1)
        chunk = Chunk(space="", itemsize=dtype.itemsize, pieces=(), length=length)
        start, stop = chunk.cut(me, workers)
        rows = np.array([[0, start, stop - start, 0, start, 0]], dtype=np.int64)
        if stop > start:
            add_up(rows, places, me, dtype, 1 / workers, shared[me])
        control.post(Field.SUMMED, number + 1)
        control.wait(Field.SUMMED, number + 1)
        for worker in range(workers):
            start, stop = chunk.cut(worker, workers)
            bucket[start:stop] = shared[worker][start:stop]
        control.post(Field.DONE, number + 1)
        self._number += 1
