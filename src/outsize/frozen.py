"""Which of a step's storages are parameters that may rest on a tier, and which do under a plan."""

from __future__ import annotations

from torch.fx import Node

from .fx import CapturedStep
from .prepared import Learned
from .values import Schedule, StepGraph

__all__ = ["may_rest", "resting"]


def may_rest(step: CapturedStep, learned: Learned) -> list[int]:
    """Storages of the parameters that may: nothing changes them, and nobody is handed a view of them."""
    results = (*step.forward_outputs, *step.backward_outputs, *step.updated)
    kept = {step.storage[n] for n in results if isinstance(n, Node) and n in step.storage}
    kept |= {s for op in step.graph.ops for s in op.mutates}
    found = []
    for unit in learned.parameters:
        storage = step.graph.storages[step.storage[step.primals[unit.place]]]
        if storage.index not in kept and storage.uses and storage.nbytes == unit.nbytes:
            found.append(storage.index)
    return found


def resting(step: CapturedStep, learned: Learned, graph: StepGraph, schedule: Schedule) -> dict[int, str]:
    """Storages of those that rest under this schedule → their names."""
    away = schedule.resting(graph)
    names = {step.storage[step.primals[unit.place]]: unit.name for unit in learned.parameters}
    return {s: name for s, name in names.items() if s in away}
