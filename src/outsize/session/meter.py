"""The meter of a step under way, and planning that must not be counted in another module's step.

Steps of several modules overlap (a discriminator in its generator's step), and each counts all bytes of the process. What
a module allocates to be captured, measured and planned is no step's: the other meters stand still meanwhile. A step
that never ends (a forward without a backward) would keep its meter, and a process has 16: the oldest give theirs up.
"""

from __future__ import annotations

import weakref
from typing import final

import torch

from ..device.memory import PeakMeter, bytes_in_use, changed_by_lanes

__all__ = ["StepMeter", "pause_all", "resume"]

#: Meters that may run at once.
MOST_METERS = 4
_STARTED: list[weakref.ref[StepMeter]] = []


@final
class StepMeter:
    """Peak bytes of a step, segment by segment.

    Args:
        resident: bytes that count from the start, beside what the step allocates.
        device: whose bytes are counted.
        lasting: it measures a whole run, and gives its place up to no step's.
    """

    def __init__(self, resident: int, device: torch.device | None = None, *, lasting: bool = False) -> None:
        self._device, self._resident, self._highest, self.lasting = device, resident, 0, lasting
        live = [m for r in _STARTED if (m := r()) is not None and m.runs]
        for oldest in [m for m in live if not m.lasting][: -MOST_METERS + 1]:
            oldest.stop()
        self._meter = PeakMeter(device).start()
        #: The bytes in use that are nobody's in this step, and those when it was paused: one value, so that no interrupt
        #: finds half of a change. What transfers free during a pause is the step's, and does not count there.
        self._origin: tuple[int, int | None] = (bytes_in_use(device), None)
        _STARTED[:] = [*(weakref.ref(m) for m in live if m.runs), weakref.ref(self)]

    @property
    def runs(self) -> bool:
        """Whether it still measures, in this process."""
        return self._meter.runs

    @property
    def paused(self) -> bool:
        """Whether bytes are somebody else's just now."""
        return self._origin[1] is not None

    @property
    def offset(self) -> int:
        """What to add to the bytes in use for those of the step."""
        return self._resident - self._origin[0]

    @property
    def now(self) -> int:
        """Bytes of the step alive now; while it pauses, those that were when the pause began."""
        base, paused_at = self._origin
        held = bytes_in_use(self._device) if paused_at is None else paused_at + changed_by_lanes()
        return held - base + self._resident

    def count(self, nbytes: int) -> None:
        """Bytes that were there before count from now on: inputs of another call."""
        self._resident += nbytes

    def end(self) -> int:
        """A segment has ended and the next begins. Its peak; 0 where nothing measures any more."""
        if not self.runs:
            return 0
        self.resume()  # where whoever paused it was interrupted
        peak, self._highest = max(self._highest, self._meter.reset() + self.offset), 0
        return peak

    def pause(self) -> None:
        """What is allocated from now on is not the step's."""
        if self.runs and not self.paused:
            self._highest = max(self._highest, self._meter.reset() + self.offset)
            self._origin = (self._origin[0], self._held_by_others())

    def resume(self) -> None:
        """Bytes count again; those that came meanwhile and stay are somebody else's."""
        base, paused_at = self._origin
        if paused_at is not None and self.runs:
            self._meter.reset()
            self._origin = (base + self._held_by_others() - paused_at, None)

    def _held_by_others(self) -> int:
        """The bytes in use, as if no transfer had ended since the process began."""
        return bytes_in_use(self._device) - changed_by_lanes()

    def stop(self) -> None:
        """Measure no more."""
        self._meter.stop()


def pause_all() -> tuple[StepMeter, ...]:
    """Pause every meter that runs and does not pause yet; for `resume`."""
    running = tuple(m for r in _STARTED if (m := r()) is not None and m.runs and not m.paused)
    for meter in running:
        meter.pause()
    return running


def resume(meters: tuple[StepMeter, ...]) -> None:
    """Let them count again."""
    for meter in meters:
        meter.resume()
