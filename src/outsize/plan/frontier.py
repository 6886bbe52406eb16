"""Which storages to keep where the step is fullest: the cheapest recomputation, as a program over a few positions.

Problem: a walk decides storage by storage and climbs from there, but what fits a budget best is a matter of the whole
set, as in a knapsack: five projections and three hidden layers of a transformer fill a budget that no fixed choice
per block does. Mechanism: a handful of positions ("cuts") instead of all of them. P[k, v]: storage v is on the device
while the op of cut k runs. C[k, i]: op i runs again between the cuts k and k + 1. What runs or is kept reads what was
kept at the cut before, runs again since, or was made since; at every cut, what is kept fits. Everything that a real
plan must do is a constraint, so the optimum is a lower bound on the seconds recomputed by any plan that recomputes
alone. What the constraints leave out (other positions, bytes while a region runs) shows when a walk follows the
optimum: where it is over the budget a cut is added, and the program is solved again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np

from .chains import Chains
from .milp import Key, Program, Terms
from .moves import Barred

#: Recomputed seconds are counted in hundredths of the step, so that HiGHS's tolerances suit them.
_PERCENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How far the programs of one step are taken.

    Attributes:
        gap: relative gap at which the solver stops.
        seconds, nodes: its limits for one program; what it has proved until then is a bound all the same.
        rounds: most programs.
        cuts: most cuts.
    """

    gap: float
    seconds: float
    nodes: int | None = None
    rounds: int
    cuts: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The optimum over some cuts.

    Attributes:
        again: no plan that recomputes alone makes fewer seconds run again.
        feasible: False where no such plan fits.
        gone: idle spans (storage, touch before the span) in which the optimum has the storage away; None where the
            solver found no point, or ran out of time: what it has by then is not the same in every run.
    """

    again: float
    feasible: bool = True
    gone: frozenset[tuple[int, int]] | None = None

    @property
    def forced(self) -> frozenset[Barred]:
        """The same as decisions that a walk makes, needed or not."""
        return frozenset((s, after, "recompute") for s, after in self.gone or ())


@final
class Frontier:
    """Programs over the cuts of one step.

    Args:
        chains: the step's static facts.
        retain: storages may stay beyond their last use, for what is made of them; a walk cannot do that, a plan can.
    """

    def __init__(self, chains: Chains, *, retain: bool) -> None:
        self._chains, self._retain = chains, retain
        self._mortal = sorted({s for made in chains.outputs for s in made})
        self._reach = self._reached()
        self._scale = _PERCENT / max(sum(chains.seconds), 1e-300)

    def _reached(self) -> list[int]:
        """Last position at which a storage may be wanted: its own last use, or that of what it can be made into."""
        chains, reach = self._chains, list(self._chains.last)
        for op in reversed(range(len(chains.inputs))):
            if chains.repeats[op]:
                until = max((reach[w] for w in chains.outputs[op]), default=-1)
                for v in chains.inputs[op]:
                    reach[v] = max(reach[v], until)
        return reach

    def cuts(self, first: int, last: int, count: int) -> list[int]:
        """Of each of `count` equal parts of the positions, the op that needs most bytes for itself."""
        edges = np.linspace(first, last + 1, count + 1).astype(int).tolist()
        return [max(range(a, b), key=self._own) for a, b in pairwise(edges) if a < b]

    def _own(self, op: int) -> int:
        """Bytes that are there while an op runs, whatever the plan."""
        chains = self._chains
        touched = {*chains.inputs[op], *chains.outputs[op]}
        return chains.fixed[op] + chains.workspace[op] + sum(chains.size[v] for v in touched)

    def solve(self, cuts: Sequence[int], budget: int, effort: Effort) -> Kept:
        """The cheapest recomputation that fits the budget at the cuts, which are ascending positions."""
        program = Program()
        for k, cut in enumerate(cuts):
            self._memory(program, k, cut, max(1, budget))
        ends = [*cuts[1:], len(self._chains.inputs) - 1]
        for k, (cut, end) in enumerate(zip(cuts, ends)):
            self._reruns(program, k, cut, end)
        for k, (cut, end) in enumerate(zip(cuts, ends)):
            self._order(program, k, cut, end)
        answer = program.solve(effort.seconds, gap=effort.gap, nodes=effort.nodes)
        if answer is None:
            return Kept(again=float("inf"), feasible=False)
        again = max(0.0, answer.bound) / self._scale
        if answer.values is None or answer.late:
            return Kept(again=again)
        return Kept(again=again, gone=frozenset(self._gone(cuts, answer.values)))

    def _memory(self, program: Program, k: int, cut: int, budget: int) -> None:
        """What is there while the op of a cut runs: what it touches, and what is kept."""
        chains, kept = self._chains, Terms()
        touched = {*chains.inputs[cut], *chains.outputs[cut]}
        until = self._reach if self._retain else chains.last
        for v in self._mortal:
            if v in touched:
                if until[v] > cut:
                    program.add(("P", k, v), low=1.0, high=1.0)
            elif chains.producer[v] <= cut < until[v]:
                program.add(("P", k, v), high=1.0, whole=True)
                kept[("P", k, v)] = chains.size[v] / budget
        program.at_most(kept, 1.0 - self._own(cut) / budget)

    def _reruns(self, program: Program, k: int, cut: int, end: int) -> None:
        """Which ops may run again behind a cut: those of which something is wanted there."""
        chains = self._chains
        for op in range(end):
            wanted = max((self._reach[w] for w in chains.outputs[op]), default=-1)
            if chains.repeats[op] and wanted > cut:
                program.add(("C", k, op), high=1.0, whole=True, cost=chains.seconds[op] * self._scale)

    def _order(self, program: Program, k: int, cut: int, end: int) -> None:
        """What runs behind a cut, and what is kept at the next one, was kept at this one or made since."""
        chains = self._chains
        read = {v for op in range(cut + 1, end + 1) for v in chains.inputs[op]}
        for v in sorted(read):
            if chains.producer[v] <= cut:
                program.at_least(self._sources(program, k, v), 1.0)
        for op in range(end):
            if ("C", k, op) in program:
                self._need(program, k, chains.inputs[op], ("C", k, op), cut, end)
        for v in self._mortal:
            if ("P", k + 1, v) in program:
                self._need(program, k, (v,), ("P", k + 1, v), cut, end)

    def _need(self, program: Program, k: int, storages: Iterable[int], key: Key, cut: int, end: int) -> None:
        """Where a variable is 1, these storages are there between two cuts."""
        for v in storages:
            if not cut < self._chains.producer[v] <= end:
                program.at_least({**self._sources(program, k, v), key: -1.0}, 0.0)

    def _sources(self, program: Program, k: int, v: int) -> Terms:
        keys: tuple[Key, ...] = (("P", k, v), ("C", k, self._chains.producer[v]))
        return {key: 1.0 for key in keys if key in program}

    def _gone(self, cuts: Sequence[int], values: Terms) -> Iterator[tuple[int, int]]:
        """Idle spans over a cut at which the storage is not kept."""
        chains = self._chains
        for v in self._mortal:
            if not chains.acted_on[v]:
                continue
            away = [cut for k, cut in enumerate(cuts) if values.get(("P", k, v), 1.0) < 0.5]
            for after, before in pairwise(sorted({chains.producer[v], *chains.uses[v]})):
                if any(after < cut < before for cut in away):
                    yield v, after
