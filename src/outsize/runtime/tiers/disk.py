"""The disk tier: blocks leave for one private file and come back while the step computes.

Two threads write and two read, so that one hashes while the other moves (`benchmarks/disk-throughput`: with one each
way the hash stands in line with the transfer and a fifth of the disk's speed is lost). Python's threads are enough:
reading, writing and hashing pieces of megabytes all run without the interpreter lock.
"""

from __future__ import annotations

import collections
import errno
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from ...device.link import EmulatedLink, Pace
from ...errors import TierError, TierFullError
from ...units import format_bytes
from .base import Arrival, Block, Data, Tally, Tier, destination, flat_bytes
from .file import RawFile, SwapFile, choose_directory
from .pieces import PieceMover
from .space import Space

__all__ = ["DiskSettings", "DiskTier"]


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


@dataclass(slots=True)
class _Extent:
    """A block's place in the file."""

    offset: int
    nbytes: int
    pins: int = 1  # who still needs it: the holder of the block and the transfers under way
    released: bool = False


@final
class DiskBlock(Block):
    """An extent of the file, its checksums, and how far its write has come."""

    def __init__(self, engine: _Engine, extent: _Extent, slot: int | None) -> None:
        self.nbytes, self.extent, self.slot = extent.nbytes, extent, slot
        self.digests: list[int] = []
        self.error: TierError | None = None
        self.done = threading.Event()
        self._engine = engine

    def settle(self) -> None:
        self._engine.wait(self.done)
        if self.error is not None:
            raise self.error

    def settled(self) -> bool:
        return self.done.is_set()

    def release(self) -> None:
        if not self.extent.released:
            self.extent.released = True
            self._engine.unpin(self.extent)

    def __del__(self) -> None:
        self.release()


@final
class DiskArrival(Arrival):
    """A read on its way."""

    def __init__(self, engine: _Engine, block: DiskBlock, target: torch.Tensor) -> None:
        self.block: DiskBlock | None = block
        self.target: torch.Tensor | None = target
        self.error: TierError | None = None
        self.done = threading.Event()
        self._engine = engine

    def wait(self) -> torch.Tensor:
        self._engine.wait(self.done)
        if self.error is not None:
            raise self.error
        assert self.target is not None
        return self.target

    def ready(self) -> bool:
        return self.done.is_set()


@dataclass(slots=True)
class _Write:
    """A write to do. The worker empties it the moment the bytes are out."""

    block: DiskBlock
    source: torch.Tensor | None
    owner: object


