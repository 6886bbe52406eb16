"""How crowded the transfer lanes are, as an eviction pass sees it."""

from __future__ import annotations

from typing import final

import numpy as np

from ..chains import Chains
from ..model import Floats
from .options import Option


@final
class Lanes:
    """How much of a transfer would hide behind compute, given those already promised.

    The out lane serves in the order in which the pass chose; a read has to fit, with all reads of earlier or equal
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
