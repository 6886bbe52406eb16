"""What a memory meter runs on: the native sampler, torch's own statistics of a CUDA device, or a Python thread.

A probe ends when nobody holds it any more, so no interrupt can leave one running, and stopping it again is harmless.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, final

import torch

from .. import native

__all__ = ["CudaProbe", "NativeProbe", "Probe", "ThreadProbe"]


class Probe(Protocol):
    @property
    def runs(self) -> bool: ...
    def mark(self) -> None: ...
    def peak(self, *, reset: bool) -> int: ...
    def stop(self) -> int: ...


@final
class NativeProbe:
    """A meter of the native sampler (native/memory.c)."""

    def __init__(self, interval_seconds: float, rest: int) -> None:
        assert native.kernels is not None
        self._kernels = native.kernels
        self._meter: Any = self._kernels.meter_start(int(interval_seconds * 1e9), rest)
        self.mark = self._kernels.meter_mark

    @property
    def runs(self) -> bool:
        return bool(self._kernels.meter_runs(self._meter))

    def peak(self, *, reset: bool) -> int:
        return int(self._kernels.meter_read(self._meter, reset))

    def stop(self) -> int:
        return int(self._kernels.meter_stop(self._meter))


@final
class ThreadProbe:
    """Without the C module: a Python thread and the marks. Misses peaks inside operators that hold the lock."""

    def __init__(self, count: Callable[[], int], interval_seconds: float) -> None:
        self._count, self._peak, self._last, self._pid = count, count(), 0, os.getpid()
        self._ended = threading.Event()
        interval, ended, me = max(interval_seconds, 0.005), self._ended, weakref.ref(self)

        def run() -> None:
            while not ended.wait(interval) and (probe := me()) is not None:
                probe.mark()
                del probe

        threading.Thread(target=run, daemon=True, name="outsize-meter").start()

    @property
    def runs(self) -> bool:
        return not self._ended.is_set() and os.getpid() == self._pid

    def mark(self) -> None:
        self._peak = max(self._peak, self._count())

    def peak(self, *, reset: bool) -> int:
        if self.runs:
            self.mark()
            self._last = self._peak
            if reset:
                self._peak = self._count()
        return self._last

    def stop(self) -> int:
        peak = self.peak(reset=False)
        self._ended.set()
        return peak


@final
class CudaProbe:
    """Torch's own statistics, which are exact. A device has one peak to reset, and each probe keeps its own: before
    anyone resets it, all that run take note of it."""

    _running: ClassVar[weakref.WeakSet[CudaProbe]] = weakref.WeakSet()

    def __init__(self, device: torch.device) -> None:
        self._device, self._peak, self._last = device, 0, 0
        self._begin_anew()
        self._running.add(self)

    @property
    def runs(self) -> bool:
        return self in self._running

    def _begin_anew(self) -> None:
        for probe in list(self._running):
            if probe._device == self._device:
                probe._peak = max(probe._peak, int(torch.cuda.max_memory_allocated(self._device)))
        torch.cuda.reset_peak_memory_stats(self._device)

    def mark(self) -> None:
        pass

    def peak(self, *, reset: bool) -> int:
        if self.runs:
            self._last = max(self._peak, int(torch.cuda.max_memory_allocated(self._device)))
            if reset:
                self._begin_anew()
                self._peak = 0
        return self._last

    def stop(self) -> int:
        peak = self.peak(reset=False)
        self._running.discard(self)
        return peak
