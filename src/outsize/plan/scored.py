"""A plan with what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from ..values import Decision
from .prices import Taste


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A plan that fits, with what it costs."""

    seconds: float
    decisions: tuple[Decision, ...]
    taste: Taste | None = None


def faster(best: Scored | None, other: Scored | None) -> Scored | None:
    if best is None or (other is not None and other.seconds < best.seconds * (1 - 1e-9)):
        return other
    return best
