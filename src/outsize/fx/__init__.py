"""What several stages share about torch.fx graphs: the captured step and small walks over nodes."""

from .nodes import format_target, map_nodes, node_inputs, tensor_leaves
from .step import CapturedStep

__all__ = ["CapturedStep", "format_target", "map_nodes", "node_inputs", "tensor_leaves"]
