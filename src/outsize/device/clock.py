"""The clock: seconds at which the device has done what it was told, not at which it was told."""

from __future__ import annotations

import time
from typing import Any, final

import torch

__all__ = ["Stopwatch", "computed", "now"]


def now(device: torch.device | str | None = None) -> float:
    """Monotonic seconds, once everything put on the device so far has been done."""
    if device is not None and torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def computed(device: torch.device) -> float:
    """Monotonic seconds, once the compute lane has done what was put on it; copies on other lanes go on."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return time.perf_counter()


@final
class Stopwatch:
    """Seconds that a device takes from one moment of its compute lane to another, without waiting for either."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._start: Any = self._moment()
        self._end: Any = None

    def _moment(self) -> Any:
        if self._cuda is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda))
        return event

    def stop(self) -> None:
        """Now is the end."""
        self._end = self._moment()

    @property
    def seconds(self) -> float:
        """From the start to the end, once that has come; 0 before `stop`."""
        if self._end is None:
            return 0.0
        if self._cuda is None:
            return float(self._end - self._start)
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1e3
