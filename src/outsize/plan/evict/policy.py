"""What one eviction pass is decisions_of: prices, and decisions that it must or must not make."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Floats

#: A decision that a pass may make: storage, the touch before the idle span, action.
DecisionKey = tuple[int, int, str]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Prices of one eviction pass.

    Attributes:
        lane_price: seconds of compute that one second of a transfer lane is worth; infinite for no swaps.
        patience: exponent of the time to the next use, in quarters.
        share: how much of an evicted input's chain counts against what is made from it.
        crowded: what a transfer waits for is worked out from the transfers already promised, not from its slack alone.
        recompute: recomputation is allowed.
        remake: where given, the storages that are recomputed and nothing else; the rest is never recomputed.
        banned: storages that are not recomputed for their own sake.
        barred: decisions that are not made, though they look cheap.
        forced: decisions that are made as soon as the storage has been touched.
        fit: bytes beyond those that are missing do not count for a storage.
        headroom: part of the non-resident budget that the pass leaves free, for transfers under way.
        weight: factor on the price of each storage.
        retain: storages that may stay beyond their last use, for what is made of them later. Their bytes have a price
            like those of any other: the least dear goes first.
    """

    lane_price: float
    patience: float = 0.5
    share: float = 0.0
    crowded: bool = True
    recompute: bool = True
    remake: frozenset[int] | None = None
    banned: frozenset[int] = frozenset()
    barred: frozenset[DecisionKey] = frozenset()
    forced: frozenset[DecisionKey] = frozenset()
    fit: bool = False
    headroom: float = 0.0
    weight: Floats
    retain: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """Where a pass found no way through, as decisions that another may bar.

    Attributes:
        remade: storages that were to be made again for the position, and did not fit.
        kept: encoded forms that took room there.
    """

    remade: frozenset[DecisionKey]
    kept: frozenset[DecisionKey]
