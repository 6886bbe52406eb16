"""The threads of the disk tier, its file, and what they share with the step's own thread.

Two threads write and two read, so that one hashes while the other moves (`benchmarks/disk-throughput`: with one each
way the hash stands in line with the transfer and a fifth of the disk's speed is lost). Python's threads are enough:
reading, writing and hashing pieces of megabytes all run without the interpreter lock.

An interrupt may strike the step's own thread at any line of it. So that thread changes nothing in two halves: an extent
is taken for an object and free when that object is gone (`space.py`), a job is put in a queue or it is not, and the
bytes in flight are a sum over the jobs that have not ended. The growth of the file runs aside.
"""

from __future__ import annotations

import errno
import gc
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

import torch

from ...device.link import EmulatedLink, Pace
from ...device.memory import mark_lane
from ...device.waiting import Latch, aside
from ...errors import TierError, TierFullError
from ...units import format_bytes
from .base import Outcome, Tally
from .file import RawFile
from .pieces import PieceMover
from .space import Space

__all__ = ["Content", "DiskSettings", "Engine", "Read", "Write"]


@dataclass(frozen=True, kw_only=True)
class DiskSettings:
    """How the disk is used.

    Attributes:
        piece_bytes: bytes per call and per checksum. On a machine with fifteen busy processes a core, 8 MiB moved 4.1
            GB/s and 4 MiB 2.9, each call being a wait for the interpreter lock; 16 and 32 MiB moved no more.
        in_flight_bytes: bytes of writes accepted and not yet on disk; `write` blocks beyond. They are alive on the
            device, so this bounds how far memory may lag behind the plan.
        growth_bytes: the file grows by at least this much at a time.
        writers, readers: threads each way.
        link: the bandwidth and latency to emulate, None for the disk's own.
    """

    piece_bytes: int = 8 * 2**20
    in_flight_bytes: int = 256 * 2**20
    growth_bytes: int = 64 * 2**20
    writers: int = 2
    readers: int = 2
    link: EmulatedLink | None = None


@final
class Content:
    """The bytes of one block. Their place in the file is taken while this object lives: the block holds it until it is
    released, and each read until it has ended. A write to come does not, so what nobody wants any more is not written.
    """

    __slots__ = ("__weakref__", "digests", "nbytes", "offset", "slot", "written")

    def __init__(self, nbytes: int, slot: int | None) -> None:
        self.nbytes, self.slot, self.offset = nbytes, slot, -1
        self.digests: list[int] = []
        self.written = Outcome()


@final
@dataclass(slots=True, eq=False)
class Write:
    """A write to do. The worker empties it the moment the bytes are out."""

    content: weakref.ref[Content]
    source: torch.Tensor | None
    owner: object
    written: Outcome


@final
@dataclass(slots=True, eq=False, weakref_slot=True)
class Read:
    """A read to do, unless nobody waits for it any more."""

    content: Content | None
    target: torch.Tensor | None
    outcome: Outcome = field(default_factory=Outcome)


