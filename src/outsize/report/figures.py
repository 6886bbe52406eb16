"""The figures of a run as label and text, in the order in which a reader asks for them. Text and page both use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..units import format_bytes, format_seconds
from ..values import Decision, Plan, RunRecord

#: What each reason of a refusal means, for readers who have not read the planner.
REASONS = {
    "ALIASED": "another storage's bytes depend on it",
    "TOO_SMALL": "fewer bytes than a transfer is worth",
    "NO_SLACK": "never idle for long enough",
    "RANDOM": "comes from a random draw that may not be repeated",
    "MUTATED": "changed in place while it would be away",
    "LOSSY_FORBIDDEN": "only a lossy codec would help, and none was allowed",
    "NOT_NEEDED": "the budget is met without it",
    "RETAINED": "kept beyond its last use, for what is made of it later",
    "NOT_ALLOWED": "the action was not among those allowed",
    "NO_GAIN": "acting on it lowers no peak",
    "DENSE": "too few zeros for the codec",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of a summary; `good` is None where nothing was promised."""

    label: str
    value: str
    note: str = ""
    good: bool | None = None


def figures(record: RunRecord) -> list[Figure]:
    """Budget and peaks, traffic, time, losses; what does not apply is left out."""
    return [*_memory(record), *_traffic(record), *_time(record), *_loss(record)]


#: From here on a budget binds nothing: the plain step under the meter.
_UNBOUNDED = 2**60


def _memory(r: RunRecord) -> list[Figure]:
    bound = r.budget_bytes < _UNBOUNDED
    rows = [
        Figure(
            label="budget",
            value=format_bytes(r.budget_bytes),
            note=_share(r.budget_bytes, r.plain_peak_bytes),
        ),
        Figure(label="peak of the plain step", value=format_bytes(r.plain_peak_bytes), note="predicted"),
        Figure(label="predicted peak", value=format_bytes(r.predicted_peak_bytes)),
        Figure(
            label="measured peak",
            value=format_bytes(r.measured_peak_bytes),
            note=_of(r.measured_peak_bytes, r.budget_bytes, "of the budget") if bound else "",
            good=r.measured_peak_bytes <= r.budget_bytes if bound else None,
        ),
        *_highest(r, bound=bound),
        Figure(label="resident bytes", value=format_bytes(r.resident_bytes), note="alive for the whole step"),
        *_at_rest(r),
    ]
    if not bound:
        rows = rows[1:2] + rows[3:]
    if r.rss_peak_bytes:
        rows.append(
            Figure(
                label="peak resident set",
                value=format_bytes(r.rss_peak_bytes),
                note="the process, interpreter included",
            )
        )
    return rows


def _at_rest(made: RunRecord | Plan) -> list[Figure]:
    """What of the optimizer's state and of the parameters rests on a tier, where some does."""
    kinds = (
        ("optimizer state at rest", made.state_resting_bytes, made.state_bytes),
        ("frozen parameters at rest", made.parameter_resting_bytes, made.parameter_bytes),
    )
    return [
        Figure(label=label, value=f"{format_bytes(rests)} on a tier", note=_of(rests, whole, "of what may"))
        for label, rests, whole in kinds
        if rests
    ]


def _highest(r: RunRecord, *, bound: bool) -> list[Figure]:
    """The peak over all plans, where it is not that of the plans in force."""
    if r.highest_peak_bytes <= r.measured_peak_bytes:
        return []
    note = "under a plan since replaced"
    if bound:
        note = f"{_of(r.highest_peak_bytes, r.budget_bytes, 'of the budget')}, {note}"
    return [
        Figure(
            label="highest peak so far",
            value=format_bytes(r.highest_peak_bytes),
            note=note,
            good=r.highest_peak_bytes <= r.budget_bytes if bound else None,
        )
    ]


def shape_rows(r: RunRecord) -> list[tuple[str, ...]]:
    """One row per shape: inputs, steps, peaks without and with the plan and as measured, time, what was decided."""
    return [
        (
            s.inputs + (f", call {s.place + 1}" if s.place else ""),
            str(s.steps),
            format_bytes(s.plain_peak_bytes),
            format_bytes(s.predicted_peak_bytes),
            format_bytes(s.measured_peak_bytes),
            format_seconds(s.predicted_step_seconds),
            decision_words(s.decisions) + (", forward runs again" if s.runs_again else ""),
        )
        for s in r.shapes
    ]


#: Heads of those rows.
SHAPE_HEADS = ("inputs", "steps", "plain", "predicted", "measured", "step", "decisions")


def decision_words(made: Sequence[Decision]) -> str:
    """How many decisions of each kind."""
    counted = Counter(action_words(d) for d in made)
    return ", ".join(f"{n} {what}" for what, n in sorted(counted.items())) or "none"


