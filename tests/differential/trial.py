"""One case, eager and then under many plans: the reference once, the capture once, a comparison for each plan."""

from __future__ import annotations

import contextlib
import functools
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import outsize
from outsize import asked

from ..api.training import rebudget
from .case import Case
from .compare import Comparison, Reference
from .loop import Hooks, optimizer_of, train
from .model import Model
from .observed import ObservedTrial
from .verdict import LARGE, MOST_NAMED, Outcome, Planned, judged

#: Differences from eager that are said and not mended: the order in which the gradients of several calls are added, and
#: that of sums over a gradient whose strides are not its result's.
SAID = ("adds the gradients of all uses", "copied to those, so that sums over it")
#: Those are of the last bits: where a tensor first differs, this share of its largest element at most; 8 bits of a
#: bfloat16, 16 of a float32.
LAST_BITS = {torch.bfloat16: 2**-6, torch.float16: 2**-8}
LAST_BITS_OF_OTHERS = 2**-14


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """A search that looks at a tenth of what it usually does: plans get slower, and must be as right."""
    usual = asked.PlanSettings
    asked.PlanSettings = functools.partial(  # type: ignore[misc,assignment]
        usual,
        moves=30,
        move_ops=4_000,
        polished_ops=4_000,
        exchanged_ops=40_000,
        polish_tries=2,
        frontier_ops=0,
    )
    try:
        yield
    finally:
        asked.PlanSettings = usual  # type: ignore[misc]


