"""What the walk pays with: the taste of one walk, the ways to take a storage away, how crowded the lanes are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .chains import Chains
from .model import Floats


@dataclass(frozen=True, kw_only=True)
class Taste:
    """Prices of one walk.

    Attributes:
        lane_price: seconds of compute that one second of a transfer lane is worth; infinite for no swaps.
        patience: exponent of the time to the next use, in quarters.
        share: how much of an evicted input's chain counts against what is made from it.
        crowded: what a transfer waits for is worked out from the transfers already promised, not from its slack alone.
        recompute: recomputation is allowed.
        remake: where given, the storages that are recomputed and nothing else; the rest is never recomputed.
        banned: storages that are not recomputed for their own sake.
        barred: (storage, touch before the span, action): what is not done, though it looks cheap.
        forced: the same for what is done as soon as the storage has been touched.
        fit: bytes beyond those that are missing do not count for a storage.
        headroom: part of the non-resident budget that the walk leaves free, for transfers under way.
        weight: factor on the price of each storage.
    """

    lane_price: float
    patience: float = 0.5
    share: float = 0.0
    crowded: bool = True
    recompute: bool = True
    remake: frozenset[int] | None = None
    banned: frozenset[int] = frozenset()
    barred: frozenset[tuple[int, int, str]] = frozenset()
    forced: frozenset[tuple[int, int, str]] = frozenset()
    fit: bool = False
    headroom: float = 0.0
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class Option:
    """A way to take a storage away that is not recomputation.

    Attributes:
        action: `swap`, `encode` or `encode_swap`.
        out_seconds, in_seconds: transfer time each way.
        compute_seconds: codec time, both ways, and the transfers' drag on the compute lane.
        kept: bytes that stay on the device.
        staged: bytes that are needed for a moment behind the last touch, and again before the use.
    """

    action: str
    out_seconds: float = 0.0
    in_seconds: float = 0.0
    compute_seconds: float = 0.0
    kept: int = 0
    staged: int = 0
    codec: str = ""

    @property
    def lane_seconds(self) -> float:
        return self.out_seconds + self.in_seconds

    def lane_cost(self, price: float) -> float:
        """What its transfers are worth at a lane price, which may be infinite: 0 without any."""
        return price * self.lane_seconds if self.lane_seconds else 0.0


class Lanes:
    """How much of a transfer would hide behind compute, given those already promised.

    The out lane serves in the order in which the walk chose; a read has to fit, with all reads of earlier or equal
    deadline, between now and its deadline.
    """

    def __init__(self, chains: Chains) -> None:
        self.starts = np.array(chains.starts)
        self.out_free = 0.0
        self.reads = np.zeros(len(chains.starts))
        self._spare: Floats | None = None

    def exposed(self, option: Option, release: float, now: float, use: int) -> float:
        """Seconds that the compute lane would wait for this transfer."""
        late = max(0.0, max(self.out_free, release) + option.out_seconds - now) if option.out_seconds else 0.0
        if self._spare is None:
            left = self.starts - np.cumsum(self.reads)
            self._spare = np.minimum.accumulate(left[::-1])[::-1]
        spare = float(self._spare[use]) - now
        return late + min(option.in_seconds, max(0.0, option.in_seconds - spare))

    def promise(self, option: Option, release: float, use: int) -> None:
        if option.out_seconds:
            self.out_free = max(self.out_free, release) + option.out_seconds
        self.reads[use] += option.in_seconds
        self._spare = None
