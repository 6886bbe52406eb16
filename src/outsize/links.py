"""The rates of the tiers that a plan may use, each measured once for the process, with what the plan needs and no more.

A disk is measured by moving bytes, which takes room and time: as many bytes as the step could swap, at most a third of
what is free, for some seconds at most. A measurement with few bytes says little about a step that swaps many, so that is
done again when one comes.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import final

import torch

from .device.measure import measure_link
from .runtime.tiers import DiskSettings, DiskTier, HostTier
from .units import format_bytes
from .values import LinkRate

__all__ = ["disk_link", "forget_links", "host_link"]

#: More than this told no more of a disk's rates, of those tried.
MOST_MEASURED = 96 * 2**20
#: A plan that may swap so many times as much as was measured gets a measurement of its own.
WORTH_ANOTHER = 4
#: A disk of 1 GB/s takes a second with the most bytes; one of 10 MB/s is measured with what it moves in this time.
MOST_SECONDS = 4.0
#: Who waits for longer is told what for.
SILENT_SECONDS = 1.0

_DISKS: dict[str | None, tuple[int, LinkRate]] = {}


def forget_links() -> None:
    """Measure anew what comes next."""
    _DISKS.clear()
    host_link.cache_clear()


@functools.cache
def host_link(device: torch.device) -> LinkRate:
    """The rates of the host tier."""
    with HostTier(device) as tier:
        return measure_link(tier, nbytes=128 * 2**20, beside_compute=False, device=device)


def disk_link(directory: str | None, most_bytes: int = MOST_MEASURED) -> LinkRate:
    """The disk tier's rates.

    Args:
        directory: as for `compile`.
        most_bytes: what a step could swap.
    """
    wanted = min(most_bytes, MOST_MEASURED)
    measured, rate = _DISKS.get(directory, (0, None))
    if rate is not None and wanted < WORTH_ANOTHER * measured:
        return rate
    small = DiskSettings(growth_bytes=2**20)
    with (
        DiskTier(directory, settings=small) as tier,
        torch.random.fork_rng(devices=[]),  # training sees none of this
    ):
        told = _Progress(str(tier.facts()["directory"]))
        room = int(str(tier.facts()["free_bytes"])) // 3
        rate = measure_link(tier, nbytes=min(wanted, room), seconds=MOST_SECONDS, progress=told.note)
    _DISKS[directory] = (wanted, rate)
    return rate


@final
class _Progress:
    """Lines on the standard error for a measurement that takes long."""

    def __init__(self, place: str) -> None:
        self._place, self._begin, self._said = place, time.perf_counter(), 0.0

    def note(self, moved: int) -> None:
        """So many bytes have moved."""
        passed = time.perf_counter() - self._begin
        if passed - self._said >= SILENT_SECONDS:
            self._said = passed
            rate = format_bytes(int(moved / passed))
            print(
                f"outsize: measuring the disk at {self._place}, {passed:.0f} s of about {MOST_SECONDS:.0f}: "
                f"{format_bytes(moved)} moved, {rate}/s",
                file=sys.stderr,
                flush=True,
            )