def _traffic(r: RunRecord) -> list[Figure]:
    rows = [
        Figure(label="swapped out per step", value=format_bytes(r.swapped_out_bytes)),
        Figure(label="swapped in per step", value=format_bytes(r.swapped_in_bytes)),
        Figure(label="stalled on swaps", value=format_seconds(r.stall_seconds), note="per step"),
    ]
    if r.recomputed_flops:
        rows.append(
            Figure(
                label="recomputed",
                value=f"{r.recomputed_flops / 1e9:.2f} GFLOP",
                note=_of(r.recomputed_flops, r.plain_flops, "of the step's"),
            )
        )
    if r.encoded_bytes:
        rows.append(Figure(label="encoded", value=format_bytes(r.encoded_bytes)))
    return rows + _decisions(r.decisions)


def _decisions(made: Sequence[Decision]) -> list[Figure]:
    return [Figure(label="decisions", value=decision_words(made))] if made else []


def plan_figures(p: Plan) -> list[Figure]:
    """The figures of a plan that has not run."""
    kind = "estimated" if p.estimated else "predicted"
    slower = p.predicted_step_seconds / p.plain_step_seconds if p.plain_step_seconds else 1.0
    rows = [
        Figure(
            label="budget",
            value=format_bytes(p.budget_bytes),
            note=_share(p.budget_bytes, p.plain_peak_bytes),
        ),
        Figure(label="peak of the plain step", value=format_bytes(p.plain_peak_bytes), note=kind),
        Figure(label="peak under the plan", value=format_bytes(p.predicted_peak_bytes), note=kind),
        Figure(label="resident bytes", value=format_bytes(p.resident_bytes)),
        *_at_rest(p),
        Figure(label="swapped per step", value=format_bytes(p.swapped_bytes)),
        Figure(label="plain time per step", value=format_seconds(p.plain_step_seconds), note=kind),
        Figure(
            label="time per step under the plan",
            value=format_seconds(p.predicted_step_seconds),
            note=f"{kind}, {slower:.3f} × plain",
        ),
    ]
    if p.recomputed_flops:
        again = f"{p.recomputed_flops / 1e9:.2f} GFLOP"
        note = _of(p.recomputed_flops, p.plain_flops, "of the step's")
        rows.append(Figure(label="recomputed", value=again, note=note))
    return rows + _decisions(p.decisions)


def _time(r: RunRecord) -> list[Figure]:
    rows = [
        Figure(label="predicted time per step", value=format_seconds(r.predicted_step_seconds)),
        Figure(label="measured time per step", value=format_seconds(r.measured_step_seconds)),
    ]
    if r.plain_step_seconds:
        rows.append(
            Figure(label="plain time per step", value=format_seconds(r.plain_step_seconds), note="predicted")
        )
    prepared = {
        "capture": r.capture_seconds,
        "measure": r.measure_seconds,
        "plan": r.planning_seconds,
        "rewrite": r.rewrite_seconds,
    }
    if any(prepared.values()):
        text = ", ".join(f"{name} {format_seconds(s)}" for name, s in prepared.items() if s)
        rows.append(Figure(label="preparation", value=text, note="once"))
    return rows


def _loss(r: RunRecord) -> list[Figure]:
    rows = []
    if r.losses:
        rows.append(Figure(label="training loss", value=f"{r.losses[0]:.3f} → {r.losses[-1]:.3f}"))
    if r.validation_loss is not None:
        before = "" if r.validation_loss_before is None else f"{r.validation_loss_before:.3f} → "
        rows.append(
            Figure(
                label="validation loss",
                value=f"{before}{r.validation_loss:.3f}",
                good=None
                if r.validation_loss_before is None
                else r.validation_loss < r.validation_loss_before,
            )
        )
    return rows


def _of(part: int, whole: int, words: str) -> str:
    return f"{100 * part / whole:.1f} % {words}" if whole else ""


def _share(budget: int, plain: int) -> str:
    return (
        _of(budget, plain, "of the plain peak") if budget < plain else "above the plain peak" if plain else ""
    )


def action_words(decision: Decision) -> str:
    """`swap to disk`, `recompute`, `encode (relu)`."""
    if decision.action == "swap":
        return f"swap to {decision.tier}" if decision.tier else "swap"
    if decision.action == "encode":
        return f"encode ({decision.codec})" if decision.codec else "encode"
    if decision.action == "encode_swap":
        return f"encode ({decision.codec}) and swap to {decision.tier}"
    return decision.action


def storage_name(record: RunRecord, storage: int) -> str:
    """The storage's name, or its number where the record has none."""
    return record.storage_names[storage] if storage < len(record.storage_names) else f"storage {storage}"


def storage_bytes(record: RunRecord, storage: int) -> int:
    """The storage's bytes, 0 where the record has none."""
    return record.storage_bytes[storage] if storage < len(record.storage_bytes) else 0
