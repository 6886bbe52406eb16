"""The captured step, its rewritten form, and the two contracts around them: what graphs call, what runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..values import StepGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedStep:
    """The joint ATen graph of one step, and how its nodes map to ops and storages.

    Attributes:
        module: owns the constants that `get_attr` nodes name.
        graph: the step as ops and storages.
        nodes: one node per op position; None for the `outside` and `update` ops.
        order: every computing node (views and `getitem` too) in the order in which it runs.
        storage: tensor-valued node → index of the storage it views.
        primals: placeholders of the forward, in order.
        tangents: placeholders of the backward's incoming gradients, in order.
        forward_outputs: what the forward returns, in order (nodes or constants).
        backward_outputs: what the backward returns, in order (nodes or None).
        boundary: position of the `outside` op, which separates forward from backward.
        updated: primals that are written when the forward has ended (buffers, inputs changed in place).
        device: whose bytes the storages are; those on another have none.
        carrying: the forward result that each tangent is the gradient of, where that is known.
    """

    module: GraphModule
    graph: StepGraph
    nodes: tuple[Node | None, ...]
    order: tuple[Node, ...]
    storage: dict[Node, int]
    primals: tuple[Node, ...]
    tangents: tuple[Node, ...]
    forward_outputs: tuple[object, ...]
    backward_outputs: tuple[object, ...]
    boundary: int
    updated: tuple[Node, ...]
    device: torch.device
    carrying: tuple[Node, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RuntimeOps:
    """The functions that the rewritten graphs call. Each takes the frame of the running step first.

    `swap_out(frame, tensor, slot, tier)`, `settle(frame, slot)`, `fetch(frame, slot, nbytes)`,
    `wait(frame, slot, dtype) -> flat tensor`, `encode(frame, tensor, slot, codec, nbytes)`,
    `decode(frame, slot, dtype, last) -> flat tensor`, `observe(frame, tensor, slot)` (samples its density),
    `fetch_state(frame, slot)`,
    `update_state(frame, slot, gradient)`, `write_state(frame, slot)`, `drop_state(frame, slot)` (of an optimizer).
    """

    swap_out: Callable[..., Any]
    settle: Callable[..., Any]
    fetch: Callable[..., Any]
    wait: Callable[..., Any]
    encode: Callable[..., Any]
    decode: Callable[..., Any]
    observe: Callable[..., Any]
    fetch_state: Callable[..., Any]
    update_state: Callable[..., Any]
    write_state: Callable[..., Any]
    drop_state: Callable[..., Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class RewrittenStep:
    """Two graphs with the boxed calling convention (one list, which they empty).

    Attributes:
        forward: `[frame, *primals]` → forward results, then the values that cross.
        backward: `[frame, *crossing, *tangents]` → gradients.
        crossing: the original nodes behind the crossing values where they are originals, else None.
        origin: new node → original node, for operators.
        without: places of missing tangents → the backward for when they are missing, which is handed None for them.
        updated: gradients that an update in the backward has used, by their place: nothing is handed out for them.
        slots: of the optimizers' state in these graphs → the name of the parameter.
        parameters: storages of parameters that rest on a tier → their names: the graphs fetch them, and do not read the
            inputs.
        read_again: places in `crossing` that an operator which runs again in the backward reads, through views or not.
    """

    forward: GraphModule
    backward: GraphModule
    crossing: tuple[Node | None, ...]
    origin: dict[Node, Node] = field(repr=False)
    without: Callable[[frozenset[int]], Any] | None = None
    read_again: frozenset[int] = frozenset()
    updated: frozenset[int] = frozenset()
    slots: Mapping[int, str] = field(default_factory=dict)
    parameters: Mapping[int, str] = field(default_factory=dict)


class Program(ABC):
    """What the engine makes of a captured step. Both calls take one list, which they empty."""

    @abstractmethod
    def forward(self, args: list[Any]) -> list[Any]:
        """Inputs → forward results, then the capsule."""

    @abstractmethod
    def backward(self, args: list[Any], *, keep: bool) -> list[Any]:
        """Capsule and incoming gradients → gradients; `keep` when autograd keeps the graph for another backward."""