@final
class _Engine:
    """What the threads share. It never refers to the tier, so that a forgotten tier is collected and closed."""

    def __init__(self, file: RawFile, settings: DiskSettings) -> None:
        self.file, self.settings = file, settings
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self.space = Space(max(file.offset_align, file.memory_align, 4096))
        self.tally = Tally()
        #: Pins given back. A finalizer may run while this very thread holds the lock, so it only leaves word here.
        self.given_back: collections.deque[_Extent] = collections.deque()
        self.in_flight = 0
        self.roused: set[int] = set()
        self.closed = False
        self.pid = os.getpid()
        self.writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self.reads: queue.SimpleQueue[DiskArrival | None] = queue.SimpleQueue()
        self.out_pace, self.in_pace = Pace(settings.link), Pace(settings.link)
        jobs = [self._write_all] * settings.writers + [self._read_all] * settings.readers
        self.threads = [threading.Thread(target=job, daemon=True, name="outsize-disk") for job in jobs]
        for thread in self.threads:
            thread.start()

    def check_open(self) -> None:
        if self.closed:
            raise TierError("the disk tier is closed")
        if os.getpid() != self.pid:
            raise TierError("the disk tier belongs to the process that opened it; open another after a fork")

    def wait(self, done: threading.Event) -> None:
        if not done.is_set():
            self.tally.blocked(done.wait)

    # -- space

    def take(self, nbytes: int) -> _Extent:
        """An extent for `nbytes`; the file grows if it must."""
        with self.lock:
            self._collect()
            if short := self.space.shortage(nbytes):
                self._grow(nbytes, short)
            offset = self.space.take(nbytes)
        self.tally.add(held=nbytes)
        return _Extent(offset, nbytes)

    def reserve(self, nbytes: int) -> None:
        with self.lock:
            if (short := self.space.rounded(nbytes) - self.space.size) > 0:
                self._grow(nbytes, short)

    def _grow(self, asked: int, short: int) -> None:
        error: OSError | None = None
        for step in dict.fromkeys((max(short, self.settings.growth_bytes), short)):
            try:
                self.file.allocate(self.space.size, step)
            except OSError as caught:
                error = caught
            else:
                self.space.grow(self.space.rounded(step))
                return
        assert error is not None
        raise self.explain(error, f"hold {format_bytes(asked)} ({asked} bytes) more") from None

    def explain(self, error: BaseException, what: str) -> TierError:
        """The error that a caller sees, with the numbers against it."""
        if isinstance(error, TierError):
            return error.with_traceback(None)
        facts = self.file.facts()
        where = f"{facts.get('directory')} ({facts.get('file_system')})"
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = (isinstance(error, OSError) and error.strerror) or repr(error)
        return (TierFullError if full else TierError)(
            f"the disk tier at {where} cannot {what}: {reason}; the swap file has {format_bytes(self.space.size)}, "
            f"the file system {format_bytes(self.file.free_bytes())} free: name another directory with disk=DIR"
        )

    def pin(self, extent: _Extent) -> bool:
        """Keep the extent for one more transfer; False once it was released."""
        with self.lock:
            extent.pins += not extent.released
            return not extent.released

    def unpin(self, extent: _Extent) -> None:
        """Give one pin back, from anywhere, finalizers included: never blocks."""
        self.given_back.append(extent)
        if self.lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self.lock.release()

    def abandoned(self, extent: _Extent) -> bool:
        """Whether nobody but the write to come wants the extent: it was released and no read is under way."""
        with self.lock:
            self._collect()
            return extent.released and extent.pins == 1

    def _collect(self) -> None:
        """Caller holds the lock."""
        while self.given_back:
            extent = self.given_back.popleft()
            extent.pins -= 1
            if extent.pins == 0:
                self.space.give(extent.offset, extent.nbytes)
                self.tally.add(held=-extent.nbytes)

    # -- writing

    def submit_write(self, block: DiskBlock, source: torch.Tensor, owner: object) -> None:
        with self.lock:
            if not self._has_room(block.nbytes):
                self.tally.blocked(lambda: self.room.wait_for(lambda: self._has_room(block.nbytes)))
            self.in_flight += block.nbytes
            block.extent.pins += 1
        self.writes.put(_Write(block, source, owner))

    def _has_room(self, nbytes: int) -> bool:
        limit = self.settings.in_flight_bytes
        return self.closed or self.in_flight == 0 or self.in_flight + nbytes <= limit

    def _write_all(self) -> None:
        mover = PieceMover(self.file, self.settings.piece_bytes)
        while (job := self.writes.get()) is not None:
            block = job.block
            block.error = self._write_one(mover, job)
            self.roused.add(threading.get_ident())
            with self.room:
                self.in_flight -= block.nbytes
                self.room.notify_all()
            extent, done = block.extent, block.done
            # Whoever wakes up finds no reference here: an error's traceback holds a whole step.
            del job, block
            self.unpin(extent)
            done.set()

    def _write_one(self, mover: PieceMover, job: _Write) -> TierError | None:
        block = job.block
        try:
            if self.closed:
                return TierError("the disk tier was closed before the block was written")
            if self.abandoned(block.extent):
                return None
            start, arrives = time.perf_counter(), self.out_pace.begin(block.nbytes)
            assert job.source is not None
            block.digests = mover.write(job.source, block.extent.offset)
            self.out_pace.finish(arrives)
            self.tally.moved("out", block.nbytes, start, block.slot)
            return None
        except BaseException as error:
            return self.explain(error, f"write a block of {format_bytes(block.nbytes)}")
        finally:
            job.source = job.owner = None  # the device's bytes go free here, before anyone is told

    # -- reading

    def _read_all(self) -> None:
        mover = PieceMover(self.file, self.settings.piece_bytes)
        while (arrival := self.reads.get()) is not None:
            block = arrival.block
            assert block is not None
            arrival.error = self._read_one(mover, arrival, block)
            self.roused.add(threading.get_ident())
            if arrival.error is not None:
                arrival.target = None
            arrival.block = None
            extent, done = block.extent, arrival.done
            del arrival, block
            self.unpin(extent)
            done.set()

    def _read_one(self, mover: PieceMover, arrival: DiskArrival, block: DiskBlock) -> TierError | None:
        what = f"a block of {format_bytes(block.nbytes)} at byte {block.extent.offset} of the swap file"
        try:
            block.done.wait()
            if self.closed or block.error is not None:
                return block.error or TierError("the disk tier was closed before the block was read")
            start, arrives = time.perf_counter(), self.in_pace.begin(block.nbytes)
            assert arrival.target is not None
            mover.read(arrival.target, block.extent.offset, block.digests, what)
            self.in_pace.finish(arrives)
            self.tally.moved("in", block.nbytes, start, block.slot)
            return None
        except BaseException as error:
            return self.explain(error, f"read {what}")

    # -- the end

    def shut(self) -> None:
        if os.getpid() != self.pid:
            return
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self.room.notify_all()
        for channel, count in ((self.writes, self.settings.writers), (self.reads, self.settings.readers)):
            for _ in range(count):
                channel.put(None)
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()
        self.file.close()


