"""The meter of a step under way, and planning that must not be counted in another module's step.

Steps of several modules overlap (a discriminator in its generator's step), and each counts all bytes of the process. What
a module allocates to be captured, measured and planned is no step's: the other meters stand still meanwhile. A step
that never ends (a forward without a backward) would keep its meter, and a process has 16: the oldest give theirs up.
"""

from __future__ import annotations

import weakref
from typing import final

import torch

from ..device.memory import PeakMeter, bytes_in_use

__all__ = ["StepMeter", "pause_others", "resume"]

#: Meters that may run at once.
MOST_METERS = 4
_STARTED: list[weakref.ref[StepMeter]] = []


@final
class StepMeter:
    """Peak bytes of each phase of a step.

    Args:
        resident: bytes that count from the start, beside what the step allocates.
        device: whose bytes are counted.
    """

    def __init__(self, resident: int, device: torch.device | None = None) -> None:
        live = [r for r in _STARTED if (m := r()) is not None and m.runs]
        for reference in live[: -MOST_METERS + 1]:
            if (oldest := reference()) is not None:
                oldest.stop()
        _STARTED[:] = [*live[-MOST_METERS + 1 :], weakref.ref(self)]
        #: Phase → its peak in bytes.
        self.peaks: dict[str, int] = {}
        self._device = device
        self._meter: PeakMeter | None = PeakMeter(device).start()
        self._resident, self._base, self._paused_at = resident, bytes_in_use(device), 0
        self._phase = "forward"

    @property
    def runs(self) -> bool:
        """Whether it still measures."""
        return self._meter is not None

    @property
    def offset(self) -> int:
        """What to add to the bytes in use for those of the step."""
        return self._resident - self._base

    @property
    def grown(self) -> int:
        """Bytes in use now beyond those at the start."""
        return max(0, bytes_in_use(self._device) - self._base)

    def end(self, phase: str, then: str = "") -> None:
        """A phase has ended, the next begins. A phase that comes again keeps the higher peak."""
        if self._meter is not None:
            peak = self._meter.reset() + self.offset
            self.peaks[phase] = max(peak, self.peaks.get(phase, 0))
            self._phase = then

    def pause(self) -> None:
        """What is allocated from now on is not the step's."""
        self.end(self._phase, then=self._phase)
        self._paused_at = bytes_in_use(self._device)

    def resume(self) -> None:
        """Bytes count again; those that came meanwhile and stay are somebody else's."""
        if self._meter is not None:
            self._base += bytes_in_use(self._device) - self._paused_at
            self._meter.reset()

    def stop(self) -> None:
        """Measure no more; the peaks stay."""
        if self._meter is not None:
            self._meter.stop()
            self._meter = None


def pause_others(own: StepMeter | None) -> tuple[StepMeter, ...]:
    """Pause every meter that runs but one; for `resume`."""
    others = tuple(m for r in _STARTED if (m := r()) is not None and m is not own and m.runs)
    for meter in others:
        meter.pause()
    return others


def resume(meters: tuple[StepMeter, ...]) -> None:
    """Let them count again."""
    for meter in meters:
        meter.resume()
