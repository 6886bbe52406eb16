"""What an observed session keeps of the calls under way, and what a measured round of them teaches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch

from ..device.clock import Stopwatch
from ..errors import BudgetWarning
from ..observe import Gauge
from ..prepared import PreparedReplay
from ..runtime.keeper import Keeper
from ..units import format_bytes
from .meter import StepMeter
from .optimizers import Optimizers
from .paths import Path, Paths, Pattern
from .plans import OBJECT_SPREAD

__all__ = ["EagerCall", "EagerRound", "learn_path", "warn_over"]

#: Plans made anew because a step went over its budget.
MOST_CORRECTIONS = 4


@dataclass(kw_only=True, eq=False)
class EagerCall:
    """One forward and its backward.

    Attributes:
        keeper: of its saved tensors, alive while its graph is.
        path: that it was to follow; None where it is observed.
        made: its plan.
        under_way: the keeper, while the backward runs.
        done: it had a backward.
        followed: it took the path to the end, at sizes that were planned for.
        resident: bytes that were resident when it began.
        peaks: phase → highest bytes.
    """

    pattern: Pattern
    inputs: str
    path: Path | None = None
    made: PreparedReplay | None = None
    keeper: Callable[[], Keeper | None] = lambda: None
    under_way: Keeper | None = None
    done: bool = False
    followed: bool = False
    resident: int = 0
    peaks: dict[str, int] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether its backward may come."""
        return not self.done and self.keeper() is not None


@final
class EagerRound(Gauge):
    """The calls that share one measurement."""

    def __init__(
        self, resident: int, unborn: int, device: torch.device, counters: tuple[int, int, float]
    ) -> None:
        self.meter, self.unborn, self.counters = StepMeter(resident, device), unborn, counters
        self.time = Stopwatch(device)
        self.calls: list[EagerCall] = []
        self.phase, self.highest, self.updated = "forward", 0, False
        #: The highest, with the state that the update is yet to make.
        self.reached = 0
        self.current: EagerCall | None = None

    @property
    def now(self) -> int:
        return self.meter.now

    def peak(self) -> int:
        peak = self.meter.end()
        self.highest = max(self.highest, peak)
        self.reached = max(self.reached, peak + (self.unborn if self.phase != "update" else 0))
        for call in self.calls if self.phase == "update" else (self.current,):
            if call is not None:
                call.peaks[self.phase] = max(peak, call.peaks.get(self.phase, 0))
        return peak


def learn_path(
    call: EagerCall, under_way: EagerRound, path: Path, budget: int, optimizers: Optimizers
) -> None:
    """What a step that followed its path measured, and whether to plan the path anew."""
    peaks = {p: n + (under_way.unborn if p != "update" else 0) for p, n in call.peaks.items()}
    peak = max(peaks.values(), default=0)
    if call.made is None:
        path.unplanned = (peak, call.resident)
        return
    path.peak = max(path.peak, peak)
    limit = budget + optimizers.beside
    if not call.followed or peak <= limit or path.corrections >= MOST_CORRECTIONS:
        return
    path.corrections += 1
    foreseen = call.made.phase_peaks
    more = {p: max(0, n - foreseen.get(p, 0)) for p, n in peaks.items()}
    path.bias += max(more.get("forward", 0), more.get("backward", 0))
    if more.get("outside", 0):
        planned = call.made.profile.ops[path.step.boundary].workspace_bytes
        path.outside = planned + more["outside"] + OBJECT_SPREAD
    optimizers.learned_workspace += more.get("update", 0)
    path.stale = (
        f"a step reached {peak} bytes, over the budget of {budget}: planned again with what was measured"
    )


def warn_over(under_way: EagerRound, limit: int, paths: Paths) -> None:
    """A step went over the budget, and it was not the first: said once for a plan, and once for all paths without one."""
    worst = max((c for c in under_way.calls if c.peaks), key=lambda c: max(c.peaks.values()), default=None)
    if worst is None or (peak := max(worst.peaks.values())) <= limit:
        return
    new = "" if worst.followed else "on a path that was not planned for "
    if worst.path is not None and worst.followed:
        said, worst.path.warned = worst.path.warned, True
    else:
        said, paths.over = bool(paths.over), max(paths.over, peak - limit)
    if said:
        return
    warnings.warn(
        BudgetWarning(
            f"a step {new}reached {format_bytes(peak)} ({peak} bytes), {format_bytes(peak - limit)} over the budget of "
            f"{format_bytes(limit)} ({limit} bytes). The next step of its kind is planned with what was measured, where "
            "that leaves a plan",
            peak_bytes=peak,
            budget_bytes=limit,
        ),
        stacklevel=2,
    )
