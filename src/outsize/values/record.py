"""The record of a run: what was planned and what was measured. `outsize.report(module)` and `--json FILE` give it."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import Decision, Refusal
from .ranges import Count, Loss, Seconds
from .timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class ShapeRecord:
    """Figures of one plan among those of a module: each shape of the inputs has its own, and so has each call where
    several are made before a backward.

    Attributes:
        inputs: dtypes and shapes of what the module was called with, beside its parameters and buffers.
        place: how many calls of the same step came before it.
        steps: steps that ran.
        budget_bytes: the budget in force.
        plain_peak_bytes, predicted_peak_bytes: predicted, without and with the plan.
        measured_peak_bytes: highest measured peak of the steps under the current plan.
        predicted_step_seconds: forward, backward and, where known, update.
        decisions: of the current plan.
        runs_again: what the forward saves is given up while other calls run, and it runs again for its backward.
    """

    inputs: str
    place: int
    steps: int
    budget_bytes: int
    plain_peak_bytes: int
    predicted_peak_bytes: int
    measured_peak_bytes: int
    predicted_step_seconds: float
    decisions: tuple[Decision, ...] = ()
    runs_again: bool = False


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Figures of the latest step and of the run so far. Bytes are device bytes unless said otherwise.

    Attributes:
        budget_bytes: the budget in force.
        plain_peak_bytes: predicted peak of the unplanned step.
        predicted_peak_bytes: predicted peak under the plan.
        measured_peak_bytes: highest measured peak of the steps under the current plans, over all shapes.
        highest_peak_bytes: highest of all steps, those under plans since replaced included; 0 in older records.
        resident_bytes: bytes alive for the whole step.
        state_bytes: of the optimizer's state, as far as it may rest on a tier; 0 in older records.
        state_resting_bytes: of it, what does between its updates; each step reads and writes as much.
        parameter_bytes: of parameters that nobody trains, as far as they may rest on a tier; 0 in older records.
        parameter_resting_bytes: of them, what does between its uses.
        swapped_out_bytes, swapped_in_bytes: of the latest step.
        stall_seconds: time the compute lane waited for transfers in the latest step.
        predicted_step_seconds, measured_step_seconds: forward, backward and, where known, update.
        rss_peak_bytes: the process's peak resident set.
        steps: steps run so far.
        plain_timeline, timeline: the simulated step without and with the plan, where they are known.
        measured_timeline: the real step that `outsize.record` asked for.
        shapes: one entry for each shape of the inputs, in the order of their first steps; empty in older records.
        decisions, refusals: of the plan in force.
        planner: who made it.
        plain_step_seconds: predicted time of the step without a plan.
        recomputed_flops: floating-point operations that run again in a step.
        plain_flops: those of the step without a plan.
        encoded_bytes: reserved for encoded forms.
        capture_seconds, measure_seconds, planning_seconds, rewrite_seconds: what getting ready took.
        storage_names, storage_bytes: by index, of the storages that the decisions name.
        notes: what happened on the way, in sentences.
        losses: of each step of `outsize train`; empty elsewhere.
        validation_loss_before, validation_loss: of `outsize train`, before the first step and after the last.
    """

    budget_bytes: Count
    plain_peak_bytes: Count
    predicted_peak_bytes: Count
    measured_peak_bytes: Count
    resident_bytes: Count
    swapped_out_bytes: Count
    swapped_in_bytes: Count
    stall_seconds: Seconds
    predicted_step_seconds: Seconds
    measured_step_seconds: Seconds
    decisions: tuple[Decision, ...]
    refusals: tuple[Refusal, ...]
    planner: str = ""
    plain_step_seconds: Seconds = 0.0
    recomputed_flops: Count = 0
    plain_flops: Count = 0
    encoded_bytes: Count = 0
    rss_peak_bytes: Count = 0
    steps: Count = 0
    capture_seconds: Seconds = 0.0
    measure_seconds: Seconds = 0.0
    planning_seconds: Seconds = 0.0
    rewrite_seconds: Seconds = 0.0
    storage_names: tuple[str, ...] = ()
    storage_bytes: tuple[Count, ...] = ()
    notes: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    validation_loss: Loss | None = None
    validation_loss_before: Loss | None = None
    plain_timeline: Timeline | None = None
    timeline: Timeline | None = None
    measured_timeline: Timeline | None = None
    highest_peak_bytes: int = 0
    state_bytes: Count = 0
    state_resting_bytes: Count = 0
    parameter_bytes: Count = 0
    parameter_resting_bytes: Count = 0
    shapes: tuple[ShapeRecord, ...] = ()

    def to_json(self, *, indent: int | None = 2) -> str:
        """The record as JSON text; `outsize.values.from_json(RunRecord, text)` reads it back.

        Args:
            indent: spaces of each level; None writes one line.

        Returns:
            the text.
        """
        from .json import to_json

        return to_json(self, indent=indent)
