"""The memory meter: the one place that knows how many bytes a device has handed out.

A budget is a promise about bytes, so the meter must count them whoever allocated them. Torch counts a CUDA device's
bytes itself. On the CPU it counts nothing, and its profiler misses other threads; so here the C allocator is asked:
glibc's `mallinfo2`, or the statistics of jemalloc or tcmalloc where one is preloaded. A peak that lasts for a fraction
of an operator is caught by a native thread that samples without the interpreter lock, and is exact for what torch's
libraries hold (`device.allocator`), of which a high-water mark is kept. The process's resident set is reported beside
it, as the kernel counts it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import final

import psutil
import torch

from .. import native
from ..errors import OutsizeError
from . import groups
from .probes import CudaProbe, NativeProbe, Probe, ThreadProbe

__all__ = [
    "PeakMeter",
    "bytes_in_use",
    "changed_by_lanes",
    "check_counted",
    "free_bytes",
    "malloc_owner",
    "mark_lane",
    "meter_seconds",
    "peak_rss_bytes",
    "reset_peak_rss",
    "rss_bytes",
    "total_bytes",
]

Device = torch.device | str | None
#: Allocators whose count of the bytes in use is read here.
COUNTED = ("glibc", "jemalloc", "tcmalloc")


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("blocks", ctypes.c_size_t * 3),  # ordblks, smblks, hblks
        ("hblkhd", ctypes.c_size_t),
        ("bins", ctypes.c_size_t * 2),  # usmblks, fsmblks
        ("uordblks", ctypes.c_size_t),
        ("rest", ctypes.c_size_t * 2),  # fordblks, keepcost
    ]


@functools.cache
def malloc_owner() -> str:
    """Who serves `malloc` in this process: "glibc", "jemalloc", "tcmalloc", "mimalloc" or "other"."""
    if not sys.platform.startswith("linux"):
        return "other"
    if native.kernels is not None:
        return str(native.kernels.malloc_owner())
    return "glibc" if hasattr(ctypes.CDLL(None), "mallinfo2") else "other"


def bytes_in_use(device: Device = None) -> int:
    """Bytes that the device's allocator has handed out and not got back, over all threads.

    Args:
        device: a CUDA device, or None / "cpu" for the process's C allocator.

    Raises:
        OutsizeError: the process's allocator gives no count, as mimalloc does not; see `check_counted`.
    """
    if (cuda := _cuda(device)) is not None:
        return int(torch.cuda.memory_allocated(cuda))
    check_counted()
    if native.kernels is not None:
        return int(native.kernels.bytes_in_use())
    info = _mallinfo2()()
    return int(info.uordblks + info.hblkhd)


def check_counted(device: Device = None) -> None:
    """Whether the bytes in use on the device are counted, without which there is no budget.

    Raises:
        OutsizeError: the process's allocator gives no count that is read here.
    """
    if _cuda(device) is not None or (owner := malloc_owner()) in (COUNTED if native.kernels else COUNTED[:1]):
        return
    if not sys.platform.startswith("linux"):
        raise OutsizeError(
            f"the bytes in use cannot be counted on {platform.system()}, so no budget can be kept: outsize.compile and "
            "outsize.meter need Linux, or a module on a CUDA device. What needs no count works here: outsize.plan with "
            "hardware=, outsize.codecs, `outsize plan`, `outsize trees` and `outsize npi`"
        )
    raise OutsizeError(
        f"the bytes in use cannot be counted, so no budget can be kept: malloc is served by "
        f"{'another library' if owner == 'other' else owner}, which gives no count of them (LD_PRELOAD is "
        f"{os.environ.get('LD_PRELOAD', '')!r}). Start Python without it (env -u LD_PRELOAD python ...), or preload "
        "jemalloc or gperftools' tcmalloc, whose counts are read here as glibc's is"
    )


@functools.cache
def _mallinfo2() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None).mallinfo2
    function.restype = _Mallinfo2
    return function


def _cuda(device: Device) -> torch.device | None:
    if device is None or (place := torch.device(device)).type == "cpu":
        return None
    if place.type != "cuda":
        raise OutsizeError(f"no memory meter for a {place.type!r} device; 'cpu' and 'cuda' have one")
    return place if place.index is not None else torch.device("cuda", torch.cuda.current_device())


def _status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OutsizeError(f"/proc/self/status has no line {key}")


def rss_bytes() -> int:
    """Resident set of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Highest resident set of this process since its start or the latest `reset_peak_rss`, in bytes."""
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def reset_peak_rss() -> bool:
    """Begin the peak resident set anew; False where the kernel does not permit it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def total_bytes(device: Device = None) -> int:
    """Memory of the device, in bytes; on the CPU the smallest of RAM and the limits of the process's control groups."""
    if (cuda := _cuda(device)) is not None:
        return int(torch.cuda.get_device_properties(cuda).total_memory)
    whole, limit = int(psutil.virtual_memory().total), groups.limit_bytes()
    return whole if limit is None else min(whole, limit)


