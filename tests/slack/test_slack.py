"""Slack on a step small enough to work out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outsize.errors import PlanError
from outsize.slack import compute_slack
from outsize.values import IdleSpan, Profile
from tests.plan.graphs import Builder, random_step


def test_spans_of_a_hyperedge_with_many_uses() -> None:
    b = Builder()
    x = b.resident(4, "x")
    (a,) = b.op("a", [x], [10], seconds=1.0)
    (c,) = b.op("b", [a], [10], seconds=2.0)
    (d,) = b.op("c", [c], [10], seconds=4.0)
    b.op("d", [a, d], [10], seconds=8.0)
    b.op("e", [], seconds=16.0)
    b.op("f", [a, c], seconds=32.0)
    slack = compute_slack(b.graph(), b.profile())
    assert slack.starts == (0.0, 1.0, 3.0, 7.0, 15.0, 31.0)
    assert slack.spans == (
        IdleSpan(storage=a, after=1, before=3, seconds=4.0),
        IdleSpan(storage=a, after=3, before=5, seconds=16.0),
        IdleSpan(storage=c, after=2, before=5, seconds=24.0),
    )


def test_residents_outputs_and_gradients_have_no_spans() -> None:
    b = Builder()
    x = b.resident(4)
    out, grad, act = b.op("a", [x], [1, 2, 3], kinds=["output", "gradient", "activation"])
    b.op("b", [x])
    b.op("c", [out, grad, act, x])
    assert [s.storage for s in compute_slack(b.graph(), b.profile()).spans] == [act]


def test_a_profile_of_another_graph_is_refused() -> None:
    b = Builder()
    b.op("a", [], [1])
    with pytest.raises(PlanError, match="costs 0 ops, the graph has 1"):
        compute_slack(b.graph(), Profile(ops=()))


@given(st.integers(0, 10_000))
def test_spans_are_disjoint_and_touched_at_their_ends_only(seed: int) -> None:
    graph, profile = random_step(seed)
    for span in compute_slack(graph, profile).spans:
        storage = graph.storages[span.storage]
        touches = {storage.producer, *storage.uses}
        assert {span.after, span.before} <= touches
        assert not touches & set(range(span.after + 1, span.before))
        idle = sum(cost.seconds for cost in profile.ops[span.after + 1 : span.before])
        assert span.seconds == pytest.approx(idle)
