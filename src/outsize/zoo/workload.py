"""What there is to train: a module, its batches, its loss, and a set-aside part of the data.

A training loop needs nothing else, so the CLI, the tests and the benchmarks all take a `Workload` and never
ask which model it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only


class Batch(NamedTuple):
    """One batch: `loss_fn(module(*args), target)` is a scalar loss.

    Attributes:
        args: of the module's call.
        target: what the loss compares with.
    """

    args: tuple[Tensor, ...]
    target: Any


Batches = Callable[[], Iterator[Batch]]
LossFn = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model with its data.

    Attributes:
        name: as the user asked for it.
        module: in training mode, float32 parameters, on the CPU until `on` moves it, initialised from the seed.
        batches: makes an iterator of training batches; each call starts the same stream again.
        validation: makes a short iterator over data that `batches` never yields; empty where there is none.
        loss_fn: `loss_fn(output, target)` to a scalar.
        data: where the data come from, in a sentence.
        batch_size: samples per batch, 0 where unknown.
        learning_rate: one that AdamW makes progress with.
        steps: enough for the loss to fall visibly.
    """

    name: str
    module: nn.Module
    batches: Batches
    validation: Batches
    loss_fn: LossFn
    data: str
    batch_size: int
    learning_rate: float = 1e-3
    steps: int = 20

    @property
    def parameters(self) -> int:
        """Number of trained parameters; tied ones count once."""
        return sum(p.numel() for p in self.module.parameters())

    def example(self) -> Batch:
        """The first training batch."""
        return next(self.batches())

    def on(self, device: torch.device | str) -> Workload:
        """The same work on another device: the module moves, batches follow one by one.

        Args:
            device: where to.

        Returns:
            a workload whose batches are made there.
        """
        place = torch.device(device)

        def moved(batches: Batches) -> Batches:
            return lambda: (tree_map_only(Tensor, lambda t: t.to(place), batch) for batch in batches())

        return replace(
            self, module=self.module.to(place), batches=moved(self.batches), validation=moved(self.validation)
        )

    def describe(self) -> str:
        """One line for people: model, size, input shapes, data."""
        shapes = ", ".join("×".join(map(str, arg.shape)) for arg in self.example().args)
        return f"{self.name}: {self.parameters / 1e6:.1f} M parameters, input {shapes}; {self.data}"


def mean_loss(workload: Workload) -> float | None:
    """Mean loss over the validation batches, in evaluation mode without gradients; None without such batches.

    The module is left in the mode in which it came.

    Args:
        workload: whose module is evaluated.

    Returns:
        the mean, or None.
    """
    was_training = workload.module.training
    workload.module.eval()
    try:
        with torch.no_grad():
            losses = [
                float(workload.loss_fn(workload.module(*batch.args), batch.target))
                for batch in workload.validation()
            ]
    finally:
        workload.module.train(was_training)
    return sum(losses) / len(losses) if losses else None
