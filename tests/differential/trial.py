"""One case, eager and then under many plans: the reference once, the capture once, a comparison for each plan."""

from __future__ import annotations

import contextlib
import functools
import gc
import random
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import outsize
from outsize import decide

from ..api.training import rebudget
from .case import Case
from .compare import Comparison, Reference
from .loop import Hooks, optimizer_of, train
from .model import Model

#: Every subset of the actions, those with several more often.
ACTIONS = (
    ("swap",), ("recompute",), ("encode",), ("swap", "recompute"), ("swap", "encode"), ("recompute", "encode"),
    ("swap", "recompute", "encode"), ("swap", "recompute", "encode"),
)  # fmt: skip
#: Shares of the way from the smallest budget that is named to the plain peak.
SHARES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9)
LARGE = 2**40
#: Budgets taken from errors before a case counts as refused.
MOST_NAMED = 4
#: Differences from eager that are said and not mended: the order in which the gradients of several calls are added, and
#: that of sums over a gradient whose strides are not its result's.
SAID = ("adds the gradients of all uses", "copied to those, so that sums over it")
#: Those are of the last bits: where a tensor first differs, this share of its largest element at most; 8 bits of a
#: bfloat16, 16 of a float32.
LAST_BITS = {torch.bfloat16: 2**-6, torch.float16: 2**-8}
LAST_BITS_OF_OTHERS = 2**-14
#: Errors that say that the product, not the user, did something wrong.
DEFECTS = (outsize.errors.PlanError, outsize.errors.RewriteError)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """How a case is planned: with which actions, how tight, by which planner, in a session of its own or a used one."""

    actions: tuple[str, ...]
    share: float
    planner: str = "search"
    fresh: bool = False

    def __str__(self) -> str:
        return (
            f"{'+'.join(self.actions)} at {self.share:g} by {self.planner}{', fresh' if self.fresh else ''}"
        )


@dataclass(kw_only=True)
class Outcome:
    """What a comparison found.

    Attributes:
        verdict: equal, refused (an error that the user can act upon), said (other last bits, of a kind that a warning
            tells of), wrong (other bits), over (the budget), announced (over it with a warning, as by a loss that nobody
            has seen yet), or broken (an error that nobody should see).
        acted: kinds of decisions in the plan.
        detail: what differs, the error's message, the bytes.
        named: budgets that errors named one after the other before one worked.
    """

    verdict: str
    planned: Planned | None = None
    acted: tuple[str, ...] = ()
    detail: str = ""
    warned: list[str] = field(default_factory=list)
    named: list[int] = field(default_factory=list)


def plans_of(case: Case, number: int, fresh: float = 0.0) -> list[Planned]:
    """`number` plans of a case, its seed's own; a share of them in sessions of their own, which takes longer."""
    draw, made = random.Random(case.seed + 17), []
    for _ in range(number):
        actions = draw.choice(ACTIONS)
        planners = ["search"]
        if actions == ("swap",):
            planners = ["slack", "distance", "search"]
        elif "encode" not in actions:
            planners = ["units", "search"]
        share, planner, own = draw.choice(SHARES), draw.choice(planners), draw.random() < fresh
        made.append(Planned(actions=actions, share=share, planner=planner, fresh=own))
    return made


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """A search that looks at a tenth of what it usually does: plans get slower, and must be as right."""
    usual = decide.PlanSettings
    decide.PlanSettings = functools.partial(  # type: ignore[misc,assignment]
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
        decide.PlanSettings = usual  # type: ignore[misc]


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
        """First the plain step in our executor, then a plan after the other."""
        first = self._first()
        yield first
        if first.verdict not in ("equal", "said", "wrong", "over", "announced"):
            return
        lows: dict[tuple[Any, ...], int] = {}
        with quick_collections():
            for planned in plans:
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
        see, self._peak, self._plain, self._named = Comparison(self.reference), 0, 0, 0
        module = self._module

        def watched(name: str, value: Any) -> None:
            see(name, value)
            if name.endswith("random"):
                report = outsize.report(module, timelines=False)
                self._peak = max(self._peak, report.measured_peak_bytes)
                self._plain = max(self._plain, report.plain_peak_bytes)

        outcome = Outcome(verdict="equal", planned=planned)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                train(self.case, module, self._optimizer, self._hooks, watched)
            except DEFECTS as error:
                outcome.verdict, outcome.detail = "broken", f"{type(error).__name__}: {error}"
            except outsize.OutsizeError as error:
                outcome.verdict, outcome.detail = "refused", f"{type(error).__name__}: {error}"
                self._named = getattr(error, "smallest_feasible_bytes", 0)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                outcome.verdict = "broken"
                outcome.detail = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        outcome.warned = [str(w.message) for w in warned]
        # A session says a thing once, however often it is planned anew.
        self._said |= any(kind in text for kind in SAID for text in outcome.warned)
        if outcome.verdict != "equal":
            # What ran until then must be right all the same.
            if see.differing:
                outcome.verdict, outcome.detail = "wrong", f"{see.told()}; then {outcome.detail}"
            return outcome
        outcome.acted = tuple(sorted({d.action for d in outsize.report(module, timelines=False).decisions}))
        if told := see.told():
            said = self._said and not see.missing and see.first_off(LAST_BITS, LAST_BITS_OF_OTHERS)
            outcome.verdict, outcome.detail = "said" if said else "wrong", told
        elif self._peak > budget:
            announced = any(issubclass(w.category, outsize.errors.BudgetWarning) for w in warned)
            outcome.verdict = "announced" if announced else "over"
            outcome.detail = f"{self._peak} bytes, {self._peak / budget - 1:.2%} over"
        return outcome
