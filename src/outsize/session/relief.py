"""How a step that nobody has planned stays under the budget: what autograd has saved gives way as it goes.

An observed step, and one that takes another path than its plan's, tells of each operator, each tensor that is saved and
each node of the backward. Where the bytes alive come near the budget then, what was saved longest ago is written to a
tier: it is wanted last. A plan may be forbidden to swap (`actions=`), and a step without a plan has nothing else to give:
so a tier of its own is made for it, when it first needs one, where the machine has room for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from ..errors import BudgetError, TierError
from ..runtime.tiers import Tier
from ..units import format_bytes
from .eager import EagerRound
from .meter import pause_all, resume
from .paths import Paths

__all__ = ["Relief"]

#: Share of the budget that is kept free for what a backward will take while no path is known.
UNKNOWN_RESERVE = 0.4


@final
class Relief:
    """Of one module.

    Args:
        budget_bytes: of the module.
        tiers: those of its plans.
        spare: makes a tier for steps without a plan, where its plans have none.
        strict: raise where giving way is not enough.
    """

    def __init__(
        self, budget_bytes: int, tiers: dict[str, Tier], spare: Callable[[], dict[str, Tier]], *, strict: bool
    ) -> None:
        self._budget, self._tiers, self._spare, self.strict = budget_bytes, tiers, spare, strict
        self._own: dict[str, Tier] = {}
        self._ready = False

    def tier(self) -> Tier | None:
        """Where bytes go; None where there is no place for them."""
        if not self._ready:
            self._ready = True
            paused = pause_all()  # its threads and their buffers are no step's
            try:
                if not self._tiers:
                    self._own = self._spare()
                for tier in (self._tiers or self._own).values():
                    tier.reserve(1)
            except TierError:
                self._own = {}
            finally:
                resume(paused)
        return next(iter((self._tiers or self._own).values()), None)

    def notes(self) -> list[str]:
        """For the report: what went to a tier though no plan may swap."""
        moved = sum(tier.counters().bytes_out for tier in self._own.values())
        if not moved:
            return []
        return [f"steps without a plan wrote {format_bytes(moved)} to a tier, which plans may not (actions=)"]

    def close(self) -> None:
        for tier in self._own.values():
            tier.close()
        self._own, self._tiers = {}, {}

    def room(self, under_way: EagerRound, paths: Paths) -> int:
        """Bytes that saved tensors may still take, with what an operator takes for a moment kept free."""
        beside = max((p.beside for p in paths.known), default=int(UNKNOWN_RESERVE * self._budget))
        return self._budget - under_way.now - under_way.unborn - beside

    def give_way(self, under_way: EagerRound, paths: Paths, needed: int, beside: int) -> None:
        """Make room for so many bytes.

        Args:
            beside: bytes of optimizer state that no plan counts.

        Raises:
            BudgetError: with `strict`, the step is over the budget.
        """
        short = needed - self.room(under_way, paths)
        if short > 0 and (tier := self.tier()) is not None:
            for call in under_way.calls:
                keeper = call.keeper()
                if keeper is not None and short > 0:
                    short -= keeper.make_room(short, tier)
        if self.strict:
            self._insist(under_way, beside)

    def _insist(self, under_way: EagerRound, beside: int) -> None:
        under_way.peak()
        reached = max(under_way.reached, under_way.now + under_way.unborn)
        if reached > self._budget + beside:
            raise BudgetError(
                f"a step that takes a path that was not planned for has reached {format_bytes(reached)} ({reached} "
                f"bytes), {format_bytes(reached - self._budget)} over the budget of {format_bytes(self._budget)} "
                f"({self._budget} bytes), with all that was saved given up as far as it can be: give a larger budget, "
                "or leave strict=True out to have the step run",
                smallest_feasible_bytes=reached,
            )
