"""How fast a tier's link is, each way alone and both at once.

A planner that hides transfers behind computation needs to know whether a read delays a write. A bus carries both; a
disk has one queue. So the two directions are timed alone and together: if together takes nearer to the sum than to
the longer one, the link is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from ..values import LinkRate

__all__ = ["Link", "measure_link"]


class Link(Protocol):
    """What is measured: `outsize.runtime.tiers.Tier`, which lies above this room."""

    def write(self, data: torch.Tensor) -> Any: ...
    def read(self, block: Any, into: torch.Tensor) -> Any: ...


def measure_link(
    link: Link, *, nbytes: int = 256 * 2**20, block_bytes: int = 16 * 2**20, repeats: int = 2
) -> LinkRate:
    """Rates of a tier, the best of `repeats` each.

    Args:
        link: the tier.
        nbytes: bytes moved each way per timing. A disk's first writes after a pause can be faster than it can
            sustain; 256 MiB were within 10 % of the sustained rate where this was tried.
        block_bytes: bytes per block; the tier sees blocks of the size of activations.
        repeats: timings of each kind.

    Returns:
        out and in alone in bytes per second, the latency of a small block, and whether the directions share a lane.
    """
    count = max(nbytes // block_bytes, 2)
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay as they are
    source = torch.empty(block_bytes, dtype=torch.uint8).random_(generator=generator)
    targets = [torch.empty(block_bytes, dtype=torch.uint8).zero_() for _ in range(2)]

    def out() -> list[Any]:
        blocks = [link.write(source) for _ in range(count)]
        for block in blocks:
            block.settle()
        return blocks

    def into(blocks: list[Any]) -> None:
        arrivals = [link.read(block, targets[i % 2]) for i, block in enumerate(blocks)]
        for arrival in arrivals:
            arrival.wait()

    def both(blocks: list[Any]) -> None:
        arrivals = [link.read(block, targets[i % 2]) for i, block in enumerate(blocks)]
        out()
        for arrival in arrivals:
            arrival.wait()

    held = out()  # makes the space, so that no timing pays for it
    out()
    out_seconds, in_seconds, both_seconds = (
        min(_timed(work) for _ in range(repeats)) for work in (out, lambda: into(held), lambda: both(held))
    )
    moved = count * block_bytes
    alone, together = max(out_seconds, in_seconds), out_seconds + in_seconds
    return LinkRate(
        out_bytes_per_second=moved / out_seconds,
        in_bytes_per_second=moved / in_seconds,
        latency_seconds=_latency(link),
        shared=both_seconds > (alone + together) / 2,
    )


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _latency(link: Link) -> float:
    """Seconds of the fastest small round trip, halved: each way pays its own."""
    small = torch.zeros(4096, dtype=torch.uint8)
    into = torch.empty_like(small)
    return min(_timed(lambda: link.read(link.write(small), into).wait()) for _ in range(8)) / 2
