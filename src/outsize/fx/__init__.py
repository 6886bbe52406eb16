"""What several stages share about torch.fx graphs: the captured step and small walks over nodes."""

from .nodes import format_target, map_nodes, node_inputs, tensor_leaves
from .step import CapturedStep, Program, RewrittenStep, RuntimeOps

__all__ = [
    "CapturedStep",
    "Program",
    "RewrittenStep",
    "RuntimeOps",
    "format_target",
    "map_nodes",
    "node_inputs",
    "tensor_leaves",
]