def free_bytes(device: Device = None) -> int:
    """Bytes that could still be allocated without swapping or eviction of other processes."""
    if (cuda := _cuda(device)) is not None:
        held_back = torch.cuda.memory_reserved(cuda) - torch.cuda.memory_allocated(
            cuda
        )  # by torch, to hand out again
        return int(torch.cuda.mem_get_info(cuda)[0]) + held_back
    available, left = int(psutil.virtual_memory().available), groups.free_bytes()
    return available if left is None else min(available, left)


def meter_seconds() -> float:
    """Time that readings of the C allocator's count have taken so far, on any thread: the meter's own cost."""
    return int(native.kernels.meter_facts()[1]) / 1e9 if native.kernels is not None else 0.0


def mark_lane() -> None:
    """The calling thread moves bytes of steps, and does nothing else: what it frees, a step held."""
    if native.kernels is not None:
        native.kernels.lane_thread()


def changed_by_lanes() -> int:
    """By how much the bytes in use have changed through such threads so far; below 0 where they freed more."""
    return int(native.kernels.lane_change()) if native.kernels is not None else 0


@final
class PeakMeter:
    """Highest `bytes_in_use` between `start` and `stop`. Several may run at once; each keeps its own peak.

    One that nobody holds any more ends by itself, and one that a fork took along has ended in the child.

    Args:
        device: as for `bytes_in_use`.
        interval_seconds: shortest time between two samples; 0.5 ms agreed with the profiler's events to 0.02 % on a
            ResNet-50 step.
        rest: the sampler sleeps at least this many times as long as its latest reading took, so that it costs at
            most 1 / rest of one core; 100 is the 1 % that a step may pay.
    """

    def __init__(self, device: Device = None, *, interval_seconds: float = 5e-4, rest: int = 100) -> None:
        self._device, self._interval, self._rest = device, interval_seconds, rest
        self._probe: Probe | None = None

    @property
    def runs(self) -> bool:
        """Whether it counts, in this process."""
        return self._probe is not None and self._probe.runs

    def start(self) -> PeakMeter:
        """Begin at the bytes in use now. Returns the meter, so `PeakMeter().start()` reads well."""
        if self.runs:
            raise OutsizeError("this memory meter runs already: stop() it, or make another")
        if (cuda := _cuda(self._device)) is not None:
            self._probe = CudaProbe(cuda)
        elif native.kernels is not None and malloc_owner() in COUNTED:
            self._probe = NativeProbe(self._interval, self._rest)
        else:
            self._probe = ThreadProbe(bytes_in_use, self._interval)
        return self

    def mark(self) -> None:
        """Note the bytes in use now: to be called at operator boundaries."""
        self._started().mark()

    def peak(self) -> int:
        """Peak so far, in bytes."""
        return self._started().peak(reset=False)

    def reset(self) -> int:
        """Peak so far, in bytes; a new one begins at the bytes in use now."""
        return self._started().peak(reset=True)

    def stop(self) -> int:
        """End, and give the peak since the start or the latest reset, in bytes. A second time, the same."""
        return self._started().stop()

    def _started(self) -> Probe:
        if self._probe is None:
            raise OutsizeError("this memory meter does not run: start() it first")
        return self._probe

    def __enter__(self) -> PeakMeter:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
