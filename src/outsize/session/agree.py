"""Processes that train one module make one plan for each of its steps.

Problem: each process measures for itself, and no two measurements are equal, so the plans may differ. Then one process
swaps where the other computes, and at every step the faster one waits.

Mechanism: a plan follows from the step, the budget, the bytes around the step, and what its operators and transfers cost.
The first two have to be equal. Of the bytes, the most that any process has counts. Of the costs, those of the first
process. The planner draws nothing, so equal facts make equal plans, and their hashes show it. What passes between the
processes is in `integrations/processes.py`; here is what one of them says, and what it does with what it hears.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from ..fx import CapturedStep
from ..prepared import Learned, Prepared, PreparedReplay
from ..values import Op, Plan, Profile, StepGraph, Storage
from .meter import pause_all, resume
from .observed import ObservedSession
from .paths import Path
from .plans import Plans
from .session import Session
from .state import Track

__all__ = ["Facts", "Step", "difference", "joined", "plan_digest", "prepared", "steps_of"]

#: What an operator's constants name and is another in each process: which of a machine's GPUs, an object's address.
_ITS_OWN = re.compile(r", index=\d+|(?<=[a-z]):\d+(?=[,)])| at 0x[0-9a-f]+")


@final
@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one process knows of one step.

    Attributes:
        key: hash of the step, and its place in a round.
        learned: what its plan is made from, beside the costs.
        planned: whether it has a plan.
        outputs: storages that were alive when the observed forward had ended. What the user's code holds in a cycle is
            alive until the collector comes, in one process and not in another.
    """

    key: str
    learned: Learned
    planned: bool
    outputs: frozenset[int] = frozenset()


class Step(ABC):
    """One step of this process.

    Attributes:
        graph: as it was captured or observed, before a plan.
        key: hash of the step, and its place in a round.
    """

    graph: StepGraph
    key: str

    @abstractmethod
    def facts(self) -> Facts:
        """What is said to the others."""

    @abstractmethod
    def profile(self) -> Profile:
        """What it costs, as this process has measured."""

    @abstractmethod
    def prepare(self, learned: Learned, outputs: frozenset[int]) -> Prepared | PreparedReplay:
        """A plan from what was agreed on, where these storages outlive the forward.

        Raises:
            BudgetError: none fits.
        """

    @abstractmethod
    def adopt(self, made: Prepared | PreparedReplay, learned: Learned) -> None:
        """That plan comes into force."""


@final
class _Captured(Step):
    def __init__(self, plans: Plans, step: CapturedStep, track: Track) -> None:
        self._plans, self._step, self._track = plans, step, track
        self.graph, self.key = step.graph, _key(step.graph, track.place)

    def facts(self) -> Facts:
        learned = self._plans.learned(self._step, self._track, self._track.resident)
        if self._track.gives_up:
            learned = replace(learned, outside=0, later=0)
        return Facts(
            key=self.key, learned=replace(learned, costs=()), planned=self._track.prepared is not None
        )

    def profile(self) -> Profile:
        made = self._track.prepared
        return made.profile if made is not None else Profile(ops=())

    def prepare(self, learned: Learned, outputs: frozenset[int]) -> Prepared:
        return self._plans.beside_others(self._step, self._track, learned)

    def adopt(self, made: Prepared | PreparedReplay, learned: Learned) -> None:
        assert isinstance(made, Prepared)
        self._plans.adopt(self._track, made, learned.resident + self.graph.resident_bytes)


@final
class _Observed(Step):
    def __init__(self, session: ObservedSession, path: Path) -> None:
        self._session, self._path = session, path
        self.graph = path.step.graph
        alike = (replace(s, kind="activation") if s.kind == "output" else s for s in self.graph.storages)
        self.key = _key(replace(self.graph, storages=tuple(alike)), path.place)

    def facts(self) -> Facts:
        learned, step = self._session.learned(self._path, self._path.resident), self._path.step
        outside = max(learned.outside or 0, step.costs[step.boundary].workspace_bytes)
        planned = self._path.prepared is not None
        outputs = frozenset(s.index for s in self.graph.storages if s.kind == "output")
        return Facts(
            key=self.key, learned=replace(learned, outside=outside), planned=planned, outputs=outputs
        )

    def profile(self) -> Profile:
        made = self._path.prepared
        return made.profile if made is not None else Profile(ops=self._path.step.costs)

    def prepare(self, learned: Learned, outputs: frozenset[int]) -> PreparedReplay:
        storages = (replace(s, kind="output") if s.index in outputs else s for s in self.graph.storages)
        graph = replace(self.graph, storages=tuple(storages))
        return self._session.prepare(replace(self._path.step, graph=graph), learned)

    def adopt(self, made: Prepared | PreparedReplay, learned: Learned) -> None:
        assert isinstance(made, PreparedReplay)
        self._session.adopt(self._path, made, learned.resident + self.graph.resident_bytes)


