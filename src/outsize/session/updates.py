"""The update of a step: counted with the step where its optimizer is known, and by itself where it is found then."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import final

import torch

from ..errors import BudgetError
from ..measure.optimizer import update_bytes
from ..units import format_bytes
from .meter import StepMeter
from .optimizers import Optimizers
from .watch import Updated

__all__ = ["Updates", "Updating", "left_out"]


class Updating(ABC):
    """The session whose module is updated."""

    device: torch.device
    budget_bytes: int
    optimizers: Optimizers
    notes: list[str]
    #: Steps whose backward ran under plan.
    backwards: int

    @property
    @abstractmethod
    def stepping(self) -> bool:
        """Whether a step is under way and metered."""

    @abstractmethod
    def updated(self, *, all_stepped: bool) -> None:
        """An optimizer has updated the module in the step under way; whether all of them have."""

    @abstractmethod
    def resident_bytes(self, args: Iterable[object]) -> int:
        """Bytes of the module, its gradients, the optimizers' state and the inputs."""

    @abstractmethod
    def note_peak(self, peak: int) -> int:
        """Take note of what a meter has seen. Returns it."""


@final
class Updates(Updated):
    """Tells a session of its module's updates."""

    def __init__(self, session: Updating) -> None:
        self._session = session
        self._meter: StepMeter | None = None
        self._late: torch.optim.Optimizer | None = None
        self._unplanned = self._said = False
        #: Steps that run unplanned, which was said.
        self._uncovered = 0

    @property
    def covered(self) -> int:
        return self._session.backwards + self._uncovered

    def owns(self, optimizer: torch.optim.Optimizer) -> bool:
        return self._session.optimizers.knows(optimizer)

    def update_begins(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        session = self._session
        session.optimizers.runs_steps = closure
        session.optimizers.streams.update_begins(optimizer)
        if session.optimizers.knows(optimizer):
            return
        session.optimizers.found(optimizer)
        self._late = optimizer
        if self._meter is None and not session.stepping:  # the step is over, as far as anybody knew
            self._start(())

    def update_done(self, optimizer: torch.optim.Optimizer) -> None:
        optimizers, late, self._late = self._session.optimizers, self._late, None
        optimizers.runs_steps = False
        optimizers.streams.update_done()
        all_stepped = optimizers.stepped(optimizer)
        if self._meter is None:
            self._session.updated(all_stepped=all_stepped)
        else:
            self._end(late)

    def unplanned(self, args: Iterable[object]) -> None:
        """A call runs that no plan covers: it is measured up to the update, or to the next of its kind."""
        self._end(None)
        self._session.optimizers.begin()
        self._start(args)
        self._unplanned = True
        self._uncovered += 1

    def planned(self) -> None:
        """It was covered after all."""
        if self._meter is not None:
            self._meter.stop()
        self._meter, self._unplanned = None, False
        self._uncovered -= 1

    def _start(self, args: Iterable[object]) -> None:
        resident = self._session.resident_bytes(args) - self._session.optimizers.unborn()
        self._meter = StepMeter(resident, self._session.device)

    def _end(self, late: torch.optim.Optimizer | None) -> None:
        meter, unplanned, self._meter, self._unplanned = self._meter, self._unplanned, None, False
        if meter is None:
            return
        peak = self._session.note_peak(meter.end())
        meter.stop()
        if late is not None:
            self._found(late, peak)
        elif unplanned and peak > self._session.budget_bytes and not self._said:
            self._said = True
            warnings.warn(
                f"a step that runs unplanned reached {peak} bytes of a budget of {self._session.budget_bytes}",
                RuntimeWarning,
                stacklevel=7,
            )

    def _found(self, optimizer: torch.optim.Optimizer, peak: int) -> None:
        """Its first update has ended: from the next step on, its state is planned for."""
        session = self._session
        budget, over = session.budget_bytes, peak > session.budget_bytes
        reached = f", and its first update reached {peak} bytes of a budget of {budget}" if over else ""
        note = (
            f"{type(optimizer).__name__} updates the module and was not given to outsize: its state of "
            f"{format_bytes(update_bytes(optimizer).state)} was not planned for{reached}. It counts from the next "
            "step on; give it as optimizer=, so that it counts from the first"
        )
        session.notes.append(note)
        if over:
            warnings.warn(note, RuntimeWarning, stacklevel=8)


def left_out(state: int, error: BudgetError, *, warn: bool) -> str:
    """No plan holds the state of an optimizer that was not given: what is noted, and said where `warn` is set."""
    note = (
        f"the optimizer was not given to outsize, and with its state of {format_bytes(state)} no plan keeps the budget: "
        f"planned without it, so that steps are over by as much. Give optimizer=, and a budget of "
        f"{error.smallest_feasible_bytes} bytes ({format_bytes(error.smallest_feasible_bytes)}) or more"
    )
    if warn:
        warnings.warn(note, RuntimeWarning, stacklevel=3)
    return note
