"""The step as arrays: what every planner asks of graph and profile, computed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BudgetError
from ..units import format_bytes
from ..values import Profile, Slack, StepGraph
from .request import Request
from .settings import PlanSettings

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Idle spans as parallel arrays, one element per span (bytes, positions, seconds)."""

    storage: Ints
    after: Ints
    before: Ints
    nbytes: Ints
    slack: Floats

    def __len__(self) -> int:
        return len(self.storage)

    def take(self, keep: NDArray[np.generic]) -> Spans:
        return Spans(
            storage=self.storage[keep],
            after=self.after[keep],
            before=self.before[keep],
            nbytes=self.nbytes[keep],
            slack=self.slack[keep],
        )


@dataclass(frozen=True, kw_only=True)
class Model:
    """Graph, profile and budget, and the curves that follow from them.

    Attributes:
        request: what is asked of the plan.
        seconds: of each op.
        curve: residency of the unplanned step at each position, workspace included, bytes.
        spans: every idle span.
        target: what the planners aim for: the budget less the margin.
    """

    graph: StepGraph
    profile: Profile
    slack: Slack
    request: Request
    seconds: Floats
    curve: Ints
    spans: Spans
    target: int

    @property
    def budget(self) -> int:
        """What the user allows, bytes."""
        return self.request.budget_bytes

    @property
    def settings(self) -> PlanSettings:
        return self.request.settings

    def with_target(self, target: int) -> Model:
        return Model(**{**self.__dict__, "target": target})

    @property
    def mutated(self) -> frozenset[int]:
        """Storages that some op changes in place."""
        return frozenset(s for op in self.graph.ops for s in op.mutates)

    @property
    def peak(self) -> int:
        return int(self.curve.max(initial=self.graph.resident_bytes))


def build_model(graph: StepGraph, profile: Profile, slack: Slack, request: Request) -> Model:
    """Arrays of a step under a budget."""
    budget_bytes, settings = request.budget_bytes, request.settings
    nbytes = np.array([s.nbytes for s in graph.storages], dtype=np.int64)
    storage = np.array([s.storage for s in slack.spans], dtype=np.int64)
    spans = Spans(
        storage=storage,
        after=np.array([s.after for s in slack.spans], dtype=np.int64),
        before=np.array([s.before for s in slack.spans], dtype=np.int64),
        nbytes=nbytes[storage] if len(storage) else storage,
        slack=np.array([s.seconds for s in slack.spans], dtype=np.float64),
    )
    free = max(0, budget_bytes - graph.resident_bytes)
    return Model(
        graph=graph,
        profile=profile,
        slack=slack,
        request=request,
        seconds=np.array([cost.seconds for cost in profile.ops], dtype=np.float64),
        curve=np.array(graph.plain_residency(profile.workspace), dtype=np.int64),
        spans=spans,
        target=budget_bytes - int(settings.margin * free),
    )


def cleared(length: int, start: Ints, stop: Ints, nbytes: Ints) -> Ints:
    """Bytes that intervals `[start, stop)` take away at each of `length` positions."""
    change = np.zeros(length + 1, dtype=np.int64)
    np.add.at(change, start, nbytes)
    np.add.at(change, stop, -nbytes)
    return np.cumsum(change)[:length]


def floor_curve(model: Model) -> Ints:
    """Residency when everything that an op does not touch is elsewhere: no plan that swaps can go below it."""
    spans = model.spans
    return model.curve - cleared(len(model.curve), spans.after + 1, spans.before, spans.nbytes)


def cannot_shrink(model: Model, floor: Ints, *, tools: str) -> BudgetError:
    """The error for a budget below the floor, with the position that proves it."""
    position = int(np.argmax(floor))
    smallest = int(floor[position])
    op = model.graph.ops[position]
    dominating = held_at(model.graph, position)[:5]
    works_in = int(model.profile.workspace[position])
    made = (s for s in model.graph.storages if s.kind in ("output", "gradient") and s.producer <= position)
    handed_out = sum(s.nbytes for s in made)
    kept = "kept for the loss" if op.phase == "outside" else "that it works in"
    touched = max(0, smallest - model.graph.resident_bytes - handed_out - works_in)
    least = " The plain step needs no more: a smaller batch does." if smallest >= model.peak else ""
    listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in dominating)
    return BudgetError(
        f"a budget of {format_bytes(model.budget)} ({model.budget} bytes) is below {format_bytes(smallest)} "
        f"({smallest} bytes), the smallest that {tools} can reach: op {op.name!r} (position {position}) needs that "
        f"at once, {format_bytes(model.graph.resident_bytes)} of it resident, {format_bytes(handed_out)} results and "
        f"gradients, {format_bytes(touched)} that it reads and writes, {format_bytes(works_in)} {kept}. The largest are "
        f"{listed}.{least}",
        smallest_feasible_bytes=smallest,
        dominating=dominating,
    )


def held_at(graph: StepGraph, position: int) -> list[tuple[str, int]]:
    """What is alive at a position and no plan can move away, largest first: touched, handed out or resident."""
    op = graph.ops[position]
    touched = {*op.reads, *op.writes}
    held = [
        (s.name, s.nbytes)
        for s in graph.storages
        if s.kind == "resident"
        or s.index in touched
        or (s.kind in ("output", "gradient") and s.producer <= position)
    ]
    return sorted(held, key=lambda item: -item[1])
