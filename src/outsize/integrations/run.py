"""One training run of somebody else's loop under one budget, from its first step to its last.

A plan keeps the budget within a step. Around the steps the loop evaluates, gathers results, fetches batches ahead and
saves checkpoints, and a process that runs out of memory there has run out of memory. So one meter runs from beginning to
end and is read wherever the loop says that a phase is over. What the loop holds beside the step's own tensors (batches
fetched ahead, results that are kept) counts for the plans too: they leave room for it. No plan covers an evaluation or a
checkpoint; one that goes over the budget is a warning with the numbers and what to change.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from .. import api, asked
from ..errors import BudgetWarning, OutsizeError
from ..session import ObservedSession, Session, session_of
from ..session.meter import StepMeter
from ..session.residents import named_bytes
from ..units import format_bytes
from ..values import RunRecord
from .scalars import Log, scalars

__all__ = ["CHECKPOINT", "EVALUATION", "STEP", "Log", "Run", "RunPeaks", "check_settings", "submodule"]

#: What a run does, for the peaks of each.
STEP, EVALUATION, CHECKPOINT = "step", "evaluation", "checkpoint"
#: What to do where a phase goes over the budget.
_ADVICE = {
    EVALUATION: "evaluate smaller batches, or keep fewer results (prediction_loss_only, or metrics in place of logits)",
    CHECKPOINT: "save what is smaller (adapters, or the model without the optimizer), or give a larger budget",
    STEP: "the loop holds more beside the step than before; the next steps leave room for it",
}
_GIVEN_HERE = ("module", "budget", "optimizer")


@final
@dataclass(frozen=True, kw_only=True)
class RunPeaks:
    """The highest bytes alive in each phase of a run.

    They count the module, its gradients and the optimizer's state, and all that the process allocated since the run began
    but for what capturing and planning took.

    Attributes:
        budget_bytes: what the run was given.
        phases: peak bytes by phase: `step`, `evaluation`, `checkpoint`.
    """

    budget_bytes: int
    phases: Mapping[str, int]

    @property
    def peak_bytes(self) -> int:
        """The highest of all phases, in bytes."""
        return max(self.phases.values(), default=0)


@final
class Run:
    """A module under plan from now until `close`, and the meter of all that happens meanwhile. It is held weakly.

    Args:
        module: what is planned, compiled in place: what the loop calls, or a part of that.
        budget: as for `outsize.compile`.
        optimizer: what updates the module; it exists by now.
        whole: what the loop trains, where `module` is a part of it: its tensors count, too.
        settings: further arguments of `outsize.compile`, by name.

    Raises:
        OutsizeError: as for `outsize.compile`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        budget: int | str | None,
        *,
        optimizer: Any,
        whole: torch.nn.Module | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        api.compile(module, budget, optimizer=optimizer, **(settings or {}))
        session = session_of(module)
        assert session is not None
        self._module, self._session = weakref.ref(module), session
        self.budget_bytes = session.budget_bytes
        there = named_bytes(whole or module, (), session.device) | session.optimizers.storages()
        self._meter = session.run_meter = StepMeter(sum(there.values()), session.device, lasting=True)
        self._peaks: dict[str, int] = {}
        self._warned: set[str] = set()

    @property
    def peaks(self) -> RunPeaks:
        """So far."""
        return RunPeaks(budget_bytes=self.budget_bytes, phases=dict(self._peaks))

    @property
    def record(self) -> RunRecord | None:
        """As `outsize.report` gives it; None before the first step."""
        return self._current.record()

    @property
    def _current(self) -> Session | ObservedSession:
        """The session of the module: where it could not be captured, the one that observes its steps since."""
        module = self._module()
        found = session_of(module) if module is not None else None
        return found if found is not None and found.run_meter is self._meter else self._session

    def scalars(self) -> dict[str, float]:
        """The figures of the latest step by name; empty before the first."""
        module = self._module()
        return scalars(module) if module is not None and self.record is not None else {}

    def ends(self, phase: str) -> None:
        """What the loop did since it last said so was of this phase.

        Args:
            phase: `STEP`, `EVALUATION` or `CHECKPOINT`.
        """
        if not self._meter.runs:
            return
        peak = self._meter.end()
        self._peaks[phase] = max(peak, self._peaks.get(phase, 0))
        if peak > self.budget_bytes and phase not in self._warned:
            self._warned.add(phase)
            said = (
                f"{phase}: {peak} bytes ({format_bytes(peak)}) were alive, of a budget of {self.budget_bytes} "
                f"({format_bytes(self.budget_bytes)}): {_ADVICE[phase]}"
            )
            warnings.warn(BudgetWarning(said, peak_bytes=peak, budget_bytes=self.budget_bytes), stacklevel=3)

    def close(self) -> None:
        """The run is over: the plain module is given back. Again, it does nothing."""
        module, session = self._module(), self._current
        self._meter.stop()
        session.run_meter = None
        if module is not None and session_of(module) is session:
            api.release(module)


def check_settings(budget: int | str | None, settings: Mapping[str, Any]) -> None:
    """Hold what was given for `outsize.compile` against it before there is a module.

    Raises:
        OutsizeError: an argument that it does not have.
        UnitError: a budget that cannot be read.
    """
    known = [name for name in inspect.signature(api.compile).parameters if name not in _GIVEN_HERE]
    for name in settings:
        if name not in known:
            raise OutsizeError(
                f"{name}=: outsize.compile has no such argument here; it has {', '.join(known)}"
            )
    if budget is not None:
        asked.bytes_of(budget)


def submodule(whole: torch.nn.Module, name: str) -> torch.nn.Module:
    """The part of a module that is to be planned.

    Raises:
        OutsizeError: it has no submodule of that name.
    """
    try:
        return whole.get_submodule(name)
    except AttributeError:
        names = ", ".join(child for child, _ in whole.named_children())
        raise OutsizeError(
            f"module={name!r}: {type(whole).__name__} has no submodule of that name; its own are {names or 'none'}"
        ) from None
