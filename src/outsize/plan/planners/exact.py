"""The oracle: a mixed-integer program over small steps.

Checkmate's frontier-advancing formulation (Jain et al. 2020), with a tier: stage t runs op t and, before it, whichever
earlier ops are made again. C[t, i]: op i runs in stage t. P[t, v]: storage v is on the device between the stages t and
t + 1. F[t, v]: a read of v is issued in stage t. Transfers are fluid: the seconds of a write are spread over the
stages before the bytes leave, those of a read over the stages from its issue to its use, and each stage lasts as long
as the longest of its three lanes. Memory is held at every op of every stage.

Everything that a real schedule must do is a constraint; that transfers cannot be cut into pieces is not. So the
optimum is a lower bound on the seconds of any plan by swap and recompute, and `exact` reads a plan out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...errors import BudgetError, PlanError
from ...values import Decision
from ..milp import BUDGET_PARTS, Key, Program, Terms
from ..model import Model
from ..search.problem import Problem, Scored
from ..search.search import fastest


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the program proves.

    Attributes:
        seconds: no plan by swap and recompute is faster.
        proved: the program was solved to its gap; else `seconds` is the solver's bound at the time limit.
        feasible: False where no plan fits the budget.
        decisions: a plan read out of the optimum, swaps for their whole spans.
    """

    seconds: float
    proved: bool
    feasible: bool
    decisions: tuple[Decision, ...] = ()


def plan_exact(model: Model) -> list[Decision]:
    """The optimum's plan, or the search's where that one is as fast.

    Raises:
        BudgetError: nothing fits, with the smallest budget that does.
        PlanError: the step is too large for an exact answer.
    """
    problem = Problem.of(model)
    bound = lower_bound(problem)
    read = problem.placed(bound.decisions) if bound.decisions else None
    try:
        best = fastest(problem)
    except BudgetError:
        if read is None:
            raise
        best = read  # no pass found a way, and the program did
    return _explained(read if read is not None and read.seconds < best.seconds else best, bound)


def _explained(best: Scored, bound: Bound) -> list[Decision]:
    return [replace(d, reason=_reason(best, bound)) for d in best.decisions]


def _reason(best: Scored, bound: Bound) -> str:
    proof = "optimum" if bound.proved else "bound"
    return f"plan {best.seconds:.6g} s, {proof} of the relaxation {bound.seconds:.6g} s"


def lower_bound(problem: Problem) -> Bound:
    """Solve the program.

    Raises:
        PlanError: more ops than `PlanSettings.exact_ops`.
    """
    settings, ops = problem.model.settings, problem.ops
    if ops > settings.exact_ops:
        raise PlanError(f"`exact` takes at most {settings.exact_ops} ops, the step has {ops}: use `search`")
    return _Stages(problem).solve(settings.exact_seconds)


