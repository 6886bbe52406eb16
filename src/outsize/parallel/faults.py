"""Waiting that ends: when the others arrive, or when one of them cannot.

Problem: a worker that waits for a dead one waits for ever. A process id is no proof of life (an unreaped
child still "exists"), and a hang cannot be told from a long step except by time.

Mechanism: every wait is cut into slices; between slices a pidfd per worker of the node is polled, which the
kernel makes readable at the moment of death. A stopped worker is found by `timeout`. The first to notice
writes the failure into the arena, which ends every wait of the node with the same `RankFailure`; an
exception that ends a worker's program is written there by the worker itself, as is that it ends.
"""

from __future__ import annotations

import atexit
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import TracebackType
from typing import Any, NoReturn, final

from .. import native
from ..errors import ParallelError, RankFailure
from .arena import Arena
from .node import Node

_BELL, _WAITERS, _POISON, _RECORD = 0, 64, 128, 192
_TEXT = 400
_LINE = 128
HEADER = 4096


class Field(IntEnum):
    """Counters of one worker; each only grows."""

    STAGED = 0  # chunks whose gradients lie in the arena
    SUMMED = 1  # chunks whose slice this worker has summed over the workers of its node
    DONE = 2  # chunks whose slice this worker has updated (or, handed back, collected)
    BARRIER = 3
    FORWARD = 4  # agreements on who has inputs (`join`)
    FILLED = 5  # rank 0: buffers written
    COPIED = 6  # buffers read
    JOINED = 7  # 1 + the number of the step at which this worker ran out of inputs
    LEFT = 8  # 1 once this worker's program is ending


def lines_bytes(workers: int) -> int:
    return workers * _LINE