@final
class Engine:
    """What the threads share. It never refers to the tier, so that a forgotten tier is collected and closed."""

    def __init__(self, file: RawFile, settings: DiskSettings) -> None:
        self.file, self.settings = file, settings
        self.space = Space(max(file.offset_align, file.memory_align, 4096))
        self.tally = Tally()
        self.lock = threading.Lock()  # for the growth of the file; never taken by a step's own thread
        #: Writes that were accepted and may not have ended, by their outcome.
        self.accepted: dict[Outcome, int] = {}
        self.roused: set[int] = set()
        self.closed = self.warned = False
        self.pid = os.getpid()
        #: Anything that is no job ends the threads.
        self.writes: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.reads: queue.SimpleQueue[weakref.ref[Read] | None] = queue.SimpleQueue()
        self.out_pace, self.in_pace = Pace(settings.link), Pace(settings.link)
        jobs = [self._write_all] * settings.writers + [self._read_all] * settings.readers
        self._working = set(range(len(jobs)))
        self.threads = [
            threading.Thread(
                target=self._run,
                args=(number, job, PieceMover(file, settings.piece_bytes)),
                daemon=True,
                name="outsize-disk",
            )
            for number, job in enumerate(jobs)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, number: int, job: Callable[[PieceMover], None], mover: PieceMover) -> None:
        mark_lane()
        try:
            job(mover)
        finally:
            self._working.discard(number)
            if not self._working:
                self.file.close()

    def check_open(self) -> None:
        if self.closed:
            raise TierError("the disk tier is closed")
        if os.getpid() != self.pid:
            raise TierError(
                f"the disk tier belongs to process {self.pid}, which opened it, and this is process {os.getpid()}, "
                "forked from it: what is in the tier is read there; call outsize.compile here for steps of this process"
            )

    def wait(self, latch: Latch) -> None:
        if not latch.is_open:
            if os.getpid() != self.pid:  # nobody here would ever open it
                self.check_open()
            self.tally.blocked(latch.wait)

    # -- space

    def place(self, content: Content) -> None:
        """Take an extent for it; the file grows if it must."""
        nbytes = content.nbytes
        while (offset := self.space.take(content, nbytes)) is None:
            aside(lambda: self.make_room(nbytes))
        content.offset = offset
        self.tally.held(self.space.held_bytes)

    def make_room(self, nbytes: int) -> None:
        """Grow the file until it has a hole for `nbytes` more. Runs aside."""
        with self.lock:
            if (short := self.space.shortage(nbytes)) > 0:
                self._grow(nbytes, short)

    def reserve(self, nbytes: int) -> None:
        """Grow the file to `nbytes`. Runs aside."""
        with self.lock:
            if (short := self.space.rounded(nbytes) - self.space.size) > 0:
                self._grow(nbytes, short)

    def _grow(self, asked: int, short: int) -> None:
        error: OSError | None = None
        size = self.space.size
        for step in dict.fromkeys((max(short, self.settings.growth_bytes), short)):
            try:
                self.file.allocate(size, self.space.rounded(step))
            except OSError as caught:
                error = caught
            else:
                self.space.grow(size + self.space.rounded(step))
                return
        gc.collect()  # blocks of a step that failed may be held by its traceback, in a cycle
        if self.space.shortage(asked) <= 0:
            return
        assert error is not None
        raise self.explain(error, f"hold {format_bytes(asked)} ({asked} bytes) more") from None

    def explain(self, error: BaseException, what: str) -> TierError:
        """The error that a caller sees, with the numbers against it."""
        if isinstance(error, TierError):
            return error.with_traceback(None)
        where, free = "its directory", "an unknown number of bytes"
        with suppress(OSError):  # a disk that fails may not tell
            facts = self.file.facts()
            where = f"{facts.get('directory')} ({facts.get('file_system')})"
            free = format_bytes(self.file.free_bytes())
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = (isinstance(error, OSError) and error.strerror) or repr(error)
        return (TierFullError if full else TierError)(
            f"the disk tier at {where} cannot {what}: {reason}; the swap file has {format_bytes(self.space.size)}, "
            f"the file system {free} free: name another directory with disk=DIR"
        )

    # -- writing

    @property
    def in_flight(self) -> int:
        """Bytes of writes that were accepted and have not ended."""
        return sum(nbytes for written, nbytes in tuple(self.accepted.items()) if not written.latch.is_open)

    def submit_write(self, job: Write, nbytes: int) -> None:
        for written in tuple(self.accepted):
            if written.latch.is_open:
                self.accepted.pop(written, None)
        while not self.closed and (under_way := self.in_flight) > 0:
            if under_way + nbytes <= self.settings.in_flight_bytes:
                break
            if (oldest := next((w for w in tuple(self.accepted) if not w.latch.is_open), None)) is not None:
                self.wait(oldest.latch)
        self.writes.put(job)
        self.accepted[job.written] = nbytes
        if self.closed:
            self._refuse()

    def submit_read(self, job: Read) -> None:
        self.reads.put(weakref.ref(job))
        if self.closed:
            self._refuse()

    def _write_all(self, mover: PieceMover) -> None:
        while isinstance(job := self.writes.get(), Write):
            written, error = job.written, self._write_one(mover, job)
            del job
            self.roused.add(threading.get_ident())
            written.end(error)
            del written, error
        self._end()

    def _write_one(self, mover: PieceMover, job: Write) -> TierError | None:
        nbytes = 0
        try:
            if self.closed:
                return TierError("the disk tier was closed before the block was written")
            if (content := job.content()) is None:
                return None
            nbytes = content.nbytes
            start, arrives = time.perf_counter(), self.out_pace.begin(nbytes)
            assert job.source is not None
            content.digests = mover.write(job.source, content.offset)
            self.out_pace.finish(arrives)
            self.tally.moved("out", nbytes, start, content.slot)
            return None
        except BaseException as error:
            return self.explain(error, f"write a block of {format_bytes(nbytes)}")
        finally:
            job.source = job.owner = None  # the device's bytes go free here, before anyone is told

    # -- reading

    def _read_all(self, mover: PieceMover) -> None:
        while (reference := self.reads.get()) is not None:
            if (job := reference()) is not None:
                outcome, error = job.outcome, self._read_one(mover, job)
                job.content = None
                if error is not None:
                    job.target = None
                del job
                self.roused.add(threading.get_ident())
                outcome.end(error)
                del outcome, error
        self._end()

    def _read_one(self, mover: PieceMover, job: Read) -> TierError | None:
        content = job.content
        assert content is not None
        what = f"a block of {format_bytes(content.nbytes)} at byte {content.offset} of the swap file"
        try:
            content.written.latch.wait()
            if content.written.failed:
                return content.written.error()
            if self.closed:
                return TierError("the disk tier was closed before the block was read")
            start, arrives = time.perf_counter(), self.in_pace.begin(content.nbytes)
            assert job.target is not None
            mover.read(job.target, content.offset, content.digests, what)
            self.in_pace.finish(arrives)
            self.tally.moved("in", content.nbytes, start, content.slot)
            return None
        except BaseException as error:
            return self.explain(error, f"read {what}")

    # -- the end

    def _end(self) -> None:
        """The queues end here, for every thread."""
        self.closed = True
        self.writes.put(None)
        self.reads.put(None)

    def end_with(self, owner: object) -> None:
        """Close when `owner` goes. What runs then is one call in C, so no interrupt can prevent it."""
        self._owner = weakref.ref(owner, self.writes.put)

    def shut(self) -> None:
        """Close, and wait for the threads. Done again, it does what is left to do."""
        if os.getpid() != self.pid:
            self.file.close()
            return
        self._end()
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()
        self._refuse()

    def _refuse(self) -> None:
        """End what was put behind the end: a call that another thread's `close` overtook."""
        with suppress(queue.Empty):
            while True:
                if isinstance(write := self.writes.get_nowait(), Write):
                    write.source = write.owner = None
                    write.written.end(TierError("the disk tier was closed before the block was written"))
        with suppress(queue.Empty):
            while True:
                if (reference := self.reads.get_nowait()) is not None and (read := reference()) is not None:
                    read.outcome.end(TierError("the disk tier was closed before the block was read"))
        self._end()
