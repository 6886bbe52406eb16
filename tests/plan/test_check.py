"""`check` names what is wrong with a schedule: each fault is made by hand, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from outsize.errors import PlanError
from outsize.plan import PlanSettings, Request, check, lower, make_plan, simulate
from outsize.plan.schedule.lower import lower_decisions
from outsize.slack import compute_slack
from outsize.values import Decision, Entry, Schedule
from tests.plan.graphs import Builder, chain

ANY = PlanSettings(min_bytes=1, moves=6)
Entries = list[Entry]


def swapped() -> tuple:
    graph, profile = chain(6, rate=80.0)
    plan = make_plan(
        graph,
        profile,
        compute_slack(graph, profile),
        Request(budget_bytes=650, planner="slack", settings=ANY),
    )
    assert plan.decisions
    return graph, profile, plan


def find(entries: Entries, kind: str, storage: int | None = None) -> int:
    return next(i for i, e in enumerate(entries) if e.kind == kind and storage in (None, e.storage))


def without(kind: str) -> Callable[[Entries], Entries]:
    return lambda entries: [e for i, e in enumerate(entries) if i != find(entries, kind)]


def twice(kind: str) -> Callable[[Entries], Entries]:
    def change(entries: Entries) -> Entries:
        at = find(entries, kind)
        return [*entries[: at + 1], entries[at], *entries[at + 1 :]]

    return change


def moved(kind: str, by: int) -> Callable[[Entries], Entries]:
    def change(entries: Entries) -> Entries:
        at = find(entries, kind)
        rest = entries[:at] + entries[at + 1 :]
        return [*rest[: at + by], entries[at], *rest[at + by :]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("wait"), "still arriving: no wait"),
        (without("fetch"), "no read of .* is under way"),
        (without("settle"), "dropped while its write is under way: no settle"),
        (without("swap_out"), "no write of .* was started"),
        (without("drop"), "fetched while it is on the device"),
        (twice("fetch"), "fetched while it is on the device or arriving"),
        (twice("wait"), "no read of .* is under way"),
        (twice("swap_out"), "already being written"),
        (twice("drop"), "is not on the device"),
        (moved("swap_out", -2), "is not on the device"),
        (moved("wait", +1), "still arriving: no wait"),
        (moved("settle", +1), "dropped while its write is under way"),
        (lambda e: e[:-1], "never ran"),
        (lambda e: [e[1], e[0], *e[2:]], "op 0 was due"),
        (lambda e: [e[0], *e], "op 1 was due"),
    ],
)  # fmt: skip
def test_faults_are_named(change: Callable[[Entries], Entries], message: str) -> None:
    graph, profile, plan = swapped()
    schedule = lower(graph, plan)
    check(graph, profile, schedule, plan.budget_bytes)
    with pytest.raises(PlanError, match=message):
        check(graph, profile, Schedule(entries=tuple(change(list(schedule.entries)))), 10**9)


@pytest.mark.parametrize("field", ["after", "before"])
def test_an_insertion_point_off_by_one_is_named(field: str) -> None:
    graph, profile, plan = swapped()
    for number, decision in enumerate(plan.decisions):
        broken = dataclasses.replace(decision, before=decision.before + 1)
        if field == "after":
            first = graph.storages[decision.storage].producer - 1
            broken = dataclasses.replace(decision, after=first)
        decisions = (*plan.decisions[:number], broken, *plan.decisions[number + 1 :])
        with pytest.raises(PlanError, match=r"not on the device|still arriving|needs after < free_before"):
            check(graph, profile, lower_decisions(graph, decisions), plan.budget_bytes)


def test_the_budget_is_held_at_every_entry() -> None:
    graph, profile, plan = swapped()
    schedule = lower(graph, plan)
    peak = simulate(graph, profile, schedule).peak_bytes
    check(graph, profile, schedule, peak)
    with pytest.raises(PlanError, match=f"{peak} bytes alive, over the budget of {peak - 1}"):
        check(graph, profile, schedule, peak - 1)


def mutating() -> tuple:
    """x is made, read, changed in place, and read again much later."""
    b = Builder()
    w = b.resident(1)
    (x,) = b.op("make", [w], [10])
    (y,) = b.op("early", [x], [10])
    b.op("change", [x], mutates=[x])
    b.op("idle", [y], [5])
    b.op("late", [x, y])
    return b.graph(), b.profile(), x


def test_bytes_from_before_a_mutation_are_the_wrong_bytes() -> None:
    graph, profile, x = mutating()
    recompute = Decision(
        storage=x, action="recompute", after=2, before=4, free_before=3, fetch_before=4, region=(0,)
    )
    with pytest.raises(PlanError, match=r"'late' reads 'make' .* at version 0, needs 1"):
        check(graph, profile, lower_decisions(graph, (recompute,)), 10**6)
    good = dataclasses.replace(recompute, action="swap", region=(), tier="disk")
    check(graph, profile, lower_decisions(graph, (good,)), 10**6)
    entries = list(lower_decisions(graph, (good,)).entries)
    out = entries.pop(find(entries, "swap_out"))
    early = [*entries[:2], out, *entries[2:]]
    with pytest.raises(PlanError, match=r"mutates .* while it is written"):
        check(graph, profile, Schedule(entries=tuple(early)), 10**6)


def test_a_storage_mutated_between_two_swaps_is_written_twice() -> None:
    b = Builder()
    (x,) = b.op("make", [], [10])
    b.op("i0", [])
    b.op("change", [x], mutates=[x])
    b.op("i1", [])
    b.op("read", [x])
    b.op("i2", [])
    b.op("last", [x])
    graph, profile = b.graph(), b.profile()
    decisions = tuple(
        Decision(storage=x, action="swap", after=a, before=e, free_before=a + 1, fetch_before=e, tier="disk")
        for a, e in ((0, 2), (2, 4), (4, 6))
    )
    schedule = lower_decisions(graph, decisions)
    check(graph, profile, schedule, 10)
    kinds = [e.kind for e in schedule.entries if e.op < 0]
    assert kinds == [
        "swap_out", "settle", "drop", "fetch", "wait",
        "swap_out", "settle", "drop", "fetch", "wait",
        "drop", "fetch", "wait",
    ]  # fmt: skip


@pytest.mark.parametrize("why", ["random", "effect"])
def test_what_may_not_run_twice_is_not_run_twice(why: str) -> None:
    b = Builder()
    (x,) = b.op("make", [], [10], **{why: True})
    b.op("idle", [])
    b.op("use", [x])
    graph, profile = b.graph(), b.profile()
    d = Decision(storage=x, action="recompute", after=0, before=2, free_before=1, fetch_before=2, region=(0,))
    with pytest.raises(PlanError, match=f"is {why}.*, so it may not run again"):
        check(graph, profile, lower_decisions(graph, (d,)), 100)


def test_batch_norm_may_rerun_behind_its_statistics_but_they_may_not_be_read() -> None:
    b = Builder()
    mean, var, x, w = b.resident(2), b.resident(2), b.resident(9), b.resident(1)
    target = "aten._native_batch_norm_legit_functional.default"
    y, m, s, new_mean, new_var = b.op(
        "bn", [x, w, mean, var], [9, 2, 2, 2, 2], target=target, any_version=(mean, var)
    )
    b.op("copy", [mean, new_mean], mutates=[mean])
    b.op("copy2", [var, new_var], mutates=[var])
    b.op("grad", [y, m, s])
    graph, profile = b.graph(), b.profile()
    d = Decision(storage=y, action="recompute", after=0, before=3, free_before=1, fetch_before=3, region=(0,))
    check(graph, profile, lower_decisions(graph, (d,)), 1000)
    b.op("spy", [new_mean])
    again = dataclasses.replace(d, storage=new_mean, after=1, before=4, free_before=2, fetch_before=4)
    with pytest.raises(PlanError, match="version -1, needs 0"):
        check(b.graph(), b.profile(), lower_decisions(b.graph(), (again,)), 1000)
