"""How long does a storage lie idle?  (Method 2: TTS(s, h) = start(h) - end(source(s)).)

The profiled schedule gives every operator a start and an end. A storage is touched by its producer and by each of
its uses; between two neighbouring touches it lies idle, and the time from the end of the one to the start of the
other is its slack there. What fits into the slack (a transfer out and back, a compression, a recomputation) costs
the step nothing. Idle spans inside the forward or inside the backward (skip connections) count like those across.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

from ..errors import PlanError
from ..values import IdleSpan, Profile, Slack, StepGraph


def compute_slack(graph: StepGraph, profile: Profile) -> Slack:
    """Every idle span of every candidate storage, with its slack in seconds.

    Spans between touches that are direct neighbours in the schedule hold nothing and are left out, and so are those in
    which somebody outside holds the storage too.

    Raises:
        PlanError: the profile does not cost each op of the graph.
    """
    if len(profile.ops) != len(graph.ops):
        raise PlanError(f"the profile costs {len(profile.ops)} ops, the graph has {len(graph.ops)}")
    ends = tuple(accumulate(cost.seconds for cost in profile.ops))
    starts = (0.0, *ends[:-1]) if ends else ()
    spans = tuple(
        IdleSpan(storage=storage.index, after=after, before=before, seconds=starts[before] - ends[after])
        for storage in graph.candidates()
        for after, before in pairwise(dict.fromkeys((storage.producer, *storage.uses)))
        if before > after + 1 and after >= storage.held_until
    )
    return Slack(spans=spans, starts=starts)
