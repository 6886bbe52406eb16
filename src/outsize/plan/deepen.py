"""Where a plan adds enough to a step, the search goes on from it: along programs (`follow`), by annealing (`anneal`)."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from .anneal import annealed
from .follow import followed
from .settings import NEAR

if TYPE_CHECKING:
    from .scored import Scored
    from .search import Search


def deepened(search: Search) -> Iterator[tuple[Search, list[Scored]]]:
    """Plans along programs and by annealing, each search's own: of all actions, and of each that alone is about as fast.

    What a single action gets here it gets when it is asked for alone, so that all together are not slower, unless one
    that is behind by more than `NEAR` gains more than that.
    """
    if not search.leads or not search.climbed:
        return
    known = inf
    for one in (search, *(single for single, _ in search.others)):
        climbed = min(scored.seconds for scored in one.climbed)
        if climbed > known * (1 + NEAR):
            continue
        along = followed(one, known=climbed)
        yield one, along
        found = annealed(one, [*one.climbed, *along], [alone for _, alone in one.others])
        yield one, found
        known = min(known, climbed, *(scored.seconds for scored in (*along, *found)))
