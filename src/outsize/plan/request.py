"""What a planner may use."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import PlanError
from .model import Model


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a planner may use.

    Attributes:
        actions: of `swap`, `recompute`, `encode`.
        tiers: swap tiers in order of preference.
        lossy: codecs that may lose bits, with their declared bound.
    """

    actions: tuple[str, ...]
    tiers: tuple[str, ...]
    lossy: dict[str, float]

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
