"""The chunk size, found while training (method 5, claims 2 to 5).

Small chunks pay a latency each, large ones leave much of the last transfer after the end of the backward pass;
where the best size lies depends on the network, the links and the load, so it is measured. One size
is evaluated over `frequency` steps; the next is `expansion` times larger as long as that helps, then smaller as
long as that helps; the best one measured is kept. `claim=True` stops by the words of claim 4 instead: at
the first size that ran shorter than the different one before it.

Rank 0 measures and decides. At steps that all workers know, its decision (and, after the first step, the order in
which its gradients became ready) passes through the arena, all adopt it between two barriers, and at
the end the digests of all workers' plans are compared.
"""

from __future__ import annotations

import time
from typing import final

import torch
import torch.distributed as dist

from ..errors import ParallelError
from .node import exchange
from .settings import Search
from .worker import Worker


@final
class Climb:
    """The search alone: which size to try next, given how long the last one took. No clock, no torch."""

    def __init__(self, search: Search, largest_mb: float) -> None:
        self._search, self._largest = search, largest_mb
        self.size = min(search.first_mb, largest_mb)
        self.seen: dict[float, float] = {}
        self._direction = 1
        self.ended = False

    def report(self, seconds: float) -> None:
        """Take the time of a step at `self.size`; sets the next size, or the best one and `ended`."""
        before = min(self.seen.values(), default=float("inf"))
        first = not self.seen
        self.seen[self.size] = seconds
        better = seconds < before
        if self._search.claim:
            if (better and not first) or not self._try(1):
                self._end(self.size if better else min(self.seen, key=self.seen.__getitem__))
            return None
        if len(self.seen) >= self._search.limit:
            return self._end()
        if better and self._try(self._direction):
            return None
        if self._direction == 1:
            self._direction = -1
            self.size = self._search.first_mb
            if self._try(-1) and self.size not in self.seen:
                return None
        return self._end()

    def _try(self, direction: int) -> bool:
        step = self._search.expansion**direction
        size = self.size * step
        if len(self.seen) >= self._search.limit or not 0.0625 <= size <= self._largest:
            return False
        self.size = size
        return True

    def _end(self, size: float | None = None) -> None:
        self.ended = True
        self.size = min(self.seen, key=self.seen.__getitem__) if size is None else size


@final
class Tuner:
    """Carries out the search on a running worker.

    Args:
        worker: whose plan is exchanged.
        fixed: the size was given; only the order is taken from the first step.
    """

    def __init__(self, worker: Worker, *, fixed: bool) -> None:
        self._worker, self._fixed = worker, fixed
        largest = worker.settings.staging_mb / worker.settings.depth
        self._climb = Climb(worker.settings.search, largest)
        self._steps, self._times = 0, []  # type: ignore[var-annotated]
        self._last = time.perf_counter()
        self._order = worker.default_order()
        self.frozen = False
        worker.after_shadow = self.after_step

    def after_step(self) -> None:
        """After every step, on every worker."""
        if self.frozen:
            return
        now = time.perf_counter()
        self._times.append(now - self._last)
        self._last = now
        self._steps += 1
        if self._steps == 1:
            self._decide(self._worker.plan.chunk_bytes, self._observed_order())
            if self._fixed:
                self._freeze()
        elif (self._steps - 1) % self._worker.settings.search.frequency == 0:
            self._climb.report(min(self._times))
            size = int(self._climb.size * (1 << 20)) * (-1 if self._climb.ended else 1)
            if self._decide(size, self._order):
                self._freeze()
        else:
            return
        self._times = []
        self._last = time.perf_counter()

    def _observed_order(self) -> list[int]:
        seen = list(dict.fromkeys(self._worker.engine.last_order))
        return seen + [slot for slot in self._order if slot not in set(seen)]

    def _decide(self, chunk_bytes: int, order: list[int]) -> bool:
        """Rank 0's size (negative: the last word) and order, adopted by all; whether the search has ended."""
        worker = self._worker
        board = worker.arena.tensor("orders", torch.int64)
        if worker.node.leads:
            board[0] = chunk_bytes
            board[1:] = torch.tensor(order)
            if worker.groups.peers is not None:
                with worker.control.collective():
                    dist.broadcast(board, 0, group=worker.groups.peers)
        worker.control.barrier()
        size, *self._order = board.tolist()
        worker.adopt(worker.form(abs(size) / (1 << 20), self._order))
        if worker.node.leads:
            worker.arena.forget("staging")  # pages that only larger chunks touched
        worker.control.barrier()
        return bool(size < 0)

    def _freeze(self) -> None:
        self.frozen = True
        worker = self._worker
        if worker.groups.everyone is None:
            return
        with worker.control.collective():
            cards = exchange({"plan": worker.plan.digest}, worker.groups.everyone)
        for rank, card in enumerate(cards):
            if card["plan"] != worker.plan.digest:
                raise ParallelError(f"rank {rank} has another chunk plan than rank {worker.node.rank}")
