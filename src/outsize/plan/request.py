"""What a planner may use."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import BudgetError, DiskBudgetError, HostBudgetError, PlanError
from ..units import format_bytes
from .model import Model


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a planner may use.

    Attributes:
        actions: of `swap`, `recompute`, `encode`.
        tiers: swap tiers in order of preference.
        lossy: codecs that may lose bits, with their declared bound.
        limits: most bytes held in a tier at any moment, by tier.
    """

    actions: tuple[str, ...]
    tiers: tuple[str, ...]
    lossy: dict[str, float]
    limits: dict[str, int] = field(default_factory=dict)

    def hold(self, peaks: dict[str, int]) -> None:
        """Hold what the tiers would have to keep against their limits.

        Raises:
            HostBudgetError, DiskBudgetError: a tier would hold more.
        """
        for tier, limit in self.limits.items():
            if peaks.get(tier, 0) > limit:
                raise tier_error(tier, limit, peaks[tier])

    def tier(self, model: Model) -> str:
        """The preferred tier.

        Raises:
            PlanError: swapping is not allowed, or the tier has no rate.
        """
        if "swap" not in self.actions:
            raise PlanError(f"the planner only swaps, but the actions allowed are {', '.join(self.actions)}")
        if not self.tiers or self.tiers[0] not in model.profile.links:
            asked = repr(self.tiers[0]) if self.tiers else "no tier at all"
            raise PlanError(f"no rate for tier {asked}; the profile has {sorted(model.profile.links)}")
        return self.tiers[0]


def tier_error(tier: str, limit: int, needed: int) -> BudgetError:
    """A tier would have to hold more than it may; `smallest_feasible_bytes` is what it needs."""
    kind = HostBudgetError if tier == "host" else DiskBudgetError
    return kind(
        f"the {tier} budget is {format_bytes(limit)} ({limit} bytes), but the plan that fits the device needs "
        f"{format_bytes(needed)} ({needed} bytes) there; raise it, raise the device budget, or allow recompute",
        smallest_feasible_bytes=needed,
    )
