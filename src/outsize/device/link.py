"""A link of a chosen speed: gives any tier the bandwidth and latency of hardware that is not here.

Tests need a slow link that is the same on every machine, and benchmarks one that can be named. The transfer itself
is real; its end is held back until the emulated link would have delivered it. Transfers of one direction share one
lane, so they queue as they would on a bus.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import final

from ..errors import UnitError

__all__ = ["EmulatedLink", "Pace"]


@dataclass(frozen=True, kw_only=True)
class EmulatedLink:
    """Bandwidth in bytes per second and latency in seconds, the same in both directions."""

    bytes_per_second: float
    latency_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.bytes_per_second > 0 or self.latency_seconds < 0:
            raise UnitError(
                f"a link needs a positive bandwidth and a latency of 0 or more, not {self.bytes_per_second} bytes/s "
                f"and {self.latency_seconds} s"
            )


@final
class Pace:
    """One direction of a link. Without a link it costs nothing."""

    def __init__(self, link: EmulatedLink | None) -> None:
        self._link, self._free_at, self._lock = link, 0.0, threading.Lock()

    def begin(self, nbytes: int) -> float:
        """Take the lane for `nbytes`; the moment (`time.perf_counter`) at which they would have arrived."""
        if self._link is None:
            return 0.0
        with self._lock:
            start = max(time.perf_counter(), self._free_at)
            self._free_at = start + nbytes / self._link.bytes_per_second
            return self._free_at + self._link.latency_seconds

    def finish(self, arrives_at: float) -> None:
        """Hold the calling thread until then."""
        if self._link is not None and (pause := arrives_at - time.perf_counter()) > 0:
            time.sleep(pause)
