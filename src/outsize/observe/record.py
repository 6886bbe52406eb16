"""What an observation notes, before it becomes a `StepGraph`: operators of the forward, nodes of the backward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .ledger import Ledger

__all__ = ["Forward", "Node", "Observation"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Forward:
    """An operator that ran in the forward.

    Attributes:
        target: it.
        name: readable and unique.
        inputs, outputs: slots of the tensors among its arguments and results, in order; -1 for what is no plain tensor.
        made: slots of the storages that it made.
        changed: slots of those that it changed in place.
        stale: slots that it reads only to compute their next values.
        signature: equal for operators that cost the same.
        random, effect: see `values.Op`.
        seconds: it took.
        workspace: bytes that it took for a moment, beside its results.
        other: bytes alive before it ran that no operator made.
    """

    target: Any
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    made: tuple[int, ...]
    changed: tuple[int, ...]
    stale: tuple[int, ...]
    signature: str
    flops: int
    random: bool
    effect: bool
    seconds: float
    workspace: int
    other: int


@dataclass(kw_only=True)
class Node:
    """A node of autograd's graph that ran in the backward.

    Attributes:
        unpacked: numbers of the saved tensors that it read, in order.
        seconds: it took.
        workspace: bytes at its peak beyond those that the ledger knows: gradients on their way among them.
        gradients: bytes of the gradients that it made for parameters that had none.
    """

    name: str
    unpacked: list[int] = field(default_factory=list)
    seconds: float = 0.0
    workspace: int = 0
    gradients: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """One step as it was observed.

    Attributes:
        forward: its operators, views among them.
        backward: the nodes, in the order in which they ran.
        ledger: the storages.
        saved: slot of each tensor that autograd saved; -1 where it is nobody's business.
        saved_at: place of the operator that had run last when each of them was saved.
        renewed: slots that were saved, changed in place and saved again.
        rewriting: places of operators that wrote what autograd had saved, without its version telling of it.
        kept: autograd kept what was saved for another backward (`retain_graph=True`).
        outside: bytes at the peak between forward and backward beyond those that the ledger knows.
        outside_seconds: from the forward's end to the backward's begin.
        densities: slot → share of elements that are not zero, where that was sampled.
        device: the step's.
    """

    forward: list[Forward]
    backward: list[Node]
    ledger: Ledger
    saved: list[int]
    saved_at: list[int]
    renewed: frozenset[int]
    rewriting: frozenset[int]
    kept: bool
    outside: int
    outside_seconds: float
    densities: dict[int, float]
    device: torch.device

    @property
    def boundary(self) -> int:
        """Place of what runs between forward and backward."""
        return len(self.forward)
