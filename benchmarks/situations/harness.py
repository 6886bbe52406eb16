"""Train a situation as its user does, eager and then under plans, and say what came out.

A situation makes modules with their optimizers and a step. Each module is planned under a budget of its own; the others
of the same situation get one that they cannot miss. Everything that a user could look at after a step is compared with
the eager run, to the bit.
"""

from __future__ import annotations

import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.differential.compare import Comparison, Reference
from tests.differential.trial import LAST_BITS, LAST_BITS_OF_OTHERS, SAID, quick_collections

import outsize

LARGE = 2**40
#: Actions, and shares of the way from the smallest budget that is named to the plain peak.
PLANS = tuple(
    (actions, share)
    for actions in (("swap", "recompute", "encode"), ("recompute",), ("swap",))
    for share in (0.0, 0.2, 0.6)
)
#: Budgets taken from errors before a plan counts as refused.
MOST_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a situation trains: modules, the optimizer of each, and a step that returns its loss."""

    modules: tuple[nn.Module, ...]
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: Callable[[int], Any]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A function that makes it, the report that it is after, and whether eager may use oneDNN to be comparable."""

    name: str
    public: str
    make: Callable[[], Made]
    steps: int
    onednn: bool


#: All situations by name, in the order in which their files enter them.
SITUATIONS: dict[str, Situation] = {}


