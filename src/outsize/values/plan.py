"""The plan: one decision per storage and idle span, one refusal per candidate that was left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .ranges import Count, Index, Seconds

#: What each does: the table in `actions.py`. For a new one: "How to add an action" in CONTRIBUTING.md.
Action = Literal["swap", "recompute", "encode", "encode_swap"]
Reason = Literal[
    "ALIASED", "TOO_SMALL", "NO_SLACK", "RANDOM", "MUTATED", "LOSSY_FORBIDDEN",
    "NOT_NEEDED", "NOT_ALLOWED", "NO_GAIN", "DENSE", "RETAINED",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to one storage during one idle span. Positions are op positions.

    The idle span of a `state` storage wraps around the turn: it comes back (`fetch_before` to `before`), is used, and
    leaves again (`after` to `free_before`, the number of ops where that is the turn). A `parameter` storage has a
    decision for each use that it comes back for; that of its first use wraps around the turn as well.

    Attributes:
        storage: the storage acted on.
        action: what is done.
        after: the touch before the span; the reduction is inserted right after this op.
        before: the use that ends the span; the storage is whole again when this op starts.
        free_before: swap: the write has ended and the bytes are free when this op starts (serialization edge).
            Other actions free at once: `after + 1`.
        fetch_before: swap: buffer and read are issued right before this op (prefetching edge). Other actions
            restore right before op `fetch_before` (normally `before`).
        tier: swap: `disk` or `host`.
        codec: encode: its name.
        encoded_bytes: encode: bytes reserved for the encoded buffer.
        region: recompute: positions of the ops that run again, in order, right before op `fetch_before`.
        seconds: predicted cost in lane seconds (transfer, recomputation or codec time, both ways).
        reason: why, in a few words.
    """

    storage: Index
    action: Action
    after: Index
    before: Index
    free_before: Index
    fetch_before: Index
    tier: str = ""
    codec: str = ""
    encoded_bytes: Count = 0
    region: tuple[Index, ...] = ()
    seconds: Seconds = 0.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A candidate that the plan leaves alone, and why.

    Attributes:
        storage: index of the storage.
        reason: the kind of reason, a word of `Reason`; the report page says each in a sentence.
        detail: the numbers or names behind it.
    """

    storage: Index
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Decisions and what they are predicted to give.

    Attributes:
        resident_bytes: alive for the whole step; state and parameters that rest on a tier are not among them.
        state_bytes: of the optimizer's state, as far as it may rest on a tier.
        state_resting_bytes: of it, what does.
        parameter_bytes: of parameters that nobody trains, as far as they may rest on a tier.
        parameter_resting_bytes: of them, what does; each of their uses may read as much from there.
        budget_bytes: most bytes that may be alive at once.
        planner: who made it.
        decisions: what is done to which storage, and when.
        refusals: storages that are left alone.
        plain_peak_bytes: predicted peak of the step without the plan.
        predicted_peak_bytes: predicted peak with it.
        plain_step_seconds: predicted time of the step without the plan.
        predicted_step_seconds: predicted time with it.
        swapped_bytes: written to a tier in one step, and read back.
        recomputed_flops: floating-point operations that run again.
        plain_flops: those of the step without the plan.
        planning_seconds: how long the planner took.
        estimated: times come from a data sheet, not from measurements.
    """

    budget_bytes: Count
    planner: str
    decisions: tuple[Decision, ...]
    refusals: tuple[Refusal, ...]
    plain_peak_bytes: Count
    predicted_peak_bytes: Count
    plain_step_seconds: Seconds
    predicted_step_seconds: Seconds
    resident_bytes: Count
    swapped_bytes: Count = 0
    recomputed_flops: Count = 0
    plain_flops: Count = 0
    planning_seconds: Seconds = 0.0
    estimated: bool = False
    state_bytes: Count = 0
    state_resting_bytes: Count = 0
    parameter_bytes: Count = 0
    parameter_resting_bytes: Count = 0

    def to_json(self, *, indent: int | None = 2) -> str:
        """The plan as JSON text; `outsize.values.from_json(Plan, text)` reads it back.

        Args:
            indent: spaces of each level; None writes one line.

        Returns:
            the text.
        """
        from .json import to_json

        return to_json(self, indent=indent)