@final
class DiskTier(Tier):
    """Blocks in one private file on a disk. See `Tier` for the contract.

    Args:
        directory: where; None takes the best real disk among the temporary directory, /var/tmp and the working
            directory.
        settings: sizes and threads.
        file: the file to use instead (tests pass one that fails).

    Raises:
        TierError: the directory is missing or not writable.
    """

    name = "disk"

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        settings: DiskSettings | None = None,
        file: RawFile | None = None,
    ) -> None:
        if file is None:
            file = SwapFile(Path(directory) if directory is not None else choose_directory())
        self._engine = _Engine(file, settings or DiskSettings())
        self.tally = self._engine.tally
        self._close: Callable[[], object] = weakref.finalize(self, self._engine.shut)

    def reserve(self, nbytes: int) -> None:
        engine = self._engine
        engine.check_open()
        engine.reserve(nbytes)
        # Each thread moves something: what it allocates for its life (100 KB) is then no part of a step.
        while nbytes and len(engine.roused) < len(engine.threads):
            blocks = [self.write(torch.zeros(1)) for _ in engine.threads]
            for arrival in [self.read(block) for block in blocks]:
                arrival.wait()

    def write(self, data: Data, owner: object = None, slot: int | None = None) -> DiskBlock:
        engine, source = self._engine, flat_bytes(data)
        engine.check_open()
        block = DiskBlock(engine, engine.take(source.numel()), slot)
        engine.submit_write(block, source, (data, owner))
        return block

    def read(self, block: Block, into: Data | None = None) -> DiskArrival:
        engine = self._engine
        engine.check_open()
        if not isinstance(block, DiskBlock) or block._engine is not engine:
            raise TierError("this block was not written to this disk tier")
        arrival = DiskArrival(engine, block, destination(block.nbytes, into))
        if not engine.pin(block.extent):
            raise TierError(f"this block of {format_bytes(block.nbytes)} was released before it was read")
        engine.reads.put(arrival)
        return arrival

    def facts(self) -> Mapping[str, object]:
        return {
            **self._engine.file.facts(),
            "reserved_bytes": self._engine.space.size,
            "piece_bytes": self._engine.settings.piece_bytes,
            "in_flight_bytes": self._engine.settings.in_flight_bytes,
        }

    def close(self) -> None:
        self._close()
