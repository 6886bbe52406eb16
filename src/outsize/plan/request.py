"""What is asked of a plan: one value from `outsize.compile` down to each strategy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..errors import BudgetError, DiskBudgetError, HostBudgetError, PlanError
from ..units import format_bytes
from ..values.actions import ASKED_BY_DEFAULT
from .settings import PlanSettings

_DEFAULTS = PlanSettings()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a plan.

    Attributes:
        budget_bytes: peak bytes of device storages alive at any moment, residents and workspace included.
        planner: `search`, `slack`, `distance`, `units` or `exact`.
        actions: what a plan may do: words of `values.actions.ASKED`.
        tiers: where to swap, in order of preference; each has a link in the profile.
        lossy: codecs that may lose bits, with their declared elementwise bound.
        host_budget, disk_budget: most bytes held in that tier at any moment; None for any.
        settings: the planners' thresholds.
    """

    budget_bytes: int
    planner: str = "search"
    actions: tuple[str, ...] = ASKED_BY_DEFAULT
    tiers: tuple[str, ...] = ("disk",)
    lossy: Mapping[str, float] = field(default_factory=dict)
    host_budget: int | None = None
    disk_budget: int | None = None
    settings: PlanSettings = _DEFAULTS

    @property
    def limits(self) -> dict[str, int]:
        """Most bytes held in a tier, by tier, where there is a most."""
        known = (("host", self.host_budget), ("disk", self.disk_budget))
        return {tier: limit for tier, limit in known if limit is not None}

    def hold(self, peaks: dict[str, int]) -> None:
        """Hold what the tiers would have to keep against their limits.

        Raises:
            HostBudgetError, DiskBudgetError: a tier would hold more.
        """
        for tier, limit in self.limits.items():
            if peaks.get(tier, 0) > limit:
                raise tier_error(tier, limit, peaks[tier])

    def tier(self, links: Collection[str]) -> str:
        """The preferred tier, of those that have a link.

        Raises:
            PlanError: swapping is not allowed, or the tier has no rate.
        """
        if "swap" not in self.actions:
            raise PlanError(f"the planner only swaps, but the actions allowed are {', '.join(self.actions)}")
        if not self.tiers or self.tiers[0] not in links:
            asked = repr(self.tiers[0]) if self.tiers else "no tier at all"
            raise PlanError(f"no rate for tier {asked}; the profile has {sorted(links)}")
        return self.tiers[0]


def tier_error(tier: str, limit: int, needed: int) -> BudgetError:
    """A tier would have to hold more than it may; `smallest_feasible_bytes` is what it needs."""
    kind = HostBudgetError if tier == "host" else DiskBudgetError
    return kind(
        f"the {tier} budget is {format_bytes(limit)} ({limit} bytes), but the plan that fits the device needs "
        f"{format_bytes(needed)} ({needed} bytes) there; raise it, raise the device budget, or allow recompute",
        smallest_feasible_bytes=needed,
    )
