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

    Returns:
        out and in alone in bytes per second, the latency of a small block, whether the directions share a lane, and
        the drag.
    """
    count = max(nbytes // block_bytes, 2)
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay as they are
    source = torch.empty(block_bytes, dtype=torch.uint8).random_(generator=generator).to(device)
    targets = [torch.empty_like(source).zero_() for _ in range(2)]  # pages that are there
    compute = _Compute(generator) if beside_compute else None

    def finish(moves: list[Any]) -> None:
        if compute is not None:
            compute.until(
                lambda: all(move.settled() if hasattr(move, "settled") else move.ready() for move in moves)
            )
        for move in moves:
            move.settle() if hasattr(move, "settle") else move.wait()

    def out() -> list[Any]:
        return [link.write(source) for _ in range(count)]

    def into(blocks: list[Any]) -> list[Any]:
        return [link.read(block, targets[i % 2]) for i, block in enumerate(blocks)]

    held = out()
    finish(held)  # makes the space, so that no timing pays for it
    finish(out())
    works: tuple[Callable[[], list[Any]], ...] = (out, lambda: into(held), lambda: [*into(held), *out()])
    drags: list[float] = []

    def timed(work: Callable[[], list[Any]]) -> float:
        turns = compute.turns if compute is not None else 0
        seconds = _timed(lambda: finish(work()), device)
        if compute is not None:
            drags.append(seconds - (compute.turns - turns) * compute.turn_seconds)
        return seconds

    out_seconds, in_seconds, both_seconds = (min(timed(work) for _ in range(repeats)) for work in works)
    moved = count * block_bytes
    alone, together = max(out_seconds, in_seconds), out_seconds + in_seconds
    lost = min(drags[-repeats:], default=0.0) / (2 * moved)
    return LinkRate(
        out_bytes_per_second=moved / out_seconds,
        in_bytes_per_second=moved / in_seconds,
        latency_seconds=_latency(link, device),
        shared=both_seconds > (alone + together) / 2,
        drag_seconds_per_byte=max(0.0, lost),
    )


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


def _timed(work: Callable[[], object], device: torch.device = CPU) -> float:
    begin = now(device)
    work()
    return now(device) - begin


def _latency(link: Link, device: torch.device) -> float:
    """Seconds of the fastest small round trip, halved: each way pays its own."""
    small = torch.zeros(4096, dtype=torch.uint8, device=device)
    into = torch.empty_like(small)
    return min(_timed(lambda: link.read(link.write(small), into).wait(), device) for _ in range(8)) / 2
