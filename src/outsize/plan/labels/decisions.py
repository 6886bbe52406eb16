"""Decisions that do what the events of a label do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ...values import Decision, LinkRate
from ..chains import Chains
from .label import Event


@dataclass
class _Stay:
    """A time on the device: from when, how it came, where it is touched, written and gone (-1: never)."""

    since: int
    how: str
    region: tuple[int, ...] = ()
    touches: list[int] = field(default_factory=list)
    wrote: int = -1
    gone: int = -1


def decisions_of(
    events: Sequence[Event], chains: Chains, link: LinkRate | None, tier: str
) -> tuple[Decision, ...]:
    """One decision for each time away, writes of one position in the order in which they were issued."""
    found = []
    for s, stays in _stays(events, chains).items():
        for gone, back in pairwise(stays):
            if back.how == "in" and link is not None:
                found.append(_swap(s, gone, back, chains, link, tier))
            elif back.since <= chains.last[s]:
                found.append(_remake(s, gone, back, chains))
    issued = {(s, p): k for k, (kind, s, p) in enumerate(events) if kind == "out"}
    found.sort(key=lambda d: (issued.get((d.storage, d.after), -1), d.fetch_before, d.storage))
    return tuple(found)


def _swap(s: int, gone: _Stay, back: _Stay, chains: Chains, link: LinkRate, tier: str) -> Decision:
    last = max(gone.touches, default=gone.since)
    after = gone.wrote if gone.wrote >= 0 else last
    return Decision(
        storage=s, action="swap", after=after, before=min(back.touches, default=back.since),
        free_before=max(gone.gone, last + 1, after + 1), fetch_before=back.since, tier=tier,
        seconds=link.out_seconds(chains.size[s]) + link.in_seconds(chains.size[s]),
    )  # fmt: skip


def _remake(s: int, gone: _Stay, back: _Stay, chains: Chains) -> Decision:
    last = max(gone.touches, default=gone.since)
    return Decision(
        storage=s, action="recompute", after=last, before=min(back.touches), free_before=last + 1,
        fetch_before=back.since, region=back.region, seconds=sum(chains.seconds[op] for op in back.region),
    )  # fmt: skip


def _stays(events: Sequence[Event], chains: Chains) -> dict[int, list[_Stay]]:
    """Each storage's times on the device, without those that only serve the region that made it."""
    stays: dict[int, list[_Stay]] = defaultdict(list)
    at: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        at[event[2]].append(event)
    for p in range(len(chains.inputs)):
        made: dict[int, int] = {}
        for kind, what, _ in at.get(p, ()):
            if kind == "free":
                stays[what][-1].gone = p
            elif kind == "in":
                stays[what].append(_Stay(since=p, how="in"))
            elif kind == "run":
                _run_again(what, p, stays, made, chains)
        for s in chains.inputs[p]:
            stays[s][-1].touches.append(p)
        for s in chains.outputs[p]:
            stays[s].append(_Stay(since=p, how="op", touches=[p]))
        for kind, what, _ in at.get(p, ()):
            if kind == "out":
                stays[what][-1].wrote = p
    return {s: [stay for stay in all_of if stay.how != "run" or stay.touches] for s, all_of in stays.items()}


def _run_again(op: int, p: int, stays: dict[int, list[_Stay]], made: dict[int, int], chains: Chains) -> None:
    for s in chains.inputs[op]:
        if s not in made:
            stays[s][-1].touches.append(p)
    for s in chains.outputs[op]:
        stay = stays[s][-1]
        if stay.gone >= 0 or (stay.how == "run" and chains.last[s] < p and s not in made):
            made[s] = op
            stays[s].append(_Stay(since=p, how="run", region=_closure(op, made, chains)))


def _closure(op: int, made: dict[int, int], chains: Chains) -> tuple[int, ...]:
    """The ops of the region that an op's results are made of."""
    keep: set[int] = set()
    stack = [op]
    while stack:
        at = stack.pop()
        if at not in keep:
            keep.add(at)
            stack += [made[s] for s in chains.inputs[at] if s in made]
    return tuple(sorted(keep))
