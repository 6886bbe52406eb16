"""The figures of each step as scalars, for TensorBoard, Weights & Biases or any other log.

    log = LogScalars(model, run.log)                     # Weights & Biases: run = wandb.init(…)
    log = LogScalars(model, tensorboard(writer))         # TensorBoard: writer = SummaryWriter(…)
    for step, batch in enumerate(batches):
        …
        log(step)

What is called is `log(values, step)`, with a dictionary of numbers. None of these libraries is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch

from .. import api
from ..errors import OutsizeError

__all__ = ["LogScalars", "scalars", "tensorboard"]

#: `log(values, step)`.
Log: TypeAlias = Callable[[dict[str, float], int], object]


def scalars(module: torch.nn.Module) -> dict[str, float]:
    """The figures of a module's latest step, by name.

    `outsize/budget_bytes`; `outsize/alive_bytes`: parameters, gradients, optimizer state and buffers on the device now;
    `outsize/peak_bytes`: the highest of the steps under the current plan; `outsize/stall_seconds`: what the step waited
    for transfers; `outsize/step_seconds`; `outsize/swapped_bytes`: written and read.

    Args:
        module: compiled here, and run for a step.

    Returns:
        six numbers, bytes or seconds as their names say.

    Raises:
        OutsizeError: the module is not compiled here, or has not run a step yet.
    """
    record = api.report(module, timelines=False)
    gradients = (p.grad for p in module.parameters() if p.grad is not None and not hasattr(p.grad, "is_away"))
    return {
        "outsize/budget_bytes": float(record.budget_bytes),
        "outsize/alive_bytes": float(record.resident_bytes + sum(g.nbytes for g in gradients)),
        "outsize/peak_bytes": float(record.measured_peak_bytes),
        "outsize/stall_seconds": record.stall_seconds,
        "outsize/step_seconds": record.measured_step_seconds,
        "outsize/swapped_bytes": float(record.swapped_out_bytes + record.swapped_in_bytes),
    }


@final
class LogScalars:
    """Logs the figures of each step, and what else it is given.

    Args:
        module: compiled here.
        log: called as `log(values, step)`: `wandb.log`, `tensorboard(writer)`, or a function of your own.
        every: steps from one call of `log` to the next.

    Raises:
        OutsizeError: `log` cannot be called, or `every` is below 1.
    """

    def __init__(self, module: torch.nn.Module, log: Log, *, every: int = 1) -> None:
        if not callable(log) or every < 1:
            raise OutsizeError(
                f"LogScalars(module, {type(log).__name__}, every={every}): give a function log(values, step), and the "
                "number of steps from one call of it to the next, 1 or more"
            )
        self._module, self._log, self._every = module, log, every

    def __call__(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """A step has ended.

        Args:
            step: its number.
            values: logged beside the figures: the loss, say.

        Raises:
            OutsizeError: the module is not compiled here, or has not run a step yet.
        """
        if step % self._every == 0:
            self._log({**scalars(self._module), **(values or {})}, step)


def tensorboard(writer: Any) -> Log:
    """What writes scalars to a TensorBoard writer.

    Args:
        writer: a `SummaryWriter`: its `add_scalar(name, value, step)` is called.

    Returns:
        a function for `LogScalars`.
    """

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log
