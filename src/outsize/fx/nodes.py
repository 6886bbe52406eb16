"""Small walks over torch.fx nodes and their recorded values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node


def node_inputs(node: Node) -> list[Node]:
    """The nodes that `node` takes as arguments, each once, in order of first appearance."""
    return list(dict.fromkeys(node.all_input_nodes))


def tensor_leaves(value: Any) -> list[torch.Tensor]:
    """The tensors in a recorded value: a tensor, a sequence of them, or neither."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in tensor_leaves(item)]
    return []


def map_nodes(argument: Any, function: Callable[[Node], Any]) -> Any:
    """`argument` with every node in it replaced by `function(node)`."""
    return torch.fx.node.map_arg(argument, function)


def format_target(target: Any) -> str:
    """`aten.convolution.default` for an overload, the qualified name for a function."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"
