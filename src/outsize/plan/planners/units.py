"""Swap units and recompute units in one step.  (Method 4.)

The forward is divided into units: each is headed by a checkpoint operation, one that nobody wants to redo
(convolution, matrix product, attention), followed by the cheap ops after it. A unit's score is the bytes of the maps
that its *non-checkpoint* ops leave for the backward. Units whose score fits the allocation are taken for
recomputation in decreasing order of score, so that the fewest recomputed units save the most transfers; all
other maps, and the heads' own outputs, swap. The decision is made here, before the forward: a recompute unit's maps
are dropped in the forward and made again in the backward from the unit's head, never transferred. How many units are
taken is swept, and the simulator decides; reads of the next swap unit are placed beside the recomputation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...values import Decision, StepGraph
from ..evict.policy import Policy
from ..model import Model
from ..search.problem import Problem, Scored
from ..search.search import fastest


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A checkpoint operation and the ops up to the next one.

    Attributes:
        head: position of the checkpoint operation, the unit's first op.
        ops: positions of all its ops.
        maps: storages that its other ops make and the backward reads.
        nbytes: their bytes, the unit's score.
    """

    head: int
    ops: tuple[int, ...]
    maps: tuple[int, ...]
    nbytes: int


def find_units(graph: StepGraph) -> list[Unit]:
    """Units of the forward, in step order; what stands before the first checkpoint belongs to none."""
    forward = [op for op in graph.ops if op.phase == "forward"]
    heads = [op.index for op in forward if op.checkpoint]
    end = len(forward)
    candidates = {s.index for s in graph.candidates() if s.uses and s.uses[-1] >= end}
    units = []
    for head, following in zip(heads, [*heads[1:], end]):
        ops = tuple(range(head, following))
        maps = tuple(s for o in ops[1:] for s in graph.ops[o].writes if s in candidates)
        units.append(Unit(head=head, ops=ops, maps=maps, nbytes=sum(graph.storages[s].nbytes for s in maps)))
    return units


def plan_units(model: Model) -> list[Decision]:
    """The fastest hybrid of swap and recompute units; with one action allowed, of that action alone.

    Raises:
        BudgetError: nothing fits, with the smallest budget that does.
    """
    problem = Problem.of(model)
    found = sweep_units(problem)
    hybrid = [scored for scored in found if {"swap", "recompute"} <= {d.action for d in scored.decisions}]
    if not found:
        return list(fastest(problem).decisions)
    return list(min(hybrid or found, key=lambda scored: scored.seconds).decisions)


def sweep_units(problem: Problem) -> list[Scored]:
    """One plan per number of recompute units, those that fit the budget."""
    model = problem.model
    units = sorted(find_units(model.graph), key=lambda unit: (-unit.nbytes, unit.head))
    allocation = model.settings.unit_share * max(0, problem.target - model.graph.resident_bytes)
    eligible = [unit for unit in units if 0 < unit.nbytes <= allocation]
    counts = sorted({round(x) for x in np.linspace(0, len(eligible), min(len(eligible), 16) + 1)})
    found = []
    for count in counts:
        maps = frozenset(s for unit in eligible[:count] for s in unit.maps)
        weight = problem.uniform.copy()
        weight[list(maps)] *= 1e-6
        for patience, crowded in ((1.0, False), (0.5, True)):
            scored = problem.evict(
                Policy(
                    lane_price=1.0 if problem.swaps else float("inf"),
                    patience=patience,
                    crowded=crowded,
                    recompute=problem.recompute,
                    remake=maps if problem.swaps else None,
                    weight=weight,
                )
            )
            if scored is not None:
                found.append(scored)
    return found
