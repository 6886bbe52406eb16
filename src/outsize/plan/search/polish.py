"""Last touches on a plan, decision by decision, each judged by the simulator's figures.

A pass chooses what goes and the placement hands the room out in one sweep; neither sees that a read issued one op
earlier, a write settled one op later, or a decision undone would make the step shorter. Here each decision is tried
without, and each transfer's two edges are tried at other positions; what is faster and fits stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...values import Decision
from ...values.actions import TRAVELLING
from .problem import Decisions, Problem, Scored


def polished(problem: Problem, best: Scored) -> Scored:
    """The plan with its edges moved and its idle decisions undone, as far as the settings' trials go."""
    tries = problem.model.settings.polished_ops // problem.ops
    if best.seconds <= problem.plain_seconds or tries < problem.model.settings.polish_tries:
        return best
    seconds, decisions = best.seconds, best.decisions
    idle = at = 0
    while idle < len(decisions) and tries > 0:
        at %= len(decisions)
        better = False
        for others in _neighbours(decisions, at):
            if tries <= 0:
                break
            tries -= 1
            found = problem.seconds(others)
            if found < seconds * (1 - 1e-9) and problem.valid_move(others, decisions[at].storage):
                seconds, decisions, better = found, others, True
                break
        idle = 0 if better else idle + 1
        at += not better
    return replace(best, seconds=seconds, decisions=decisions)


def _neighbours(decisions: Decisions, at: int) -> Iterator[Decisions]:
    before, d, after = decisions[:at], decisions[at], decisions[at + 1 :]
    yield (*before, *after)
    if d.action in TRAVELLING:
        for free, fetch in _edges(d):
            yield (*before, replace(d, free_before=free, fetch_before=fetch), *after)


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