def steps_of(session: Session | ObservedSession) -> dict[str, Step]:
    """The steps that a session knows, by key."""
    steps: list[Step]
    if isinstance(session, ObservedSession):
        steps = [_Observed(session, path) for path in session.paths.known]
    else:
        tracks = session.plans.tracks.items()
        steps = [_Captured(session.plans, step, t) for step, places in tracks for t in places.values()]
    return {step.key: step for step in steps}


def joined(facts: Sequence[Facts], profile: Profile) -> Learned:
    """What all processes plan a step from: the most bytes that any has, and the costs of the first."""
    all_ = [one.learned for one in facts]
    outside = [learned.outside for learned in all_ if learned.outside is not None]
    densities: dict[int, float] = {}
    for learned in all_:
        for storage, density in learned.densities.items():
            densities[storage] = max(density, densities.get(storage, 0.0))
    return replace(
        all_[0],
        resident=max(learned.resident for learned in all_),
        outside=max(outside) if outside else None,
        later=max(learned.later for learned in all_),
        update=max(learned.update for learned in all_),
        bias=max(learned.bias for learned in all_),
        densities=densities,
        costs=profile.ops,
        links=profile.links,
        codecs=profile.codecs,
    )


def prepared(
    steps: Sequence[Step], learned: Sequence[Learned], outputs: Sequence[frozenset[int]]
) -> list[Prepared | PreparedReplay]:
    """A plan for each of the steps, which counts in none of them.

    Raises:
        BudgetError: one of them has none.
    """
    paused = pause_all()
    try:
        return [step.prepare(known, kept) for step, known, kept in zip(steps, learned, outputs, strict=True)]
    finally:
        resume(paused)


def plan_digest(plans: Sequence[Plan]) -> str:
    """Hash of what plans do: their decisions and budgets, not how long it takes."""
    text = [
        str((plan.budget_bytes, [replace(d, seconds=0.0, reason="") for d in plan.decisions]))
        for plan in plans
    ]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _key(graph: StepGraph, place: int) -> str:
    parts = [*map(_op, graph.ops), *map(_storage, graph.storages)]
    return f"{hashlib.sha256(str(parts).encode()).hexdigest()}/{place}"


def _op(op: Op) -> tuple[object, ...]:
    signature = _ITS_OWN.sub("", op.signature)
    return op.phase, op.target, op.reads, op.writes, op.mutates, signature


def _storage(storage: Storage) -> tuple[object, ...]:
    return storage.kind, storage.nbytes, storage.dtype, storage.producer


def difference(mine: StepGraph, theirs: StepGraph) -> str:
    """The first thing in which two steps differ, in words; `theirs` is the first process's."""
    for a, b in zip(mine.ops, theirs.ops):
        if (a.phase, a.target) != (b.phase, b.target):
            return f"operator {a.index} is {a.target} ({a.name}) where it is {b.target} ({b.name}) there"
    if len(mine.ops) != len(theirs.ops):
        return f"it has {len(mine.ops)} operators, {len(theirs.ops)} there"
    for s, t in zip(mine.storages, theirs.storages):
        if _storage(s) != _storage(t):
            here, there = (
                f"{x.nbytes} bytes of {x.dtype} ({x.kind}, from operator {x.producer})" for x in (s, t)
            )
            return f"storage {s.name} has {here}; there it has {there}"
    for a, b in zip(mine.ops, theirs.ops):
        if _op(a) != _op(b):
            return f"operator {a.index}, {a.target} ({a.name}), has other operands there"
    return "the calls have other places in the step"
