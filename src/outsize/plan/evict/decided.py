"""What a pass noted of a storage that left and came back, as a decision."""

from __future__ import annotations

from ...values import Decision
from ...values.actions import TRAVELLING
from ..chains import Chains
from .options import Option


def decided(
    chains: Chains,
    tier: str,
    *,
    storage: int,
    option: Option | None,
    after: int,
    before: int,
    restored: int,
    region: tuple[int, ...],
) -> Decision:
    """The decision of one idle span.

    Args:
        option: how it left, None for recomputation.
        restored: before which op it was back.
        region: the ops that made it again.
    """
    if option is None:
        seconds = sum(chains.seconds[op] for op in region)
    else:
        seconds = option.lane_seconds + option.compute_seconds
    return Decision(
        storage=storage,
        action=option.action if option else "recompute",
        after=after,
        before=before,
        free_before=after + 1,
        fetch_before=restored,
        tier=tier if option is not None and option.action in TRAVELLING else "",
        codec=option.codec if option else "",
        encoded_bytes=option.staged or option.kept if option else 0,
        region=region,
        seconds=seconds,
    )
