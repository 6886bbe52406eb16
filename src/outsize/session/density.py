"""How dense a step's storages are from step to step, and when a plan made for other densities is worth replacing.

The bytes of an encoded storage follow from its share of nonzeros, its density, which moves as training goes on. To
encode is to count, so each step tells the density of what it encodes; what it does not encode is sampled now and then.
A plan reserves bytes for the densest of the latest steps and a margin.

Two things make another plan worth its time: a storage that was denser than that and went to a tier, or enough bytes
reserved in vain. A plan takes seconds, so the pause before the next one made for densities doubles with each: n steps
see log2(n) of them at most until the pause is at its longest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from ..codecs import DensityMeter
from ..measure import ASSUMED_DENSITY, DENSITY_MARGIN
from ..values import Plan, StepGraph

__all__ = ["DensityWatch"]

#: Steps from one sample of what is not encoded to the next. A sample takes 0.45 ms with cold caches, so 50 of them
#: (ResNet-50 has 49 ReLUs) come to 0.7 ms a step.
SAMPLED_EVERY = 32
#: Most steps between two plans made for densities. A plan of 2,489 ops takes 2.5 s (benchmarks/plan-time), as long as one
#: or two steps of that size, so less than 1 % of the time.
LONGEST_PAUSE = 256


@final
class DensityWatch:
    """Follows the densities of one captured step.

    Args:
        graph: the step.
        meter: what all steps of the module showed, by the name of the storage: a step of another shape starts from it.
    """

    def __init__(self, graph: StepGraph, meter: DensityMeter) -> None:
        self._storages, self._meter = graph.storages, meter
        self._planned: dict[int, float] = {}
        self._extra: dict[int, float] = {}
        self._refused: dict[int, float] = {}
        self._overflowed: set[int] = set()
        self._steps = self._plans = 0
        self._overflows = self._overflowed_steps = self._all_steps = 0
        self._densest = ""

    @property
    def sampling(self) -> bool:
        """Whether the next step samples what it does not encode."""
        return self._steps % SAMPLED_EVERY == 0

    def expected(self) -> dict[int, float]:
        """Storage → density to plan for, the plan's own margin left out; what nobody saw is missing."""
        seen = ((s.index, self._meter.planned(s.name)) for s in self._storages if s.zeros)
        return {i: min(1.0, d + self._extra.get(i, 0.0)) for i, d in seen if d is not None}

    def saw(self, densities: Mapping[int, float], overflowed: list[int]) -> None:
        """A step has run: what it showed, and which storages were denser than planned."""
        for storage, density in densities.items():
            self._meter.observe(self._storages[storage].name, density)
        self._steps += 1
        self._all_steps += 1
        if overflowed:
            self._overflowed |= set(overflowed)
            self._overflows += len(overflowed)
            self._overflowed_steps += 1
            worst = max(overflowed, key=lambda s: densities[s] - self._reserved(s))
            self._densest = (
                f"{self._storages[worst].name} was {densities[worst]:.3f} dense, "
                f"with room for {self._reserved(worst):.3f}"
            )

    def _reserved(self, storage: int) -> float:
        known = self._planned.get(storage)
        return ASSUMED_DENSITY if known is None else min(1.0, known + DENSITY_MARGIN)

    def planned(self) -> None:
        """A plan was made with the densities expected now."""
        self._planned, self._steps = self.expected(), 0
        self._overflowed.clear()
        self._refused.clear()

    def refused(self) -> bool:
        """No plan fits the densities expected now. Whether they may be tried without their wider margins."""
        if self._extra:
            self._extra.clear()
            return True
        self._refused = self.expected()
        return False

    def reason(self, plan: Plan, worth: int) -> str:
        """Why the plan in force should be made again, "" if it should not.

        Args:
            worth: bytes that must come free.
        """
        if self._steps < min(2**self._plans, LONGEST_PAUSE) or not plan.decisions:
            return ""
        found = self._found(plan, worth)
        if found:
            self._plans, self._steps = self._plans + 1, 0
            self._widen()
        return found

    def _found(self, plan: Plan, worth: int) -> str:
        masked = {d.storage for d in plan.decisions if d.codec == "mask"}
        before = self._refused or {i: d for i, d in self._planned.items() if i not in masked}
        if not self._planned and not self._refused and self.expected():
            return "planned again with the densities of the first step"
        if self._overflowed and not self._refused:
            return f"planned again for {len(self._overflowed)} storages that were denser than planned"
        free = self._fallen(before)
        return f"planned again for {free} bytes that are zeros by now" if free >= worth else ""

    def _fallen(self, before: Mapping[int, float]) -> int:
        """Bytes by which the storages are expected to be smaller than with the densities `before`."""
        now = self.expected()
        falls = ((i, d - now.get(i, d)) for i, d in before.items())
        return sum(int(fall * self._storages[i].nbytes) for i, fall in falls if fall > 0)

    def _widen(self) -> None:
        """Until the next plan twice as many steps may pass as since the last: what rose may rise twice as far."""
        before, now = self._planned, self.expected()
        extra = {i: e / 2 for i, e in self._extra.items() if e > DENSITY_MARGIN}
        for i in self._overflowed & before.keys():
            extra[i] = max(DENSITY_MARGIN, 2 * (now[i] - before[i]))
        self._extra = extra
        self._overflowed.clear()

    def notes(self) -> tuple[str, ...]:
        """For the report: storages that went to a tier because they were denser than planned."""
        if not self._overflows:
            return ()
        encodings = "1 encoding" if self._overflows == 1 else f"{self._overflows} encodings"
        return (
            f"{encodings} in {self._overflowed_steps} of {self._all_steps} steps, denser than planned, went to a tier "
            f"(the latest: {self._densest})",
        )