@final
class Control:
    """One worker's view of the counters of its node.

    Args:
        arena: the node's shared memory.
        node: who is on it.
        timeout: seconds after which a worker that has not arrived counts as stopped.
    """

    #: Seconds between two looks at the other workers' pidfds; a death is noticed within one slice.
    SLICE = 0.1
    #: Looks before sleeping: the others are usually a few microseconds behind, and a core may be shared.
    SPINS = 200

    def __init__(self, arena: Arena, node: Node, timeout: float) -> None:
        if native.kernels is None:
            raise ParallelError(
                "chunk-wise data parallelism needs outsize's C module: install a C compiler and reinstall, or "
                "use torch.nn.parallel.DistributedDataParallel"
            )
        self._native = native.kernels
        self.node, self.timeout = node, timeout
        self._arena = arena
        self._header = arena.at("header")
        self._lines = arena.at("lines")
        self._process = os.getpid()
        self._mine = [0] * len(Field)
        self._watched = watch(node)
        self._closed = False
        self._found: tuple[int, int, str] | None = None
        self.phase: Callable[[], str] = lambda: "startup"
        if node.local_world > 1:
            atexit.register(self._leave)
            _announce_exceptions(self)

    def address(self, field: Field, worker: int) -> int:
        return self._lines + worker * _LINE + 8 * field

    def post(self, field: Field, value: int) -> None:
        """Publish everything written so far, and this worker's progress."""
        self._mine[field] = value
        self._native.post(
            self._header + _BELL, self._header + _WAITERS, self.address(field, self.node.local_rank), value
        )

    def read(self, field: Field, worker: int) -> int:
        return int(self._native.load(self.address(field, worker)))

    def reached(self, field: Field, value: int) -> bool:
        """Whether every worker of the node has come to `value`."""
        return all(self.read(field, worker) >= value for worker in range(self.node.local_world))

    def wait(self, field: Field, value: int, worker: int | None = None) -> None:
        """Block until every worker of the node (or the one given) has come to `value`.

        Raises:
            RankFailure: a worker that has not come died, left, raised or is past the timeout.
        """
        first, count = (0, self.node.local_world) if worker is None else (worker, 1)
        deadline = None
        while True:
            outcome = self._native.wait_all(
                self._header + _BELL, self._header + _WAITERS, self._header + _POISON,
                self.address(field, first), _LINE, count, value, self.SPINS, int(self.SLICE * 1e9),
            )  # fmt: skip
            if outcome == 0:
                return
            self.check()
            now = time.monotonic()
            deadline = deadline or now + self.timeout - self.SLICE
            behind = [w for w in range(first, first + count) if self.read(field, w) < value]
            dead = self._dead()
            for lost in behind:
                if lost in dead or self.read(Field.LEFT, lost):
                    self.fail(lost, "died or left early")
            if behind and now > deadline:
                self.fail(behind[0], f"did not arrive within {self.timeout:g} s (stopped, or busy elsewhere)")

    def barrier(self) -> None:
        """Every worker of the node has come here."""
        value = self._mine[Field.BARRIER] + 1
        self.post(Field.BARRIER, value)
        self.wait(Field.BARRIER, value)

    def check(self) -> None:
        """Raise what another worker or this one has found, if anything."""
        if int(self._native.load(self._header + _POISON)) & 0xFFFFFFFF == 2:
            rank, pid, length = struct.unpack_from("<qqq", self._record())
            reason = bytes(self._record()[24 : 24 + length]).decode(errors="replace")
            raise _failure(rank, pid, self.phase(), reason)
        if self._found is not None:  # another found it at the same moment and is still writing its record
            rank, pid, reason = self._found
            raise _failure(rank, pid, self.phase(), reason)

    def watch_peers(self) -> None:
        """Look at the others while waiting on something that is not a counter (another node)."""
        self.check()
        dead = self._dead()
        for worker in range(self.node.local_world):
            behind = self.read(Field.DONE, worker) < self._mine[Field.STAGED]
            if behind and (worker in dead or self.read(Field.LEFT, worker)):
                self.fail(worker, "died or left early")

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Around a collective of `torch.distributed`: that it fails is a worker's failure.

        Raises:
            RankFailure: with rank -1 where nobody on this node died, so that only the link tells of it.
        """
        try:
            yield
        except RuntimeError as error:
            for _ in range(10):  # a dying process closes its links a moment before its pidfd tells
                self.watch_peers()
                for dead in self._dead():
                    self.fail(dead, "died or left early")
                time.sleep(self.SLICE)
            reason = f"on another node (or the link to it) failed: {str(error).splitlines()[0]}"
            self.poison(-1, -1, reason)
            raise _failure(-1, -1, self.phase(), reason) from error

    def fail(self, worker: int, reason: str) -> NoReturn:
        """Write the failure down for the others and raise it here."""
        rank, pid = self.node.ranks[worker], self.node.pids[worker]
        self.poison(rank, pid, reason)
        raise _failure(rank, pid, self.phase(), reason)

    def poison(self, rank: int, pid: int, reason: str) -> None:
        """End every wait of the node; the first reason stays."""
        if self._closed:
            return
        self._found = self._found or (rank, pid, reason)
        if not self._native.claim(self._header + _POISON, 0, 1):
            return
        text = reason.encode()[:_TEXT]
        record = struct.pack("<qqq", rank, pid, len(text)) + text
        self._record()[: len(record)] = record
        self._native.claim(self._header + _POISON, 1, 2)
        # Any posted counter wakes the sleepers; repeat one unchanged.
        self.post(Field.BARRIER, self._mine[Field.BARRIER])

    def close(self) -> None:
        """Forget the other workers: what happens to them no longer matters to this one."""
        self._closed = True
        for descriptor in self._watched.values():
            os.close(descriptor)
        self._watched = {}

    def _record(self) -> memoryview:
        offset = self._arena.layout.places["header"][0] + _RECORD
        return self._arena.view(offset, 24 + _TEXT)

    def _dead(self) -> list[int]:
        return gone(self._watched)

    def _leave(self) -> None:
        """The interpreter ends, which may take seconds: whoever still counts on this worker should not wait for that."""
        if os.getpid() == self._process:
            self.post(Field.LEFT, 1)
            self.close()


def watch(node: Node) -> dict[int, int]:
    """A pidfd for each other worker of the node, by its index."""
    found = {}
    for worker, pid in enumerate(node.pids):
        if worker != node.local_rank:
            try:
                found[worker] = os.pidfd_open(pid)
            except ProcessLookupError:
                raise ended(node, worker) from None
    return found


def ended(node: Node, worker: int) -> RankFailure:
    """A worker that was gone before the first step."""
    return _failure(node.ranks[worker], node.pids[worker], "startup", "died or left early")


def gone(watched: dict[int, int]) -> list[int]:
    """Indices whose process has ended (a zombie counts: its pidfd is readable)."""
    poll = select.poll()
    for descriptor in watched.values():
        poll.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(0)}
    return [worker for worker, descriptor in watched.items() if descriptor in ready]


def _failure(rank: int, pid: int, phase: str, reason: str) -> RankFailure:
    return RankFailure(
        f"rank {rank} (pid {pid}) {reason} while this worker was at: {phase}. The step is lost and the shared "
        "parameters may be half updated: restart from the last checkpoint (torchrun --max-restarts)",
        rank=rank,
        pid=pid,
        phase=phase,
    )


def _announce_exceptions(control: Control) -> None:
    """An exception that ends this program is told to the others before the process is gone."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if os.getpid() == control._process and not isinstance(error, RankFailure):
            node = control.node
            control.poison(node.rank, os.getpid(), f"raised {kind.__name__}: {error}")
        return previous(kind, error, trace)

    sys.excepthook = hook
