"""A case under plans for observed steps: the same eager run, longer, since the first steps of a path are only watched."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import outsize

from .case import Case
from .compare import Comparison, Reference
from .loop import Hooks, optimizer_of, train
from .model import Model
from .verdict import LARGE, MOST_NAMED, Outcome, Planned, judged

#: Steps beyond the case's own: the first two of a path are watched, and a hook that comes after the first makes another.
MORE_STEPS = 3
#: What a warning says of a step that no plan covers.
NEW_PATH = "on a path that was not planned for"


class ObservedTrial:
    """The eager run of a case, and a module of its own for every plan: nothing is captured, so that takes no time."""

    def __init__(self, case: Case) -> None:
        self.case = replace(case, loop=replace(case.loop, steps=case.loop.steps + MORE_STEPS))
        self.reference = Reference()
        #: Why there is no comparison: a loop that goes on for longer may fail in eager PyTorch.
        self.invalid = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._train(None, self.reference)
            except Exception as error:
                self.invalid = f"eager: {type(error).__name__}: {str(error)[:300]}"
        self._free: tuple[int, int] | None = None
        self._lows: dict[tuple[Any, ...], int] = {}

    def _train(self, planned: Planned | None, see: Any, budget: int = 0) -> None:
        module = Model(self.case)
        hooks = Hooks(self.case.loop, module)
        hooks.before()
        optimizer = optimizer_of(self.case, module)
        if budget:
            more = {} if planned is None else {"actions": planned.actions, "planner": planned.planner}
            outsize.compile(module, budget, optimizer=optimizer, door="observed", **more)
        self._module = module
        try:
            train(self.case, module, optimizer, hooks, see)
        finally:
            hooks.remove()

    def _range(self, planned: Planned) -> tuple[int, int]:
        """The smallest budget that an error names for this kind of plan, and the plain peak."""
        if self._free is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._train(None, Comparison(self.reference), LARGE)
            record = outsize.report(self._module, timelines=False)
            self._free = record.resident_bytes, record.plain_peak_bytes
        key = (planned.actions, planned.planner)
        if key not in self._lows:
            _, _, named = judged(planned, lambda: self._train(planned, Comparison(self.reference), 1))
            # None is named where no path recurs, so that none is planned.
            self._lows[key] = named or self._free[0]
        return self._lows[key], self._free[1]

    def outcome(self, planned: Planned) -> Outcome:
        """At the plan's share; like a user who then takes the budget that an error names."""
        low, high = self._range(planned)
        budget, named = int(low + planned.share * max(0, high - low)), []
        while True:
            outcome, next_named = self._one(planned, budget)
            outcome.named = named
            if outcome.verdict != "refused" or not next_named or len(named) == MOST_NAMED:
                return outcome
            named.append(next_named)
            budget = max(budget + 1, next_named)

    def _one(self, planned: Planned, budget: int) -> tuple[Outcome, int]:
        see, peak = Comparison(self.reference), 0

        def watched(name: str, value: Any) -> None:
            nonlocal peak
            see(name, value)
            if name.endswith("random") and not name.startswith("step 0"):
                record = outsize.report(self._module, timelines=False)
                peak = max(peak, record.measured_peak_bytes)

        outcome, warned, named = judged(planned, lambda: self._train(planned, watched, budget))
        if see.differing or (outcome.verdict == "equal" and see.missing):
            outcome.verdict, outcome.detail = "wrong", f"{see.told()}; then {outcome.detail}"
        if outcome.verdict != "equal":
            return outcome, named
        record = outsize.report(self._module, timelines=False)
        outcome.acted = tuple(sorted({d.action for d in record.decisions}))
        if peak > budget:
            said = any(
                issubclass(w.category, outsize.errors.BudgetWarning) and NEW_PATH in str(w.message)
                for w in warned
            )
            outcome.verdict = "announced" if said else "over"
            outcome.detail = f"{peak} bytes, {peak / budget - 1:.2%} over"
        return outcome, named
