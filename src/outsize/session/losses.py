"""What a loss took, carried over to a shape that was not seen yet, so that the shape is planned once.

The loss and whatever else runs between forward and backward are outside of the graph, so their bytes are known from
the first step on only. They grow with the results that they are computed from: in proportion, as far as one shape can
tell, and on a line through the two nearest where two were seen.
"""

from __future__ import annotations

import hashlib
from typing import final

from ..fx import CapturedStep

__all__ = ["LossSizes"]

#: Results of no more bytes than this (a loss inside the module) say nothing about sizes.
LEAST_RESULT = 4096
#: What a step took outside that was refused for it, by the step's digest: whoever tries again, with the budget that the
#: error named, is planned for at once.
_REFUSED: dict[str, int] = {}


@final
class LossSizes:
    """Bytes of the results that carry gradients, and bytes that were taken outside the module, by kind of call."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], dict[int, int]] = {}

    def saw(self, step: CapturedStep, place: int, outside: int) -> None:
        """A call at this place of its round took `outside` bytes beside the module's own."""
        kind, nbytes = _kind(step, place)
        self._seen.setdefault(kind, {})[nbytes] = outside

    def refused(self, step: CapturedStep, place: int, outside: int) -> None:
        """The step raises an error, because no plan has room for so many bytes."""
        _REFUSED[_digest(step, place)] = outside

    def expected(self, step: CapturedStep, place: int) -> int | None:
        """What a call of a new shape will take; None where nothing like it was seen."""
        kind, nbytes = _kind(step, place)
        seen = self._seen.get(kind)
        if not seen:
            return _REFUSED.get(_digest(step, place)) if _REFUSED else None
        near, *others = sorted(seen, key=lambda size: abs(size - nbytes))
        if nbytes == near or near < LEAST_RESULT:
            return seen[near]
        if not others or (slope := (seen[others[0]] - seen[near]) / (others[0] - near)) < 0:
            return int(seen[near] * nbytes / near)
        return max(0, int(seen[near] + slope * (nbytes - near)))


def _kind(step: CapturedStep, place: int) -> tuple[tuple[int, int], int]:
    sizes = [step.graph.storages[s].nbytes for s in step.graph.ops[step.boundary].writes]
    return (place, len(sizes)), sum(sizes)


def _digest(step: CapturedStep, place: int) -> str:
    signatures = "|".join(op.signature for op in step.graph.ops)
    return hashlib.sha256(f"{place}|{signatures}".encode()).hexdigest()
