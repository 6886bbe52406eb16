"""Each rule of `check` and `verify`, taken away, lets something wrong through; one without its example fails here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from . import graphs, schedules
from .rules import Checker, Rule

Example = Callable[[ModuleType], Any]


class Judged:
    """A checker, and what it says of its examples."""

    def __init__(self, checker: Checker, right: dict[str, Example], wrong: dict[str, Example]) -> None:
        self.checker, self.right, self.wrong = checker, right, wrong
        self.examples = {**right, **wrong}
        self.verdicts = {name: checker.verdict(checker.module, e) for name, e in self.examples.items()}

    def survives(self, rule: Rule) -> str:
        """Why nothing shows that the rule is needed; empty where something does.

        A rule that raises has a wrong example of its own, which is accepted without it, or ends in the crash that the
        rule stands before. Any other rule changes the verdict on some example.
        """
        own = self.examples
        if rule.kind == "raise":
            own = {name: e for name, e in self.wrong.items() if self.verdicts[name] == rule.name}
            if not own:
                return "it has no wrong example"
        mutant = self.checker.without(rule)
        for name, example in own.items():
            verdict = self.checker.verdict(mutant, example)
            if verdict != self.verdicts[name] and (
                rule.kind != "raise" or verdict.startswith(("accepted", "crashed"))
            ):
                return ""
        return f"without it nothing changes for {sorted(own)[:4]}"


CHECK = Judged(Checker("outsize.plan.schedule.check", ("PlanError",)), schedules.RIGHT, schedules.WRONG)
VERIFY = Checker("outsize.rewrite.verify", ("RewriteError",))


@pytest.fixture(scope="module")
def verify() -> Judged:
    """Its examples are captured from real modules, which takes seconds."""
    return Judged(VERIFY, graphs.RIGHT, graphs.WRONG)


def named(rule: Rule) -> str:
    return f"{rule.kind} {rule.name}"[:90]


def test_examples_of_check_are_judged_right() -> None:
    judged_by_a_rule(CHECK)


def test_examples_of_verify_are_judged_right(verify: Judged) -> None:
    judged_by_a_rule(verify)


def judged_by_a_rule(judged: Judged) -> None:
    names = [rule.name for rule in judged.checker.rules if rule.kind == "raise"]
    rules = set(names)
    assert len(rules) == len(names), (
        "two rules of one function say the same, so neither can be told from the other"
    )
    assert {name: v for name, v in judged.verdicts.items() if name in judged.right and v != "accepted"} == {}
    assert {name: v for name, v in judged.verdicts.items() if name in judged.wrong and v not in rules} == {}


@pytest.mark.parametrize("rule", CHECK.checker.rules, ids=named)
def test_every_rule_of_check_is_needed(rule: Rule) -> None:
    assert CHECK.survives(rule) == ""


@pytest.mark.parametrize("rule", VERIFY.rules, ids=named)
def test_every_rule_of_verify_is_needed(rule: Rule, verify: Judged) -> None:
    assert verify.survives(rule) == ""


def test_a_new_rule_without_its_wrong_example_is_told() -> None:
    """The rules are read from the source, so one that is added there is asked for its example."""
    source = Path(CHECK.checker.file).read_text()
    place = "        self.next_op += 1\n"
    assert source.count(place) == 1
    unheard = "        if self.next_op > 10**6:\n            raise self.fail('more than a million ops')\n"
    checker = Checker(
        "outsize.plan.schedule.check", ("PlanError",), source=source.replace(place, unheard + place)
    )
    (new,) = {rule.name for rule in checker.rules} - {rule.name for rule in CHECK.checker.rules}
    judged = Judged(checker, schedules.RIGHT, schedules.WRONG)
    rule = next(rule for rule in checker.rules if rule.name == new)
    assert judged.survives(rule) == "it has no wrong example"
