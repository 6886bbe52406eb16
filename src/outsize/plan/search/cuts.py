"""Which storages to keep where the step is fullest: the cheapest recomputation, as a program over a few positions.

Problem: a pass decides storage by storage and climbs from there, but what fits a budget best is a matter of the whole
set, as in a knapsack: five projections and three hidden layers of a transformer fill a budget that no fixed choice
per block does. Mechanism: a handful of positions ("cuts") instead of all of them. P[k, v]: storage v is on the device
while the op of cut k runs. C[k, i]: op i runs again between the cuts k and k + 1. What runs or is kept reads what was
kept at the cut before, runs again since, or was made since; at every cut, what is kept fits. With a tier there is also
F[k, v]: storage v is read back between two cuts, and S[k]: the computation waits there. What is away at a cut and read
back later was written before the cut and is read after it, in the time that the lane has there. Everything that a real
plan must do is a constraint, so the optimum is a lower bound on the seconds that any plan by recomputation (and swaps)
adds to the step. What the constraints leave out (other positions, bytes while a region runs, the order on a lane) shows
when a pass follows the optimum: where it is over the budget a cut is added, and the program is solved again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np

from ...values.profile import LinkRate
from ..chains import Chains
from ..evict.policy import DecisionKey
from ..milp import BUDGET_PARTS, Key, Program, Terms

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
class CutOptimum:
    """The optimum over some cuts.

    Attributes:
        again: no plan by recomputation (and swaps, where there is a tier) makes fewer seconds run again or wait.
        feasible: False where no such plan fits.
        forced: what the optimum does, as decisions that a pass makes, needed or not: storage, touch before the idle
            span, action. None where the solver found no point, or ran out of time: what it has by then is not the
            same in every run.
        retained: storages that it keeps beyond their last use.
    """

    again: float
    feasible: bool = True
    forced: frozenset[DecisionKey] | None = None
    retained: frozenset[int] = frozenset()


@final
class CutProgram:
    """Programs over the cuts of one step.

    Args:
        chains: the step's static facts.
        retain: storages that may stay beyond their last use, for what is made of them.
        link: of the tier, None for recomputation alone.
        small: storages of fewer bytes take no room and are always there, which leaves a bound a bound: the statistics of
            norms are a third of a network's storages and a thousandth of its bytes.
    """

    def __init__(
        self, chains: Chains, *, retain: Iterable[int], link: LinkRate | None = None, small: int = 0
    ) -> None:
        self._chains, self._link = chains, link
        self._until = list(chains.last)
        for v in retain:
            self._until[v] = chains.reach[v]
        self._transient = sorted({s for made in chains.outputs for s in made if chains.size[s] >= small})
        self._large = frozenset(self._transient)
        self._reach = chains.reach
        self._scale = _PERCENT / max(sum(chains.seconds), 1e-300)

    def cuts(self, first: int, last: int, count: int) -> list[int]:
        """Of each of `count` equal parts of the positions, the op that needs most bytes for itself."""
        edges = np.linspace(first, last + 1, count + 1).astype(int).tolist()
        return [max(range(a, b), key=self._own) for a, b in pairwise(edges) if a < b]

    def _own(self, op: int) -> int:
        """Bytes that are there while an op runs, whatever the plan."""
        chains = self._chains
        touched = {*chains.inputs[op], *chains.outputs[op]}
        return chains.fixed[op] + chains.workspace[op] + sum(chains.size[v] for v in touched)

    def solve(self, cuts: Sequence[int], budget: int, effort: Effort) -> CutOptimum:
        """The cheapest recomputation that fits the budget at the cuts, which are ascending positions."""
        program = Program()
        for k, cut in enumerate(cuts):
            self._memory(program, k, cut, max(1, budget))
        ends = [*cuts[1:], len(self._chains.inputs) - 1]
        for k, (cut, end) in enumerate(zip(cuts, ends)):
            self._reruns(program, k, cut, end)
        if self._link is not None:
            self._reads(program, cuts, self._link)
            self._lanes(program, cuts, self._link)
        for k, (cut, end) in enumerate(zip(cuts, ends)):
            self._order(program, k, cut, end)
        answer = program.solve(effort.seconds, gap=effort.gap, nodes=effort.nodes)
        if answer is None:
            return CutOptimum(again=float("inf"), feasible=False)
        again = max(0.0, answer.bound) / self._scale
        if answer.values is None or answer.late:
            return CutOptimum(again=again)
        return CutOptimum(
            again=again,
            forced=frozenset(self._forced(cuts, answer.values)),
            retained=frozenset(self._retained(cuts, answer.values)),
        )

    def _memory(self, program: Program, k: int, cut: int, budget: int) -> None:
        """What is there while the op of a cut runs: what it touches, and what is kept."""
        chains, kept, part = self._chains, Terms(), BUDGET_PARTS / budget
        touched = {*chains.inputs[cut], *chains.outputs[cut]}
        for v in self._transient:
            if v in touched:
                if self._until[v] > cut:
                    program.add(("P", k, v), low=1.0, high=1.0)
            elif chains.producer[v] <= cut < self._until[v]:
                low = float(cut < chains.acted_from[v] < len(chains.inputs))
                program.add(("P", k, v), low=low, high=1.0, whole=True)
                kept[("P", k, v)] = chains.size[v] * part
        program.at_most(kept, BUDGET_PARTS - self._own(cut) * part)

    def _reruns(self, program: Program, k: int, cut: int, end: int) -> None:
        """Which ops may run again after a cut: those of which something is wanted there."""
        chains = self._chains
        for op in range(end):
            wanted = max((self._reach[w] for w in chains.outputs[op] if w in self._large), default=-1)
            if chains.repeats[op] and wanted > cut:
                program.add(("C", k, op), high=1.0, whole=True, cost=chains.seconds[op] * self._scale)

    def _reads(self, program: Program, cuts: Sequence[int], link: LinkRate) -> None:
        """What may be read back after a cut: what is not there, and so has a copy that was written before the cut.

        A[k, v]: at cut k the storage is away and its copy is complete. One that is made again after the cut may be
        written after that.
        """
        chains = self._chains
        for k in reversed(range(len(cuts))):
            program.add(("S", k, 0), cost=self._scale)
            for v in self._transient:
                if not max(chains.acted_from[v], chains.producer[v]) <= cuts[k] < self._reach[v]:
                    continue
                touched = {*chains.inputs[cuts[k]], *chains.outputs[cuts[k]]}
                if v in touched:
                    continue
                program.add(("F", k, v), high=1.0, whole=True)
                program.add(("A", k, v), high=1.0)
                kept: Terms = {("P", k, v): 1.0} if ("P", k, v) in program else {}
                program.at_most({("F", k, v): 1.0, **kept}, 1.0)
                program.at_least({("A", k, v): 1.0, ("F", k, v): -1.0}, 0.0)
                if ("A", k + 1, v) in program:
                    made: Terms = {key: 1.0 for key in [("C", k, chains.producer[v])] if key in program}
                    program.at_least({("A", k, v): 1.0, ("A", k + 1, v): -1.0, **kept, **made}, 0.0)

    def _lanes(self, program: Program, cuts: Sequence[int], link: LinkRate) -> None:
        """What each lane carries between two moments fits into the time between them."""
        chains, starts = self._chains, self._chains.starts
        program.add(("S", -1, 0), cost=self._scale)
        away = [[v for v in self._transient if ("A", k, v) in program] for k in range(len(cuts))]
        whole = starts[-1] + chains.seconds[-1]
        for k, cut in enumerate(cuts):
            for j in range(-1, k):  # written between cut j and cut k: what was made since
                since = cuts[j] if j >= 0 else -1
                out: Terms = {
                    ("A", k, v): link.out_seconds(chains.size[v])
                    for v in away[k]
                    if chains.producer[v] > since
                }
                time = starts[cut] - (starts[since] if j >= 0 else 0.0)
                self._fits(program, out, time, range(j, k))
            back: Terms = {
                ("F", j, v): link.in_seconds(chains.size[v]) for j in range(k, len(cuts)) for v in away[j]
            }
            self._fits(program, back, whole - starts[cut], range(k, len(cuts)))

    def _fits(self, program: Program, carried: Terms, time: float, windows: range) -> None:
        """The lane's seconds are at most the plain time, what runs again and the waits in these windows."""
        chains, longer = self._chains, Terms()
        for k in windows:
            longer[("S", k, 0)] = -1.0
            for op in range(len(chains.inputs)):
                if ("C", k, op) in program:
                    longer[("C", k, op)] = -chains.seconds[op]
        if carried:
            factor = self._scale
            program.at_most({key: f * factor for key, f in {**carried, **longer}.items()}, time * factor)

    def _order(self, program: Program, k: int, cut: int, end: int) -> None:
        """What runs after a cut, and what is kept at the next one, was kept at this one or made since."""
        chains = self._chains
        read = {v for op in range(cut + 1, end + 1) for v in chains.inputs[op]}
        for v in sorted(read & self._large):
            if chains.producer[v] <= cut:
                program.at_least(self._sources(program, k, v), 1.0)
        for op in range(end):
            if ("C", k, op) in program:
                self._need(program, k, chains.inputs[op], ("C", k, op), cut, end)
        for v in self._transient:
            if ("P", k + 1, v) in program:
                self._need(program, k, (v,), ("P", k + 1, v), cut, end)

    def _need(self, program: Program, k: int, storages: Iterable[int], key: Key, cut: int, end: int) -> None:
        """Where a variable is 1, these storages are there between two cuts."""
        for v in storages:
            if v in self._large and not cut < self._chains.producer[v] <= end:
                program.at_least({**self._sources(program, k, v), key: -1.0}, 0.0)

    def _sources(self, program: Program, k: int, v: int) -> Terms:
        keys: tuple[Key, ...] = (("P", k, v), ("C", k, self._chains.producer[v]), ("F", k, v))
        return {key: 1.0 for key in keys if key in program}

    def _retained(self, cuts: Sequence[int], values: Terms) -> Iterator[int]:
        for v in self._transient:
            after = (k for k, cut in enumerate(cuts) if cut > self._chains.last[v])
            if any(values.get(("P", k, v), 0.0) > 0.5 for k in after):
                yield v

    def _forced(self, cuts: Sequence[int], values: Terms) -> Iterator[DecisionKey]:
        """Idle spans over a cut at which the storage is not kept, and how it comes back for the use after it."""
        chains = self._chains
        for v in self._transient:
            if chains.acted_from[v] == len(chains.seconds):
                continue
            away = [k for k in range(len(cuts)) if values.get(("P", k, v), 1.0) < 0.5]
            for after, before in pairwise(sorted({chains.producer[v], *chains.uses[v]})):
                over = [k for k in away if after < cuts[k] < before]
                if over:
                    read = any(values.get(("F", k, v), 0.0) > 0.5 for k in over)
                    yield v, after, "swap" if read else "recompute"
