"""How fast a tier's link is, each way alone and both at once.

A planner that hides transfers behind computation needs to know whether a read delays a write. A bus carries both; a
disk has one queue. So the two directions are timed alone and together: if together takes nearer to the sum than to
the longer one, the link is shared.

Where the device is the processor, its own threads move and hash the bytes, and compute meets them on every core and
in the memory. There all timings are taken while a loop of operators keeps all threads busy, as a step does; what the
loop loses meanwhile, per byte moved, is the link's drag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, final

import torch

from ..values import LinkRate
from .clock import now
from .place import CPU

__all__ = ["Link", "measure_link"]


#: Blocks per timing where there are few bytes, and the least size of one: below, the latency is what is measured.
BLOCKS, LEAST_BLOCK = 4, 64 * 1024
#: Bytes that tell a slow link from a fast one: 0.1 s there and back at 10 MB/s.
FIRST_BYTES = 512 * 1024


class Link(Protocol):
    """What is measured: `outsize.runtime.tiers.Tier`, which lies above this room."""

    def write(self, data: torch.Tensor) -> Any: ...
    def read(self, block: Any, into: torch.Tensor) -> Any: ...


def measure_link(
    link: Link,
    *,
    nbytes: int = 256 * 2**20,
    block_bytes: int = 16 * 2**20,
    repeats: int = 2,
    beside_compute: bool = True,
    device: torch.device = CPU,
    seconds: float | None = None,
    progress: Callable[[int], object] = lambda moved: None,
) -> LinkRate:
    """Rates of a tier, the best of `repeats` each.

    Args:
        link: the tier.
        nbytes: bytes moved each way per timing. A disk's first writes after a pause can be faster than it can
            sustain; 256 MiB were within 10 % of the sustained rate where this was tried.
        block_bytes: bytes per block; the tier sees blocks of the size of activations.
        repeats: timings of each kind.
        beside_compute: keep torch's threads busy meanwhile; False where another device computes.
        device: whose bytes move.
        seconds: about how long it may take, None for as long as the bytes need. A slower link is measured with fewer.
        progress: told from time to time how many bytes have moved.

    Returns:
        out and in alone in bytes per second, the latency of a small block, whether the directions share a lane, and
        the drag.
    """
    begin = now(device)
    if seconds is not None:
        passes = 2 + 4 * repeats  # each moves `nbytes`: two before the timings, then out, in, and both
        nbytes = min(nbytes, int(_first_rate(link, device) * seconds / passes))
    block_bytes = max(min(block_bytes, nbytes // BLOCKS), LEAST_BLOCK) // 4096 * 4096
    traffic = _Traffic(link, block_bytes, device, progress, beside_compute=beside_compute)
    for _ in range(max(nbytes // block_bytes, 2)):
        traffic.hold()
        if seconds is not None and len(traffic.held) > 1 and now(device) - begin > seconds / 4:
            break  # it was faster at first than it can sustain
    traffic.timed(traffic.out)

    def best(work: Callable[[], list[Any]]) -> tuple[float, float]:
        times = [traffic.timed(work)]
        while len(times) < repeats and (seconds is None or now(device) - begin < seconds):
            times.append(traffic.timed(work))
        return min(time for time, _ in times), min(lost for _, lost in times)

    out_seconds, in_seconds, (both_seconds, lost) = (
        best(traffic.out)[0],
        best(traffic.into)[0],
        best(traffic.both),
    )
    moved = len(traffic.held) * block_bytes
    alone, together = max(out_seconds, in_seconds), out_seconds + in_seconds
    return LinkRate(
        out_bytes_per_second=moved / out_seconds,
        in_bytes_per_second=moved / in_seconds,
        latency_seconds=_latency(link, device),
        shared=both_seconds > (alone + together) / 2,
        drag_seconds_per_byte=max(0.0, lost / (2 * moved)),
    )


@final
class _Traffic:
    """Equal blocks over a link, with operators beside them or without.

    Attributes:
        held: the blocks to read, as many as each pass moves.
    """

    def __init__(
        self,
        link: Link,
        block_bytes: int,
        device: torch.device,
        progress: Callable[[int], object],
        *,
        beside_compute: bool,
    ) -> None:
        generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay as they are
        self._link, self._device, self._progress = link, device, progress
        self._source = torch.empty(block_bytes, dtype=torch.uint8).random_(generator=generator).to(device)
        self._targets = [torch.empty_like(self._source).zero_() for _ in range(2)]  # pages that are there
        self._compute = _Compute(generator) if beside_compute else None
        self._moved = 0
        self.held: list[Any] = []

    def hold(self) -> None:
        """One block more, so that no timing pays for its space."""
        self.held.append(self._link.write(self._source))
        self._finish(self.held[-1:])

    def out(self) -> list[Any]:
        return [self._link.write(self._source) for _ in self.held]

    def into(self) -> list[Any]:
        return [self._link.read(block, self._targets[i % 2]) for i, block in enumerate(self.held)]

    def both(self) -> list[Any]:
        return [*self.into(), *self.out()]

    def timed(self, work: Callable[[], list[Any]]) -> tuple[float, float]:
        """Seconds that it takes, and how many of them the operators beside it lose; 0 without any."""
        compute = self._compute
        turns = compute.turns if compute is not None else 0
        seconds = _timed(lambda: self._finish(work()), self._device)
        return seconds, 0.0 if compute is None else seconds - (compute.turns - turns) * compute.turn_seconds

    def _finish(self, moves: list[Any]) -> None:
        if self._compute is not None:
            self._compute.until(
                lambda: all(move.settled() if hasattr(move, "settled") else move.ready() for move in moves)
            )
        for move in moves:
            move.settle() if hasattr(move, "settle") else move.wait()
            self._moved += self._source.nbytes
            self._progress(self._moved)


@final
class _Compute:
    """Operators on all of torch's threads, half of the time bound by arithmetic, half by memory, as a step is.

    Attributes:
        turns: turns taken so far.
        turn_seconds: one turn with nothing beside it.
    """

    SIDE, SLICE, SLICES = 320, 2**20, 8

    def __init__(self, generator: torch.Generator) -> None:
        self._factor = torch.empty(self.SIDE, self.SIDE).normal_(generator=generator)
        self._product = torch.empty_like(self._factor)
        self._wide = torch.zeros(self.SLICES, self.SLICE)
        self.turns = 0
        self.turn_seconds = sorted(_timed(self._turn) for _ in range(4 * self.SLICES))[self.SLICES]

    def _turn(self) -> None:
        torch.mm(self._factor, self._factor, out=self._product)
        self._wide[self.turns % self.SLICES].mul_(0.5)
        self.turns += 1

    def until(self, done: Callable[[], bool]) -> None:
        """Take turns until `done`, at least one."""
        while True:
            self._turn()
            if done():
                return


def _first_rate(link: Link, device: torch.device) -> float:
    """Bytes per second of a small block there and back, the better of two."""
    block = torch.zeros(FIRST_BYTES, dtype=torch.uint8, device=device)
    into = torch.empty_like(block)
    return (
        2
        * FIRST_BYTES
        / min(_timed(lambda: link.read(link.write(block), into).wait(), device) for _ in range(2))
    )


def _timed(work: Callable[[], object], device: torch.device = CPU) -> float:
    begin = now(device)
    work()
    return now(device) - begin


def _latency(link: Link, device: torch.device) -> float:
    """Seconds of the fastest small round trip, halved: each way pays its own."""
    small = torch.zeros(4096, dtype=torch.uint8, device=device)
    into = torch.empty_like(small)
    return min(_timed(lambda: link.read(link.write(small), into).wait(), device) for _ in range(8)) / 2
