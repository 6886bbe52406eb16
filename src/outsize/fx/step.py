"""The captured step: one joint forward-and-backward torch.fx graph beside its `StepGraph`."""

from __future__ import annotations

from dataclasses import dataclass

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
