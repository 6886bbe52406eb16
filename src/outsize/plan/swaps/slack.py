"""The slack planner: swap what lies idle longest, where the peak needs it.  (Method 2, claims 10 to 12, 20, 21.)

Candidates are the idle spans whose slack exceeds thTTS, strictly, and of those the storages of at least thS bytes;
only then are insertion points derived. Each pass looks at the position that is furthest over the budget and inserts
pairs of a reduction and a restoration around it, longest slack first, until it fits; passes repeat until every
position does. Where the candidates do not suffice the thresholds are given up, in slack order still, rather than
the budget. Then the edges are placed (`swaps`), the plan is simulated, and the passes are repeated with some
headroom for transfers under way, on the slack that the stalls left; the fastest plan is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...units import format_seconds
from ...values import Decision, LinkRate
from ..model import Floats, Ints, Model, Spans, cannot_shrink, cleared, floor_curve
from ..schedule.score import Scorer
from .placement import ground_of, place, swap_decisions


def candidates(model: Model, link: LinkRate) -> NDArray[np.bool_]:
    """Which spans are in S_I: slack above thTTS (strict), then size at least thS."""
    spans, settings = model.spans, model.settings
    return _roomy(spans, _thresholds(spans, link, settings.min_slack)) & (spans.nbytes >= settings.min_bytes)


def _thresholds(spans: Spans, link: LinkRate, min_slack: float | None) -> Floats:
    if min_slack is not None:
        return np.full(len(spans), min_slack)
    pace = 1 / link.out_bytes_per_second + 1 / link.in_bytes_per_second
    return np.asarray(2 * link.latency_seconds + spans.nbytes * pace, dtype=np.float64)


def _roomy(spans: Spans, thresholds: Floats) -> NDArray[np.bool_]:
    return spans.slack > thresholds


def plan_slack(model: Model, tier: str) -> list[Decision]:
    """Decisions of the slack planner over one tier.

    Raises:
        BudgetError: some op needs more than the budget at once.
    """
    link = model.profile.links[tier]
    floor = floor_curve(model)
    if floor.max(initial=0) > model.budget:
        raise cannot_shrink(model, floor, tools=f"swapping to {tier}")
    model = model.with_target(max(model.target, int(floor.max(initial=0))))
    order, reasons = _order(model, link)
    best: tuple[float, list[Decision]] | None = None
    scorer = Scorer(model, tier)
    for target in _targets(model, floor):
        chosen = _choose(model, order, target)
        spans = model.spans.take(chosen)
        timing = place(ground_of(model, spans), spans, link)
        decisions = swap_decisions(model, spans, timing, tier, [reasons[i] for i in chosen.tolist()])
        seconds, _, _ = scorer.score(tuple(decisions))
        if best is None or seconds < best[0]:
            best = (seconds, decisions)
    assert best is not None
    return best[1]


def _targets(model: Model, floor: Ints) -> Iterator[Ints]:
    """Curves to stay under while choosing: the target, then less and less of it."""
    free = model.target - model.graph.resident_bytes
    for headroom in model.settings.headrooms:
        yield np.maximum(floor, model.target - int(headroom * free))


def _order(model: Model, link: LinkRate) -> tuple[Ints, list[str]]:
    """All spans, candidates first, then by slack; and why each would be taken."""
    spans = model.spans
    thresholds = _thresholds(spans, link, model.settings.min_slack)
    roomy = _roomy(spans, thresholds)
    large = spans.nbytes >= model.settings.min_bytes
    rank = np.where(roomy & large, 0, np.where(large, 1, 2))
    order = np.lexsort((spans.storage, spans.after, -spans.slack, rank))
    reasons = [
        f"slack {format_seconds(slack)} > {format_seconds(threshold)}"
        if free and big
        else f"budget needs it: slack {format_seconds(slack)}, {nbytes} bytes"
        for slack, threshold, free, big, nbytes in zip(spans.slack, thresholds, roomy, large, spans.nbytes)
    ]
    return order, reasons


def _choose(model: Model, order: Ints, target: Ints) -> Ints:
    """Spans, in order, that bring every position under the target when their bytes are gone in between."""
    spans = model.spans.take(order)
    length = len(model.curve)
    curve = model.curve.copy()
    taken = np.zeros(len(order), dtype=np.bool_)
    while True:
        over = curve - target
        position = int(np.argmax(over)) if length else 0
        if not length or over[position] <= 0:
            return order[taken]
        covering = np.flatnonzero((spans.after < position) & (position < spans.before) & ~taken)
        gained = np.cumsum(spans.nbytes[covering])
        count = int(np.searchsorted(gained, over[position])) + 1
        picked = covering[:count]
        taken[picked] = True
        curve -= cleared(length, spans.after[picked] + 1, spans.before[picked], spans.nbytes[picked])