class _Stages:
    """Builds the program of one step.

    Besides C, P and F: T[t] seconds of a stage; W and R seconds of a write and a read in a stage, in front of the op
    ("Wb", "Rb": nothing of the op may run before they end) or beside it ("Wd", "Rd").
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.chains = problem, problem.chains
        self.program = Program()
        chains, self.count = self.chains, len(self.chains.inputs)
        self.transient = sorted({s for made in chains.outputs for s in made})
        self.reach = chains.reach if problem.recompute else chains.last
        self.link = problem.model.profile.links.get(problem.tier)
        # HiGHS holds rows to 1e-6: seconds are counted in thousandths of the step, bytes in parts of the budget.
        self.second = 1000.0 / max(problem.plain_seconds, 1e-12)
        self.byte = BUDGET_PARTS / problem.target
        self.seconds = [s * self.second for s in chains.seconds]
        self.size = [b * self.byte for b in chains.size]

    def solve(self, time_limit: float) -> Bound:
        for t in range(self.count):
            self._variables(t)
        for t in range(self.count):
            self._order(t)
            self._memory(t)
            self._time(t)
        if self.link is not None:
            self._transfers()
        answer = self.program.solve(time_limit)
        if answer is None:
            return Bound(seconds=float("inf"), proved=True, feasible=False)
        return Bound(
            seconds=max(answer.bound / self.second, self.problem.plain_seconds),
            proved=answer.proved,
            feasible=True,
            decisions=tuple(self._read(answer.values)) if answer.values is not None else (),
        )

    def _variables(self, t: int) -> None:
        chains, program = self.chains, self.program
        program.add(("T", t), low=self.seconds[t], cost=1.0)
        for v in self.transient:
            made = chains.producer[v]
            if made <= t < self.reach[v]:
                kept = float(t < chains.acted_from[v] < len(chains.seconds))
                program.add(("P", t, v), low=kept, high=1.0, whole=True)
            if self.link is not None and max(made, chains.acted_from[v]) < t <= self.reach[v]:
                program.add(("F", t, v), high=1.0, whole=True)
                for transfer in ("Wb", "Wd", "Rb", "Rd"):
                    program.add((transfer, t, v))
        if self.problem.recompute:
            for i in range(t):
                if chains.repeats[i] and any(self.reach[v] >= t for v in chains.outputs[i]):
                    program.add(("C", t, i), high=1.0, whole=True)

    def _sources(self, t: int, v: int, *, before: int) -> Terms:
        """Ways in which v can be there when op `before` runs in stage t."""
        producer = self.chains.producer[v]
        keys: list[Key] = [("P", t - 1, v), ("F", t, v)]
        if producer < before:
            keys.append(("C", t, producer))
        return {key: 1.0 for key in keys if key in self.program}

    def _order(self, t: int) -> None:
        """What runs reads what is there; what is kept was there."""
        chains, program = self.chains, self.program
        for i in range(t + 1):
            if i < t and ("C", t, i) not in program:
                continue
            for v in chains.inputs[i]:
                terms = self._sources(t, v, before=i)
                if i == t:
                    program.at_least(terms, 1.0)
                else:
                    program.at_least({**terms, ("C", t, i): -1.0}, 0.0)
        for v in self.transient:
            if chains.producer[v] != t and ("P", t, v) in program:
                terms = self._sources(t, v, before=t)
                program.at_least({**terms, ("P", t, v): -1.0}, 0.0)

    def _memory(self, t: int) -> None:
        chains, program = self.chains, self.program
        touched = {*chains.inputs[t], *chains.outputs[t]}
        own = (chains.fixed[t] + chains.workspace[t]) * self.byte + sum(self.size[v] for v in touched)
        kept: Terms = {("P", t, v): self.size[v] for v in self.transient if v not in touched}
        program.at_most({k: b for k, b in kept.items() if k in program}, BUDGET_PARTS - own)
        group = [i for i in range(t) if ("C", t, i) in program]
        for i in group:
            self._memory_of_rerun(t, i, group, BUDGET_PARTS - chains.fixed[t - 1] * self.byte)

    def _memory_of_rerun(self, t: int, i: int, group: list[int], room: float) -> None:
        """While op i runs again: its own bytes, what stays through the stage, what later reruns wait for."""
        chains, program = self.chains, self.program
        touched = {*chains.inputs[i], *chains.outputs[i]}
        own = sum(self.size[v] for v in touched) + (chains.workspace[i] + chains.second_copies[i]) * self.byte
        terms: Terms = {("C", t, i): own}
        for v in self.transient:
            if v in touched or (("P", t - 1, v) not in program and chains.producer[v] not in group):
                continue
            key = ("U", t, i, v)
            bounds = self._presence(t, i, v, group)
            if not bounds:
                continue
            program.add(key, high=1.0)
            for present, constant in bounds:
                program.at_least({key: 1.0, **{k: -c for k, c in present.items()}}, constant)
            terms[key] = self.size[v]
        program.at_most(terms, room)

    def _presence(self, t: int, i: int, v: int, group: list[int]) -> list[tuple[Terms, float]]:
        """Lower bounds (terms, constant) on v being there while op i runs again in stage t."""
        chains, program = self.chains, self.program
        bounds: list[tuple[Terms, float]] = []
        carried, kept, made = ("P", t - 1, v), ("P", t, v), ("C", t, chains.producer[v])
        here = [k for k in (carried, made) if k in program and (k is carried or chains.producer[v] < i)]
        for source in here:
            if v in chains.inputs[t]:
                bounds.append(({source: 1.0}, 0.0))
            elif kept in program:
                bounds.append(({source: 1.0, kept: 1.0}, -1.0))
            for j in group:
                if j > i and v in chains.inputs[j]:
                    bounds.append(({source: 1.0, ("C", t, j): 1.0}, -1.0))
        return bounds

    def _time(self, t: int) -> None:
        program = self.program
        again: Terms = {("C", t, i): -self.seconds[i] for i in range(t) if ("C", t, i) in program}
        program.at_least({("T", t): 1.0, **again}, self.seconds[t])
        if self.link is None:
            return
        for lane in (("Wb", "Wd", "Rb", "Rd"),) if self.link.shared else (("Wb", "Wd"), ("Rb", "Rd")):
            work: Terms = {(kind, t, v): -1.0 for kind in lane for v in self.transient}
            work = {key: factor for key, factor in work.items() if key in program}
            program.at_least({("T", t): 1.0, **work}, 0.0)
            front = {key: factor for key, factor in work.items() if key[0] in ("Wb", "Rb")}
            program.at_least({("T", t): 1.0, **front}, self.seconds[t])

    def _transfers(self) -> None:
        """A write has ended when the bytes leave for good; a read between its issue and the use after it."""
        chains, program = self.chains, self.program
        assert self.link is not None
        for v in self.transient:
            if chains.acted_from[v] == len(chains.seconds):
                continue
            out = self.link.out_seconds(chains.size[v]) * self.second
            back = self.link.in_seconds(chains.size[v]) * self.second
            first = chains.producer[v] + 1
            for t in range(first, self.reach[v] + 1):
                use = next((u for u in chains.uses[v] if u >= t), self.reach[v])
                read: Terms = {("Rb", k, v): 1.0 for k in range(t, use + 1)}
                read |= {("Rd", k, v): 1.0 for k in range(t, use)}
                program.at_least({**read, ("F", t, v): -back}, 0.0)
                if v not in self.problem.model.mutated:
                    self._written(t, v, use, out)

    def _written(self, t: int, v: int, use: int, out: float) -> None:
        """Bytes that are away while op t runs, and come back by a read, have been written before it."""
        program, first = self.program, self.chains.producer[v] + 1
        written: Terms = {("Wb", k, v): 1.0 for k in range(first, t + 1)}
        written |= {("Wd", k, v): 1.0 for k in range(first, t)}
        later: Terms = {("F", k, v): -out for k in range(t + 1, use + 1) if ("F", k, v) in program}
        kept: Terms = {("P", t, v): out} if ("P", t, v) in program else {}
        if later and v not in self.chains.inputs[t]:
            program.at_least({**written, **later, **kept}, 0.0)
        program.at_least({**written, ("F", t, v): -out}, 0.0)

    def _read(self, values: Terms) -> list[Decision]:
        """Decisions of the optimum: each stretch in which a storage is away and wanted again."""
        on = {key for key, value in values.items() if key[0] in ("C", "P", "F") and value > 0.5}
        chains, decisions = self.chains, []
        for v in self.transient:
            after, away = chains.producer[v], False
            for t in range(chains.producer[v] + 1, self.reach[v] + 1):
                carried, read_again = ("P", t - 1, v) in on, v in chains.inputs[t]
                group = [i for i in range(t) if ("C", t, i) in on]
                used = read_again or (any(v in chains.inputs[i] for i in group))
                away = not carried
                comes_back = away and (read_again or ("P", t, v) in on or (used and ("F", t, v) in on))
                if comes_back and chains.acted_from[v] < len(chains.seconds):
                    decisions.append(self._decision(v, after, t, group, by_read=("F", t, v) in on))
                if (used and carried) or comes_back:
                    after = t
        return [d for d in decisions if d.before > d.after + (d.action == "swap")]

    def _decision(self, v: int, after: int, t: int, group: list[int], *, by_read: bool) -> Decision:
        return Decision(
            storage=v,
            action="swap" if by_read else "recompute",
            after=after,
            before=t,
            free_before=after + 1,
            fetch_before=t,
            tier=self.problem.tier if by_read else "",
            region=() if by_read else tuple(group),
            seconds=0.0 if by_read else float(np.sum([self.chains.seconds[i] for i in group])),
        )