def situation(
    public: str, *, steps: int = 3, onednn: bool = True
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Enter a function that makes a situation; `public` is repository and thread."""

    def enter(make: Callable[[], Made]) -> Callable[[], Made]:
        name = make.__name__
        assert name not in SITUATIONS, name
        SITUATIONS[name] = Situation(name=name, public=public, make=make, steps=steps, onednn=onednn)
        return make

    return enter


def one(
    module: nn.Module,
    compute: Callable[[nn.Module, int], Tensor],
    optimizer: torch.optim.Optimizer | None = None,
) -> Made:
    """One module in the usual loop: zero_grad, loss, backward, step."""
    optimizer = optimizer or torch.optim.SGD(
        (p for p in module.parameters() if p.requires_grad), 0.05, momentum=0.9
    )

    def step(i: int) -> Tensor:
        optimizer.zero_grad()
        loss = compute(module, i)
        loss.backward()
        optimizer.step()
        return loss

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


@dataclass
class Found:
    """What one run of a situation showed, beside an eager one.

    Attributes:
        verdict: equal; refused (an error that a user can act upon); said (other last bits, of a kind that a warning
            tells of); wrong (other bits); over (its budget); broken (an error that nobody should see).
        line: whether a refusal names the file of the situation, for a user his own.
        named: budgets that errors named before one worked.
    """

    verdict: str
    actions: tuple[str, ...] = ()
    share: float = 1.0
    module: int = 0
    detail: str = ""
    line: bool = False
    acted: list[str] = field(default_factory=list)
    named: int = 0
    warned: list[str] = field(default_factory=list)


def _seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)


class _Run:
    """One run: made anew, compiled as asked, trained, everything told to `see`."""

    def __init__(
        self, what: Situation, see: Callable[[str, Any], None], budgets: tuple[int, ...] = (), **settings: Any
    ):
        self.what, self.see, self.peaks, self.plains = what, see, [0] * len(budgets), [0] * len(budgets)
        _seed(0)
        self.made = what.make()
        for budget, module, optimizer in zip(budgets, self.made.modules, self.made.optimizers):
            outsize.compile(module, budget, optimizer=optimizer, door="captured", **settings)
        _seed(1)
        with torch.backends.mkldnn.flags(enabled=what.onednn):
            for i in range(what.steps):
                loss = self.made.step(i)
                self._tell(i, loss)
                del loss
                self._measure(bool(budgets))

    def _measure(self, planned: bool) -> None:
        for k, module in enumerate(self.made.modules if planned else ()):
            report = outsize.report(module, timelines=False)
            self.peaks[k] = max(self.peaks[k], report.measured_peak_bytes)
            self.plains[k] = max(self.plains[k], report.plain_peak_bytes)

    def _tell(self, i: int, result: Any) -> None:
        results = result if isinstance(result, dict) else {"loss": result}
        for name, value in results.items():
            self.see(f"step {i} {name}", value.detach() if isinstance(value, Tensor) else value)
        for k, (module, optimizer) in enumerate(zip(self.made.modules, self.made.optimizers)):
            for name, parameter in module.named_parameters():
                self.see(f"step {i} module {k} parameter {name}", parameter.detach())
                self.see(f"step {i} module {k} gradient of {name}", parameter.grad)
                for key, value in optimizer.state.get(parameter, {}).items():
                    self.see(f"step {i} module {k} {key} of {name}", value)
            for name, buffer in module.named_buffers():
                self.see(f"step {i} module {k} buffer {name}", buffer)
        self.see(f"step {i} random state", torch.get_rng_state())
        self.see(f"step {i} Python's random state", random.getstate())


def tried(what: Situation, plans: tuple[tuple[tuple[str, ...], float], ...] = PLANS) -> Iterator[Found]:
    """The situation without a budget to keep, then module by module under each plan."""
    reference = Reference()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = len(_Run(what, reference).made.modules)
    assert reference.kept
    first, run = _attempt(what, reference, (LARGE,) * count)
    yield first
    if run is None:
        return
    with quick_collections():
        yield from _all_planned(what, reference, plans, run.plains)


def _all_planned(
    what: Situation, reference: Reference, plans: tuple[tuple[tuple[str, ...], float], ...], plains: list[int]
) -> Iterator[Found]:
    count = len(plains)
    for k in range(count):
        lows: dict[tuple[str, ...], int] = {}
        for actions, share in plans:
            if actions not in lows:
                lows[actions] = _smallest(what, k, count, actions)
            if lows[actions]:
                budget = int(lows[actions] + share * max(0, plains[k] - lows[actions]))
                yield _planned(what, reference, k, count, budget, actions, share)


def _budgets(k: int, count: int, budget: int) -> tuple[int, ...]:
    return tuple(budget if i == k else LARGE for i in range(count))


def _smallest(what: Situation, k: int, count: int, actions: tuple[str, ...]) -> int:
    """The smallest budget that the error names; 0 where one byte was accepted, as nothing was planned."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _Run(what, lambda name, value: None, _budgets(k, count, 1), actions=actions)
    except outsize.BudgetError as error:
        return error.smallest_feasible_bytes
    return 0


def _planned(
    what: Situation,
    reference: Reference,
    k: int,
    count: int,
    budget: int,
    actions: tuple[str, ...],
    share: float,
) -> Found:
    """Like a user who, where the budget is refused, takes the one that the error names."""
    named = 0
    while True:
        found, _ = _attempt(what, reference, _budgets(k, count, budget), actions=actions)
        found.actions, found.share, found.module, found.named = actions, share, k, named
        if found.verdict != "refused" or not _named or named == MOST_NAMED:
            return found
        named, budget = named + 1, max(budget + 1, _named)


_named = 0


def _attempt(
    what: Situation, reference: Reference, budgets: tuple[int, ...], **settings: Any
) -> tuple[Found, _Run | None]:
    global _named
    see, found, run, _named = Comparison(reference), Found(verdict="equal"), None, 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            run = _Run(what, see, budgets, **settings)
        except (outsize.errors.PlanError, outsize.errors.RewriteError) as error:
            found.verdict, found.detail = "broken", f"{type(error).__name__}: {error}"
        except outsize.OutsizeError as error:
            found.verdict, found.detail = "refused", f"{type(error).__name__}: {error}"
            found.line = Path(sys.modules[what.make.__module__].__file__ or "").name in str(error)
            _named = getattr(error, "smallest_feasible_bytes", 0)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found.verdict = "broken"
            found.detail = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    found.warned = [str(w.message) for w in warned]
    if run is None:
        if see.differing:
            found.verdict, found.detail = "wrong", f"{see.told()}; then {found.detail}"
        return found, None
    found.acted = sorted(
        {d.action for m in run.made.modules for d in outsize.report(m, timelines=False).decisions}
    )
    over = [(p, b) for p, b in zip(run.peaks, budgets) if p > b]
    if told := see.told():
        warned_of = any(kind in text for kind in SAID for text in found.warned)
        last_bits = not see.missing and see.first_off(LAST_BITS, LAST_BITS_OF_OTHERS)
        found.verdict, found.detail = "said" if warned_of and last_bits else "wrong", told
    elif over:
        found.verdict, found.detail = "over", "; ".join(f"{p} bytes of {b}" for p, b in over)
    return found, run


def as_json(found: Found) -> dict[str, Any]:
    return asdict(found)
