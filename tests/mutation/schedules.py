"""A wrong schedule for every rule of `plan/check.py`, and right ones that no rule may refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from outsize.values import Entry, Schedule
from tests.plan.graphs import Builder

BUDGET = 10**6
NORM = "aten._native_batch_norm_legit_functional.default"


def op(number: int) -> Entry:
    return Entry(kind="op", op=number)


def clone(number: int) -> Entry:
    return Entry(kind="clone", op=number)


def act(kind: str, storage: int, **more: Any) -> Entry:
    if kind in ("swap_out", "fetch"):
        more.setdefault("tier", "disk")
    if kind in ("encode", "decode"):
        more.setdefault("codec", "relu")
    return Entry(kind=kind, storage=storage, **more)


@dataclasses.dataclass
class Step:
    """`make` gives x, `early` reads it and gives y, `idle` reads y, `late` reads both and gives an output."""

    builder: Builder = dataclasses.field(default_factory=Builder)

    def __post_init__(self) -> None:
        b = self.builder
        self.w = b.resident(10, "w")
        (self.x,) = b.op("make", [self.w], [100])
        (self.y,) = b.op("early", [self.x], [10])
        b.op("idle", [self.y])
        (self.z,) = b.op("late", [self.x, self.y], [10], kinds=["output"])

    def runs(self, entries: Sequence[Entry], budget: int = BUDGET) -> Callable[[ModuleType], Any]:
        graph, profile = self.builder.graph(), self.builder.profile()
        return lambda module: module.check(graph, profile, Schedule(entries=tuple(entries)), budget)


S = Step()
X, Y, W, Z = S.x, S.y, S.w, S.z
AWAY = [act("swap_out", X), act("settle", X), act("drop", X)]
BACK = [act("fetch", X), act("wait", X)]
ENCODED = [act("encode", X, nbytes=40), act("drop", X)]
#: The encoded form of x on its way: to the tier and back.
SENT = [act("swap_out", X, nbytes=40), act("settle", X, nbytes=40)]
RETURNED = [act("fetch", X, nbytes=40), act("wait", X, nbytes=40)]


def between(*entries: Entry, budget: int = BUDGET) -> Callable[[ModuleType], Any]:
    """The step with entries behind `early`, all before `idle`."""
    return S.runs([op(0), op(1), *entries, op(2), op(3)], budget)


def _changed(**changes: Any) -> Callable[[ModuleType], Any]:
    """The plain step on a graph or a profile that was changed."""
    graph, profile = S.builder.graph(), S.builder.profile()
    if "ops" in changes:
        profile = dataclasses.replace(profile, ops=profile.ops * changes["ops"])
    if "held_until" in changes:
        held = dataclasses.replace(graph.storages[X], held_until=changes["held_until"])
        graph = dataclasses.replace(
            graph, storages=tuple(held if s.index == X else s for s in graph.storages)
        )
    if "storages" in changes:
        graph = dataclasses.replace(graph, storages=(*graph.storages, changes["storages"](graph)))
    if "writes" in changes:
        again = dataclasses.replace(graph.ops[2], writes=(X,))
        graph = dataclasses.replace(graph, ops=(*graph.ops[:2], again, *graph.ops[3:]))
    entries = tuple(op(n) for n in range(4))
    if "held_until" in changes:
        entries = (*entries[:2], *AWAY, *BACK, *entries[2:])
    return lambda module: module.check(graph, profile, Schedule(entries=entries), BUDGET)


def _lost_output(graph: Any) -> Any:
    """An output that no op makes."""
    last = graph.storages[Z]
    return dataclasses.replace(last, index=len(graph.storages), name="lost")


def _norm(entries: Callable[[int, int], Sequence[Entry]]) -> Callable[[ModuleType], Any]:
    """A batch normalisation whose statistics are made by an op: it may be repeated behind their update."""
    b = Builder()
    w = b.resident(10)
    (mean,) = b.op("statistics", [w], [10])
    made = b.op("norm", [w, mean], [10, 2, 2], target=NORM, any_version=(mean,))
    b.op("update", [mean], mutates=[mean])
    b.op("idle", [w])
    b.op("grad", [w, *made])
    graph, profile = b.graph(), b.profile()
    return lambda module: module.check(
        graph, profile, Schedule(entries=tuple(entries(mean, made[0]))), BUDGET
    )


def _stale_first_run() -> Callable[[ModuleType], Any]:
    b = Builder()
    w = b.resident(10)
    (mean,) = b.op("statistics", [w], [10])
    b.op("update", [mean], mutates=[mean])
    b.op("norm", [w, mean], [10], target=NORM, any_version=(mean,))
    graph, profile = b.graph(), b.profile()
    old = [act("swap_out", mean), act("settle", mean)]
    entries = [op(0), *old, op(1), act("drop", mean), act("fetch", mean), act("wait", mean), op(2)]
    return lambda module: module.check(graph, profile, Schedule(entries=tuple(entries)), BUDGET)


def _fourth_result(read: bool) -> Callable[[ModuleType], Any]:
    """A normalisation that is repeated behind the update of its statistics, whose new ones are then read."""
    b = Builder()
    mean, var, x, w = b.resident(2), b.resident(2), b.resident(9), b.resident(1)
    made = b.op("norm", [x, w, mean, var], [9, 2, 2, 2, 2], target=NORM, any_version=(mean, var))
    b.op("update", [mean, made[3]], mutates=[mean])
    b.op("idle", [x])
    b.op("grad", [x, made[3]] if read else [x, made[0]])
    kept = made[3] if read else made[0]
    graph, profile = b.graph(), b.profile()
    entries = [op(0), op(1), act("drop", kept), op(2), clone(0), op(3)]
    return lambda module: module.check(graph, profile, Schedule(entries=tuple(entries)), BUDGET)


def _mask(first: int) -> Callable[[ModuleType], Any]:
    """x comes back as a mask in front of `late`, from where on (`first`) its sign is enough, or nowhere (-1)."""
    graph, profile = S.builder.graph(), S.builder.profile()
    signs = dataclasses.replace(graph.storages[X], mask_from=first)
    graph = dataclasses.replace(graph, storages=(*graph.storages[:X], signs, *graph.storages[X + 1 :]))
    there, again = act("encode", X, codec="mask", nbytes=4), act("decode", X, codec="mask")
    entries = [op(0), op(1), there, act("drop", X), op(2), again, op(3)]
    return lambda module: module.check(graph, profile, Schedule(entries=tuple(entries)), BUDGET)


def _mutating(entries: Callable[[int, int], Sequence[Entry]]) -> Callable[[ModuleType], Any]:
    """x is made, read, changed in place, and read again."""
    b = Builder()
    w = b.resident(1)
    (x,) = b.op("make", [w], [10])
    (y,) = b.op("early", [x], [10])
    b.op("change", [x], mutates=[x])
    b.op("late", [x, y])
    graph, profile = b.graph(), b.profile()
    return lambda module: module.check(graph, profile, Schedule(entries=tuple(entries(x, y))), BUDGET)


def _state(*entries: Entry) -> Callable[[ModuleType], Any]:
    """Two ops and an update that changes state: the entries come between the first two, and what is None stands for the
    update."""
    b = Builder()
    (x,) = b.op("make", [b.resident(10, "w")], [100])
    b.op("late", [x], [10], kinds=["output"])
    state = b.resident(50, "state")
    b.op("update", [state], mutates=[state])
    graph = b.graph()
    storages = [dataclasses.replace(s, kind="state") if s.index == state else s for s in graph.storages]
    graph, profile = dataclasses.replace(graph, storages=tuple(storages)), b.profile()
    whole = (op(0), *(dataclasses.replace(e, storage=state) if e.op < 0 else e for e in entries))
    return lambda module: module.check(graph, profile, Schedule(entries=whole), BUDGET)


COMES, GOES = [act("fetch", 0), act("wait", 0)], [act("swap_out", 0), act("settle", 0), act("drop", 0)]
GOES_ELSEWHERE = [act("swap_out", 0, tier="host"), act("settle", 0), act("drop", 0)]


def _special(**why: Any) -> Callable[[ModuleType], Any]:
    b = Builder()
    (x,) = b.op("make", [], [10], **why)
    b.op("use", [x])
    graph, profile = b.graph(), b.profile()
    entries = (op(0), act("drop", x), clone(0), op(1))
    return lambda module: module.check(graph, profile, Schedule(entries=entries), BUDGET)


def _workspace(budget: int) -> Callable[[ModuleType], Any]:
    b = Builder()
    w = b.resident(10)
    b.op("wide", [w], workspace=50)
    return lambda module: module.check(b.graph(), b.profile(), Schedule(entries=(op(0),)), budget)


def _two(*entries: Entry) -> Callable[[ModuleType], Any]:
    """Two ops that make nothing and do not read one another."""
    b = Builder()
    w = b.resident(10)
    b.op("one", [w])
    b.op("two", [w])
    return lambda module: module.check(b.graph(), b.profile(), Schedule(entries=entries), BUDGET)


def _unknown_statistics() -> Callable[[ModuleType], Any]:
    """A normalisation repeated on statistics that a stale repeat has made: not theirs of before or after."""
    b = Builder()
    mean, var, x, w = b.resident(2), b.resident(2), b.resident(9), b.resident(1)
    made = b.op("norm", [x, w, mean, var], [9, 2, 2, 2, 2], target=NORM, any_version=(mean, var))
    b.op("update", [mean], mutates=[mean])
    (y,) = b.op("norm again", [w, made[3]], [10], target=NORM, any_version=(made[3],))
    b.op("idle", [w])
    b.op("grad", [y])
    graph, profile = b.graph(), b.profile()
    gone = [act("drop", y), act("drop", made[3])]
    entries = [op(0), op(1), op(2), *gone, op(3), clone(0), clone(2), op(4)]
    return lambda module: module.check(graph, profile, Schedule(entries=tuple(entries)), BUDGET)


def _wide_decode() -> Callable[[ModuleType], Any]:
    """More is alive where the encoded form and the bytes are both there than anywhere else."""
    b = Builder()
    w = b.resident(10)
    (x,) = b.op("make", [w], [100])
    (more,) = b.op("more", [w], [50])
    b.op("late", [x, more])
    entries = (op(0), act("encode", x, nbytes=40), act("drop", x), op(1), act("decode", x), op(2))
    return lambda module: module.check(b.graph(), b.profile(), Schedule(entries=entries), 199)


RIGHT: dict[str, Callable[[ModuleType], Any]] = {
    "state rests over the turn": _state(op(1), *COMES, op(2), *GOES),
    "state stays": _state(op(1), op(2)),
    "state goes and comes within the step": _state(*GOES, op(1), *COMES, op(2)),
    "the plain step": S.runs([op(n) for n in range(4)]),
    "a swap": between(*AWAY, *BACK),
    "a swap after others let go": _changed(held_until=1),
    "a swap of an encoded form": between(*ENCODED, *SENT, *RETURNED, act("decode", X)),
    "a drop while the encoded form is written": between(
        ENCODED[0], SENT[0], ENCODED[1], SENT[1], *RETURNED, act("decode", X)),
    "an encoding that is read twice": between(
        *ENCODED, act("decode", X, last=False), act("drop", X), act("decode", X)),
    "a recomputation": between(act("drop", X), clone(0)),
    "a repeat that makes what is there once more": between(clone(0)),
    "a mask from where the sign is enough": _mask(3),
    "a normalisation that is repeated behind its update": _norm(
        lambda mean, y: [op(0), op(1), op(2), act("drop", y), op(3), clone(1), op(4)]),
    "a normalisation whose first results are read": _fourth_result(read=False),
    "a write that ends behind the last use": S.runs(
        [op(0), op(1), act("swap_out", X), op(2), op(3), act("settle", X)]),
    "a budget that just holds": _workspace(60),
    "an encoding beside an old write": between(*AWAY, *BACK, *ENCODED, act("decode", X)),
}  # fmt: skip

WRONG: dict[str, Callable[[ModuleType], Any]] = {
    "state is not written after its update": _state(op(1), *COMES, op(2), act("drop", 0)),
    "state came and stays": _state(op(1), *COMES, op(2)),
    "state was here and is away": _state(op(1), op(2), *GOES),
    "state went to another tier": _state(op(1), *COMES, op(2), *GOES_ELSEWHERE),
    "an op is missing": _two(op(0)),
    "an output that no op makes": _changed(storages=_lost_output),
    "a write that is never waited for": S.runs([*(op(n) for n in range(4)), act("swap_out", W)]),
    "a read that is never waited for": S.runs([op(0), op(1), *AWAY, *BACK, op(2), op(3), act("fetch", X)]),
    "an encoding over the budget": between(act("encode", X, nbytes=1000), act("decode", X), budget=500),
    "an encoding alone over the budget": between(
        act("encode", X, nbytes=1000), act("drop", X), act("decode", X), budget=1115),
    "a form and its bytes over the budget": _wide_decode(),
    "a workspace over the budget": _workspace(59),
    "a repeat of what is absent": _norm(
        lambda mean, y: [op(0), op(1), op(2), act("drop", y), act("drop", mean), op(3), clone(1), op(4)]),
    "a use of what is arriving": S.runs([op(0), op(1), *AWAY, act("fetch", X), op(2), op(3), act("wait", X)]),
    "values read of a mask": _mask(-1),
    "a mask before the sign is enough": _mask(4),
    "a repeat on changed bytes": _mutating(
        lambda x, y: [op(0), op(1), op(2), act("drop", y), clone(1), op(3)]),
    "statistics that were made of others": _fourth_result(read=True),
    "statistics of no known version": _unknown_statistics(),
    "ops exchanged": _two(op(1), op(0)),
    "a first run on old statistics": _stale_first_run(),
    "a storage made twice": _changed(writes=True),
    "a change while the write is under way": _mutating(
        lambda x, y: [op(0), op(1), act("swap_out", x), op(2), act("settle", x), op(3)]),
    "a repeat before the first run": S.runs([op(0), op(1), clone(2), op(2), op(3)]),
    "a random op repeated": _special(random=True),
    "an op with an effect repeated": _special(effect=True),
    "the write of what is absent": between(act("drop", X), act("swap_out", X)),
    "the drop of what is absent": between(act("drop", X), act("drop", X), clone(0)),
    "the encoding of what is absent": between(act("drop", X), act("encode", X, nbytes=4), clone(0)),
    "two writes at once": between(act("swap_out", X), act("swap_out", X), act("settle", X)),
    "the write of a form that is not there": between(act("swap_out", X, nbytes=40), act("settle", X, nbytes=40)),
    "the write of another form": between(*ENCODED, act("swap_out", X, nbytes=39), act("settle", X, nbytes=39),
                                         act("fetch", X, nbytes=39), act("wait", X, nbytes=39), act("decode", X)),
    "the end of no write": between(act("settle", X)),
    "the end of another write": between(*ENCODED, SENT[0], act("settle", X), *RETURNED, act("decode", X)),
    "two encodings": between(act("encode", X, nbytes=40), *ENCODED, act("decode", X)),
    "the drop of a resident": S.runs([*(op(n) for n in range(4)), act("drop", W)]),
    "the drop of what others hold up to idle": _changed(held_until=2),
    "the drop under a write": between(act("swap_out", X), act("drop", X), act("settle", X), *BACK),
    "a fetch of what is there": between(*AWAY[:2], act("fetch", X), act("wait", X)),
    "a fetch of what is arriving": between(*AWAY, act("fetch", X), *BACK),
    "a fetch of what was never written": between(act("drop", X), *BACK),
    "a fetch from another tier": between(*AWAY, act("fetch", X, tier="host"), act("wait", X)),
    "a fetch of another form": between(*ENCODED, *SENT, act("fetch", X, nbytes=39), RETURNED[1], act("decode", X)),
    "a wait for no read": between(*AWAY, act("wait", X), clone(0)),
    "a wait for another form": between(*ENCODED, *SENT, RETURNED[0], act("wait", X)),
    "a decode of what is there": between(ENCODED[0], act("decode", X)),
    "a decode of what is arriving": between(
        *AWAY[:2], *ENCODED, act("fetch", X), act("decode", X, last=False), act("wait", X)),
    "a decode by another codec": between(*ENCODED, act("decode", X, codec="planes")),
    "a decode of what is not encoded": between(act("drop", X), act("decode", X, codec=""), clone(0)),
    "a form freed under its write": between(*ENCODED, SENT[0], act("decode", X), ENCODED[0], SENT[1]),
    "a repeat of op -1, which in Python is the last": _two(op(0), op(1), clone(-1)),
    "a drop that names an op": between(Entry(kind="drop", storage=X, op=0), clone(0)),
    "an op that names a storage": S.runs([Entry(kind="op", op=0, storage=X), op(1), op(2), op(3)]),
    "an action on no storage": between(Entry(kind="drop")),
    "an action on a storage that the step lacks": between(act("drop", 99)),
    "an op that the step lacks": S.runs([*(op(n) for n in range(5))]),
    "a profile of another step": _changed(ops=2),
}  # fmt: skip
