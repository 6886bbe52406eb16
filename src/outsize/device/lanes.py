"""Lanes: where copies run beside the computation, and events: how one lane waits for another.

An accelerator has streams; a processor has threads. Both are asked for the same few things here, so that a tier is
written once and its waiting can be tested without an accelerator: `DeferredLanes` holds every copy back until
something waits for it, so a wait that is missing shows as wrong bytes every time and not once in a thousand runs.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, final

import numpy as np
import torch

from .link import EmulatedLink, Pace
from .waiting import Latch

__all__ = ["CudaLanes", "DeferredLanes", "Event", "Lanes", "ThreadLanes", "lanes_for"]


class Event(Protocol):
    """A moment on a lane: everything put on the lane before it is done."""

    def done(self) -> bool:
        """Whether it has been reached; never blocks."""
        ...

    def wait(self) -> None:
        """Block the calling thread until it has been reached."""
        ...


class Lanes(Protocol):
    """The lanes "out" and "in" of one device, beside its compute lane.

    `copy` may be asynchronous: the caller keeps both tensors alive, and the source unchanged, until the event
    that follows is done.
    """

    device: torch.device

    def compute_event(self) -> Event:
        """The present moment of the compute lane."""
        ...

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Event, ...]) -> Event:
        """Put a copy of flat bytes on a lane, once `after` have been reached; its end."""
        ...

    def moment(self, lane: str) -> Event:
        """The present moment of a lane: the end of all that was put on it."""
        ...

    def compute_waits(self, event: Event) -> None:
        """What is put on the compute lane from now on runs after `event`."""
        ...

    def host_buffer(self, nbytes: int) -> torch.Tensor:
        """Flat bytes on the host that the lanes can copy from and to at full speed."""
        ...

    def close(self) -> None: ...


@final
class CudaLanes:
    """CUDA streams and events; the compute lane is the caller's current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams = {lane: torch.cuda.Stream(device) for lane in ("out", "in")}

    def compute_event(self) -> Event:
        return _CudaEvent(torch.cuda.current_stream(self.device))

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Event, ...]) -> Event:
        stream = self._streams[lane]
        for event in after:
            assert isinstance(event, _CudaEvent)
            stream.wait_event(event.event)
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
        return _CudaEvent(stream)

    def moment(self, lane: str) -> Event:
        return _CudaEvent(self._streams[lane])

    def compute_waits(self, event: Event) -> None:
        assert isinstance(event, _CudaEvent)
        torch.cuda.current_stream(self.device).wait_event(event.event)

    def host_buffer(self, nbytes: int) -> torch.Tensor:
        with torch.cuda.device(self.device):  # the calling thread may be a fresh one
            return _locked(nbytes)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.synchronize()


def _locked(nbytes: int) -> torch.Tensor:
    """Page-locked bytes, exactly so many: torch's own allocator takes the next power of two and never gives it back.

    The pages are unlocked when the last tensor over them goes.
    """
    memory = np.empty(nbytes, dtype=np.uint8)
    runtime: Any = torch.cuda.cudart()
    torch.cuda.check_error(int(runtime.cudaHostRegister(memory.ctypes.data, nbytes, 0)))
    weakref.finalize(memory, runtime.cudaHostUnregister, memory.ctypes.data)
    return torch.from_numpy(memory)


@final
class _CudaEvent:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.event = torch.cuda.Event()
        self.event.record(stream)

    def done(self) -> bool:
        return bool(self.event.query())

    def wait(self) -> None:
        self.event.synchronize()


@final
class _Flag:
    """An event that a thread sets."""

    def __init__(self) -> None:
        self._latch = Latch()
        self.reach, self.wait = self._latch.open, self._latch.wait

    def done(self) -> bool:
        return self._latch.is_open


def _reached() -> _Flag:
    flag = _Flag()
    flag.reach()
    return flag


Job = Callable[[], None]


@final
class ThreadLanes:
    """One thread a lane, for a device that is the processor itself; optionally as slow as an emulated link."""

    def __init__(self, link: EmulatedLink | None = None) -> None:
        self.device = torch.device("cpu")
        self._jobs: dict[str, queue.SimpleQueue[Job | None]] = {}
        self._pace = {lane: Pace(link) for lane in ("out", "in")}
        for lane in self._pace:
            jobs = self._jobs[lane] = queue.SimpleQueue()
            threading.Thread(target=_work, args=(jobs,), daemon=True, name=f"outsize-{lane}").start()
        self._close = weakref.finalize(self, _end, list(self._jobs.values()))

    def compute_event(self) -> Event:
        return _reached()  # the processor has done what it was told before it comes here

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Event, ...]) -> Event:
        end, pace, pair = _Flag(), self._pace[lane], [target, source]

        def run() -> None:
            for event in after:
                event.wait()
            arrives = pace.begin(pair[0].numel())
            pair[0].copy_(pair[1])
            pace.finish(arrives)
            pair.clear()  # before the end is known, so that whoever waits for it finds the source let go
            end.reach()

        self._jobs[lane].put(run)
        return end

    def moment(self, lane: str) -> Event:
        end = _Flag()
        self._jobs[lane].put(end.reach)
        return end

    def compute_waits(self, event: Event) -> None:
        event.wait()

    def host_buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def close(self) -> None:
        self._close()


def _work(jobs: queue.SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or the tensors of the last copy live until the next one


def _end(channels: list[queue.SimpleQueue[Job | None]]) -> None:
    for channel in channels:
        channel.put(None)


@final
class DeferredLanes:
    """An emulated accelerator: a copy runs when something waits for it, and not before.

    Args:
        eager: told the number of copies that wait on a lane, how many of them to run already; tests vary it, as
            a real device's progress varies.
    """

    def __init__(self, eager: Callable[[int], int] = lambda waiting: 0) -> None:
        self.device = torch.device("cpu")
        self._eager = eager
        self._waiting: dict[str, deque[tuple[_Flag, Job]]] = {"out": deque(), "in": deque()}

    def compute_event(self) -> Event:
        return _reached()

    def copy(self, lane: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Event, ...]) -> Event:
        end, pair = _DeferredEvent(self, lane), [target, source]

        def run() -> None:
            for event in after:
                self.compute_waits(event)
            pair[0].copy_(pair[1])
            pair.clear()

        self._waiting[lane].append((end.flag, run))
        for _ in range(min(self._eager(len(self._waiting[lane])), len(self._waiting[lane]))):
            self._run_one(lane)
        return end

    def moment(self, lane: str) -> Event:
        end = _DeferredEvent(self, lane)
        self._waiting[lane].append((end.flag, end.flag.reach))
        return end

    def _run_one(self, lane: str) -> None:
        flag, job = self._waiting[lane].popleft()
        job()
        flag.reach()

    def run_until(self, event: _DeferredEvent) -> None:
        while not event.flag.done():
            self._run_one(event.lane)

    def compute_waits(self, event: Event) -> None:
        event.wait()

    def host_buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def close(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()


@final
class _DeferredEvent:
    """Waiting for it is what makes it happen."""

    def __init__(self, lanes: DeferredLanes, lane: str) -> None:
        self.flag, self.lane, self._lanes = _Flag(), lane, lanes

    def done(self) -> bool:
        return self.flag.done()

    def wait(self) -> None:
        self._lanes.run_until(self)


def lanes_for(device: torch.device | str | None = None, link: EmulatedLink | None = None) -> Lanes:
    """The lanes of a device: CUDA streams, or threads on the CPU, where `link` may slow them down."""
    place = torch.device(device or "cpu")
    return CudaLanes(place) if place.type == "cuda" else ThreadLanes(link)
