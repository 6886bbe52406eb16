"""Last touches on a plan, decision by decision, each judged by the simulator.

The walk chooses what goes and the placement hands the room out in one sweep; neither sees that a read issued one op
earlier, a write settled one op later, or a decision undone would make the step shorter. Here each decision is tried
without, and each transfer's two edges are tried at other positions; what is faster and fits stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..values import Decision

Decisions = tuple[Decision, ...]


def polished(
    decisions: Decisions,
    seconds: float,
    timed: Callable[[Decisions], float],
    valid: Callable[[Decisions, int], bool],
    *,
    tries: int,
) -> tuple[float, Decisions]:
    """The fastest neighbour of a neighbour … found within so many trials.

    Args:
        decisions, seconds: a plan that fits, and its step time.
        timed: the step time of other decisions, infinite where they do not fit.
        valid: every op finds the bytes that it reads, though this storage's edges moved: a region may need it earlier.

    Returns:
        Seconds and decisions, no slower than those given.
    """
    idle = at = 0
    while idle < len(decisions) and tries > 0:
        at %= len(decisions)
        better = False
        for others in _neighbours(decisions, at):
            if tries <= 0:
                break
            tries -= 1
            found = timed(others)
            if found < seconds * (1 - 1e-9) and valid(others, decisions[at].storage):
                seconds, decisions, better = found, others, True
                break
        idle = 0 if better else idle + 1
        at += not better
    return seconds, decisions


def _neighbours(decisions: Decisions, at: int) -> Iterator[Decisions]:
    before, d, behind = decisions[:at], decisions[at], decisions[at + 1 :]
    yield (*before, *behind)
    if d.action in ("swap", "encode_swap"):
        for free, fetch in _edges(d):
            yield (*before, replace(d, free_before=free, fetch_before=fetch), *behind)


def _edges(d: Decision) -> Iterator[tuple[int, int]]:
    """Edges one, two, four … positions away, one of the two at a time."""
    step = 1
    while step < d.before - d.after:
        for free in (d.free_before - step, d.free_before + step):
            if d.after < free <= d.fetch_before:
                yield free, d.fetch_before
        for fetch in (d.fetch_before - step, d.fetch_before + step):
            if d.free_before <= fetch <= d.before:
                yield d.free_before, fetch
        step *= 2
