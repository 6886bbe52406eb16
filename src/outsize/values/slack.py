"""Tensor timing slack: how long each storage lies idle between two uses.  (Method 2.)"""

from __future__ import annotations

from dataclasses import dataclass

from .ranges import Index, Moment


@dataclass(frozen=True, kw_only=True)
class IdleSpan:
    """A storage is not touched between two neighbouring touches.

    Attributes:
        storage: its index.
        after: position of the touch before the span (its producer or a use).
        before: position of the use that ends the span.
        seconds: start(before) - end(after) on the profiled schedule: the slack.
    """

    storage: Index
    after: Index
    before: Index
    seconds: Moment


@dataclass(frozen=True, kw_only=True)
class Slack:
    """How long the storages of a step lie idle.

    Attributes:
        spans: all idle spans.
        starts: profiled start of each op, in seconds from the step's start.
    """

    spans: tuple[IdleSpan, ...]
    starts: tuple[Moment, ...]
