"""What it takes to make a storage again: static facts about chains of ops.

A storage is recomputed from what its producer reads. Some of that is still on the device when it is needed, some has
been taken away (and comes back for its own uses soon), and some is dead: no op reads it any more, so it has to be
made again as well. A chain ends where an op may not repeat: it draws random numbers, it has effects, or something it
read has been changed in place since.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import inf

import numpy as np

from .model import Model
from .repeat import may_repeat, stale_reads_allowed

#: Longer chains than this are not worth following: a region repeats a block, not half of the step.
LONGEST = 400


@dataclass(frozen=True, kw_only=True)
class Chains:
    """Per-op and per-storage lists that the pass reads in its inner loops.

    Attributes:
        repeats: op may run again at any later position.
        inputs, outputs: activations that the op reads and makes (those with bytes).
        last: last position at which the unplanned step reads the storage.
        reach: last position at which it may be wanted where ops run again: its own last use, or that of what it can be
            made into.
        acted_from: position of the first touch after which the storage may be acted on; the number of ops for never.
        fixed: bytes that no plan moves (residents, outputs, gradients) at each position.
    """

    seconds: list[float]
    workspace: list[int]
    repeats: list[bool]
    inputs: list[tuple[int, ...]]
    outputs: list[tuple[int, ...]]
    second_copies: list[int]
    producer: list[int]
    last: list[int]
    reach: list[int]
    size: list[int]
    uses: list[tuple[int, ...]]
    acted_from: list[int]
    fixed: list[int]
    starts: list[float]

    def next_use(self, storage: int, position: int) -> int:
        """First use after the position, -1 where there is none."""
        uses = self.uses[storage]
        at = bisect_right(uses, position)
        return uses[at] if at < len(uses) else -1


def build_chains(model: Model) -> Chains:
    """Static facts of a step."""
    graph, storages = model.graph, model.graph.storages
    transient = [s.kind == "activation" and s.nbytes > 0 for s in storages]
    changed: dict[int, int] = {}
    for op in graph.ops:
        for s in op.mutates:
            changed[s] = op.index
    repeats = [
        may_repeat(op)
        and all(changed.get(s, -1) < op.index or stale_reads_allowed(op, s) for s in op.reads)
        and not any(s in changed for s in op.writes)
        for op in graph.ops
    ]
    change = np.zeros(len(graph.ops) + 1, dtype=np.int64)
    for storage in storages:
        if storage.kind in ("output", "gradient"):
            change[storage.producer] += storage.nbytes
    candidates = {s.index for s in graph.candidates()}
    last = [max(s.uses, default=s.producer) for s in storages]
    inputs = [tuple(s for s in op.reads if transient[s]) for op in graph.ops]
    outputs = [tuple(s for s in op.writes if transient[s]) for op in graph.ops]
    return Chains(
        seconds=[cost.seconds for cost in model.profile.ops],
        workspace=[cost.workspace_bytes for cost in model.profile.ops],
        repeats=repeats,
        inputs=inputs,
        outputs=outputs,
        second_copies=[sum(storages[s].nbytes for s in op.writes if not transient[s]) for op in graph.ops],
        producer=[s.producer for s in storages],
        last=last,
        reach=_reach(last, inputs, outputs, repeats),
        size=[s.nbytes for s in storages],
        uses=[s.uses for s in storages],
        acted_from=[max(0, s.held_until) if s.index in candidates else len(graph.ops) for s in storages],
        fixed=[int(b) for b in np.cumsum(change)[:-1] + graph.resident_bytes],
        starts=list(model.slack.starts),
    )


def _reach(
    last: list[int], inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], repeats: list[bool]
) -> list[int]:
    reach = list(last)
    for op in reversed(range(len(inputs))):
        if repeats[op]:
            until = max((reach[w] for w in outputs[op]), default=-1)
            for v in inputs[op]:
                reach[v] = max(reach[v], until)
    return reach


def chain_seconds(
    chains: Chains,
    storage: int,
    use: int,
    *,
    until: list[int],
    resident: list[bool],
    returns: list[float | None],
    share: float,
) -> float:
    """Seconds of the ops that make a storage again for a use, infinite where that is not possible.

    Args:
        until: last position at which each storage is wanted; after that it is gone for good.
        resident: which storages are on the device now.
        returns: seconds that bring an evicted storage back by other means than its producer, None otherwise.
        share: how much of an evicted input's own chain counts: it is made for its own uses too.
    """
    total, seen = 0.0, set()
    stack = [(chains.producer[storage], 1.0)]
    while stack:
        op, weight = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        if not chains.repeats[op] or len(seen) > LONGEST:
            return inf
        total += weight * chains.seconds[op]
        for source in chains.inputs[op]:
            if until[source] < use:
                stack.append((chains.producer[source], weight))
            elif not resident[source]:
                back = returns[source]
                if back is not None:
                    total += weight * share * back if share else 0.0  # it may be infinite
                else:
                    stack.append((chains.producer[source], weight * share))
    return total
