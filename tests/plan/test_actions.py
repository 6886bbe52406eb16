"""The table of actions: what C reads by number is there by name, and planners, words and defaults follow from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outsize.plan import explain
from outsize.plan.evict.options import Options
from outsize.plan.evict.passes import BY_PASS_NUMBER
from outsize.plan.model import build_model
from outsize.plan.request import Request
from outsize.plan.search.problem import Problem
from outsize.report.figures import action_words
from outsize.slack import compute_slack
from outsize.values import Decision, Plan
from outsize.values.actions import ACTIONS, ASKED, ASKED_BY_DEFAULT
from tests.plan.graphs import chain

NATIVE = Path(__file__).parents[2] / "src" / "outsize" / "native"


def names(header: str, last: str) -> list[str]:
    """The names of the enum that ends with this one, in order."""
    text = (NATIVE / header).read_text()
    (found,) = re.findall(rf"enum {{ ([A-Z_, ]+), {last} }};", text)
    return [name.lower() for name in found.split(", ")]


def test_numbers_are_those_of_the_headers() -> None:
    assert names("evict.h", "KINDS") == list(BY_PASS_NUMBER)
    scored = names("score.h", "ACTIONS")
    assert [does.pass_number for does in map(ACTIONS.get, BY_PASS_NUMBER)] == list(range(len(ACTIONS)))  # type: ignore[union-attr]
    assert all(0 <= does.score_number < len(scored) for does in ACTIONS.values())
    assert all(scored[ACTIONS[name].score_number] == name for name in scored)


def test_words_that_may_be_asked() -> None:
    assert ASKED[:3] == ASKED_BY_DEFAULT[:3] == ("swap", "recompute", "encode")
    assert set(ASKED_BY_DEFAULT) <= set(ASKED)
    assert all(word in ASKED for does in ACTIONS.values() for word in does.asked)
    assert Request(budget_bytes=1).actions == ASKED_BY_DEFAULT


@pytest.mark.parametrize("asked", [("swap",), ("recompute",), ("encode",), ("swap", "encode"), ASKED])
def test_the_search_tries_what_the_words_allow(asked: tuple[str, ...]) -> None:
    graph, profile = chain(4)
    request = Request(budget_bytes=400, actions=asked)
    problem = Problem.of(build_model(graph, profile, compute_slack(graph, profile), request))
    assert isinstance(problem.options, Options)
    allowed = {name for name, does in ACTIONS.items() if set(does.asked) <= set(asked)}
    assert {action for *_, action in problem.open_spans} == allowed


@pytest.mark.parametrize("action", ACTIONS)
def test_each_has_words(action: str) -> None:
    graph, _ = chain(4)
    decision = Decision(
        storage=6,
        action=action,  # type: ignore[arg-type]
        after=1,
        before=6,
        free_before=2,
        fetch_before=6,
        tier="disk" if ACTIONS[action].travels else "",
        codec="relu" if ACTIONS[action].encodes else "",
        region=(1,) if ACTIONS[action].remakes else (),
    )
    plan = Plan(
        budget_bytes=1,
        planner="search",
        decisions=(decision,),
        refusals=(),
        plain_peak_bytes=1,
        predicted_peak_bytes=1,
        plain_step_seconds=1,
        predicted_step_seconds=1,
        resident_bytes=0,
    )
    (line,) = explain(graph, plan)
    assert line.startswith(action)
    for flag, word in (("travels", "to disk"), ("encodes", "with relu"), ("remakes", "by 1 ops")):
        assert (word in line) == getattr(ACTIONS[action], flag)
    assert action_words(decision)