@contextlib.contextmanager
def quick_collections() -> Iterator[None]:
    """Each plan collects garbage, which looks at every object of the process: leave those out that are there already."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Trial:
    """The eager run of a case, and a compiled module that is taken back to its beginning for every plan."""

    def __init__(self, case: Case) -> None:
        self.case, self.reference, self.invalid = case, Reference(), ""
        module, optimizer, hooks = self._made()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train(case, module, optimizer, hooks, self.reference)
        except Exception as error:
            self.invalid = f"eager: {type(error).__name__}: {str(error)[:300]}"
        else:
            self.invalid = "" if self.reference.finite else "eager: the loss is not finite"
        hooks.remove()
        self._module: nn.Module | None = None
        self._said = False

    def _made(self) -> tuple[nn.Module, torch.optim.Optimizer, Hooks]:
        module = Model(self.case)
        hooks = Hooks(self.case.loop, module)
        hooks.before()
        return module, optimizer_of(self.case, module), hooks

    def outcomes(self, plans: list[Planned]) -> Iterator[Outcome]:
        """First the plain step in our executor, unless all are observed, then a plan after the other."""
        captured = not plans or any(planned.door == "captured" for planned in plans)
        if captured:
            first = self._first()
            yield first
            captured = first.verdict in ("equal", "said", "wrong", "over", "announced")
        lows: dict[tuple[Any, ...], int] = {}
        observed: ObservedTrial | None = None
        with quick_collections():
            for planned in plans:
                if planned.door == "observed":
                    observed = observed or ObservedTrial(self.case)
                    if not observed.invalid:
                        yield observed.outcome(planned)
                    continue
                if not captured:
                    continue
                key = (planned.actions, planned.planner)
                if key not in lows:
                    lows[key] = self._smallest(planned)
                yield self._one(planned, lows[key])

    def _first(self) -> Outcome:
        outcome = self._anew(LARGE)
        self.peak = self._plain
        return outcome

    def _anew(self, budget: int, planned: Planned | None = None) -> Outcome:
        """A module of its own, compiled with this budget from the start."""
        self._module, self._optimizer, self._hooks = self._made()
        everything = [*self._module.named_parameters(), *self._module.named_buffers()]
        self._begin = [
            (name, tensor, tensor.detach().clone(), tensor.requires_grad) for name, tensor in everything
        ]
        settings = {} if planned is None else {"actions": planned.actions, "planner": planned.planner}
        outsize.compile(self._module, budget, optimizer=self._optimizer, door="captured", **settings)
        return self._run(planned, budget)

    def _smallest(self, planned: Planned) -> int:
        self._reset()
        rebudget(self._module, 1, planner=planned.planner, actions=planned.actions)
        see = Comparison(self.reference)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train(self.case, self._module, self._optimizer, self._hooks, see)
        except outsize.BudgetError as error:
            return error.smallest_feasible_bytes
        raise AssertionError(f"a budget of one byte was accepted: {self.case}")

    def _one(self, planned: Planned, low: int) -> Outcome:
        """At the plan's share; like a user who then takes the budget that an error names."""
        budget, named = int(low + planned.share * max(0, self.peak - low)), []
        while True:
            if planned.fresh:
                outcome = self._apart(planned, budget)
            else:
                self._reset()
                rebudget(self._module, budget, planner=planned.planner, actions=planned.actions)
                outcome = self._run(planned, budget)
            outcome.named = named
            if outcome.verdict != "refused" or not self._named or len(named) == MOST_NAMED:
                return outcome
            named.append(self._named)
            budget = max(budget + 1, self._named)

    def _apart(self, planned: Planned, budget: int) -> Outcome:
        """In a session of its own, which may lack the tiers of the plans to come: those go on with the one before."""
        kept = self._module, self._optimizer, self._hooks, self._begin
        outcome = self._anew(budget, planned)
        self._hooks.remove()
        self._module, self._optimizer, self._hooks, self._begin = kept
        return outcome

    def _reset(self) -> None:
        """The module, its hooks and its optimizer as they were made."""
        assert self._module is not None
        self._hooks.remove()
        self._hooks.features.clear()
        self._hooks.seen.clear()
        self._hooks.before()
        with torch.no_grad():
            for name, tensor, value, requires in self._begin:
                owner, _, leaf = name.rpartition(".")
                if getattr(self._module.get_submodule(owner), leaf) is not tensor:
                    setattr(self._module.get_submodule(owner), leaf, tensor)
                tensor.requires_grad_(requires).copy_(value)
                tensor.grad = None
        self._optimizer.state.clear()
        self._module.train()

    def _run(self, planned: Planned | None, budget: int) -> Outcome:
        assert self._module is not None
        see, self._peak, self._plain = Comparison(self.reference), 0, 0
        module = self._module

        def watched(name: str, value: Any) -> None:
            see(name, value)
            if name.endswith("random"):
                report = outsize.report(module, timelines=False)
                self._peak = max(self._peak, report.measured_peak_bytes)
                self._plain = max(self._plain, report.plain_peak_bytes)

        outcome, warned, self._named = judged(
            planned, lambda: train(self.case, module, self._optimizer, self._hooks, watched)
        )
        # A session says a thing once, however often it is planned anew.
        self._said |= any(kind in text for kind in SAID for text in outcome.warned)
        if outcome.verdict != "equal":
            # What ran until then must be right all the same.
            if see.differing and not self._is_said(see):
                outcome.verdict, outcome.detail = "wrong", f"{see.told()}; then {outcome.detail}"
            return outcome
        outcome.acted = tuple(sorted({d.action for d in outsize.report(module, timelines=False).decisions}))
        if told := see.told():
            outcome.verdict, outcome.detail = "said" if self._is_said(see) else "wrong", told
        elif self._peak > budget:
            announced = any(issubclass(w.category, outsize.errors.BudgetWarning) for w in warned)
            outcome.verdict = "announced" if announced else "over"
            outcome.detail = f"{self._peak} bytes, {self._peak / budget - 1:.2%} over"
        return outcome

    def _is_said(self, see: Comparison) -> bool:
        """Whether what differs is of a kind that a warning has told of."""
        return self._said and not see.missing and see.first_off(LAST_BITS, LAST_BITS_OF_OTHERS)
