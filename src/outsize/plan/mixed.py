"""Mixed plans made of a plan of one action: swaps at a price, and its dearest recomputations swapped instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ..values import LinkRate
from .moves import Barred
from .scored import Scored
from .settings import LANE_SHARES, WALKS_A_SHARE

if TYPE_CHECKING:
    from .search import Search


def mixed(search: Search, single: Scored) -> Iterator[Scored]:
    """Plans that may be faster than the single one."""
    if single.taste is None or search.link is None:
        return
    affordable = LANE_SHARES[: max(1, search.left // WALKS_A_SHARE)]
    swapped = dict.fromkeys(
        _dearest(search, single, search.link, share * single.seconds) for share in affordable
    )
    tastes = [
        replace(single.taste, lane_price=0.3, recompute=search.recompute),
        *(replace(single.taste, forced=forced) for forced in swapped if forced),
    ]
    best = single.seconds
    for taste in tastes:
        found = search.walk(taste, below=best)
        if found is not None:
            best = min(best, found.seconds)
            yield found


def _dearest(search: Search, single: Scored, link: LinkRate, lane_seconds: float) -> frozenset[Barred]:
    """Swaps in place of the recomputations that cost most per byte, as many as one lane carries in that time."""
    starts, size = search.chains.starts, search.chains.size
    chosen = set()
    for d in sorted(single.decisions, key=lambda d: -d.seconds / size[d.storage]):
        out, back = link.out_seconds(size[d.storage]), link.in_seconds(size[d.storage])
        hides = out + back < starts[d.before] - starts[d.after]
        if d.action == "recompute" and hides and max(out, back) <= lane_seconds:
            lane_seconds -= out + back if link.shared else max(out, back)
            chosen.add((d.storage, d.after, "swap"))
    return frozenset(chosen)
