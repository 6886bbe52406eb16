"""The training loop that the CLI runs: the one that a user would write, under a budget or plain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from .. import api, parallel
from ..errors import OutsizeError
from ..units import parse_bytes
from ..values import Plan, RunRecord
from .workload import Batch, Workload, mean_loss


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step gave: its number from 0, its loss, its seconds with the update, the figures so far.

    `alive_bytes` are held at its end: the residents and the gradients that the next step will drop.
    """

    index: int
    loss: float
    seconds: float
    record: RunRecord
    alive_bytes: int


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after at least one step.

    Attributes:
        record: of the steps until then.
    """

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record


def make_optimizer(workload: Workload, *, learning_rate: float | None = None) -> torch.optim.AdamW:
    """AdamW in its fused form, which updates in place without temporary bytes."""
    rate = workload.learning_rate if learning_rate is None else learning_rate
    return torch.optim.AdamW(workload.module.parameters(), lr=rate, fused=True)


def share(
    workload: Workload, *, learning_rate: float | None = None, chunk_mb: float | None = None
) -> tuple[Workload, torch.optim.Optimizer]:
    """This worker's part of the work: the module synchronised chunk by chunk, every n-th batch, its own dropout.

    Args:
        workload: with a module that `outsize.compile` has taken on; every worker has the same.
        learning_rate: instead of the workload's.
        chunk_mb: chunk size; None searches for it.
    """
    rate = workload.learning_rate if learning_rate is None else learning_rate
    module, optimizer = parallel.distribute(workload.module, torch.optim.AdamW, lr=rate, chunk_mb=chunk_mb)
    several = torch.distributed.is_initialized()
    rank, size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
    torch.manual_seed(torch.initial_seed() + rank)
    batches = workload.batches
    return replace(workload, module=module, batches=lambda: _deal(batches(), rank, size)), optimizer


def _deal(batches: Iterator[Batch], rank: int, size: int) -> Iterator[Batch]:
    """Every `size`-th batch; a last round that does not reach every worker is left out, or the others would wait."""
    for index, batch in enumerate(batches):
        if index % size == rank:
            mine = batch
        if index % size == size - 1:
            yield mine


def plain_plan(workload: Workload, optimizer: torch.optim.Optimizer, *, hardware: str | None = None) -> Plan:
    """The step without any action: its peak and its time are what a budget is a share of."""
    args = workload.example().args
    return api.plain_plan(workload.module, args, optimizer=optimizer, hardware=hardware)


def budget_bytes(text: str, plain_peak_bytes: int) -> int:
    """A budget in bytes; a percentage is of the plain step's peak.

    Raises:
        UnitError: not a budget.
    """
    return parse_bytes(int(text) if text.strip().isdigit() else text, whole=plain_peak_bytes)


def unallocated(workload: Callable[[], Workload]) -> Workload:
    """The workload with a module and a single batch that have shapes but no bytes, for hardware that is not here."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = workload()
        batch = made.example()
    return replace(made, batches=lambda: iter([batch]))


def fit(
    workload: Workload, optimizer: torch.optim.Optimizer, *, steps: int, recorded: int | None = None
) -> Iterator[Step]:
    """Trains a module that `outsize.compile` or `outsize.meter` has taken on, one step per item.

    Args:
        recorded: number of the step to record.

    Raises:
        OutsizeError: the loss is no longer finite.
    """
    module = workload.module
    for index, batch in enumerate(islice(workload.batches(), steps)):
        if index == recorded:
            api.record(module)
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = workload.loss_fn(module(*batch.args), batch.target)
        loss.backward()
        optimizer.step()
        value = loss.item()
        if not value - value == 0:
            raise OutsizeError(f"the loss is {value} after {index + 1} steps: try a smaller --lr")
        seconds, record = time.perf_counter() - start, api.report(module, timelines=False)
        gradients = sum(
            g.nbytes for p in module.parameters() if (g := p.grad) is not None and not hasattr(g, "is_away")
        )
        alive = record.resident_bytes + gradients
        yield Step(index=index, loss=value, seconds=seconds, record=record, alive_bytes=alive)


def run(
    workload: Workload,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    on_step: Callable[[Step], None],
    record: bool = False,
) -> RunRecord:
    """Validation, `steps` steps, validation; the record of it all.

    Args:
        workload: with a module that `outsize.compile` or `outsize.meter` has taken on.
        optimizer: of its parameters.
        steps: at least 1.
        on_step: told of each step.
        record: the last step but one operator by operator; the figures are then those of the last.

    Raises:
        OutsizeError: no batch, or a loss that is not finite.
        Interrupted: Ctrl-C after at least one step; there is no second validation then.
    """
    before, losses, after, note = mean_loss(workload), [], None, ""
    try:
        for step in fit(workload, optimizer, steps=steps, recorded=max(0, steps - 2) if record else None):
            losses.append(step.loss)
            on_step(step)
        if not losses:
            raise OutsizeError(f"{workload.name}: no step was run, the batches are empty")
        after = mean_loss(workload)
    except KeyboardInterrupt:
        if not losses:
            raise
        note = f"interrupted after {len(losses)} of {steps} steps"
    done = api.report(workload.module)
    found = replace(
        done,
        losses=tuple(losses),
        validation_loss_before=before,
        validation_loss=after,
        notes=(*done.notes, note) if note else done.notes,
    )
    if note:
        raise Interrupted(found)
    return found
