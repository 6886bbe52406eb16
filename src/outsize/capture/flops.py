"""Floating-point operations of one node, from torch's own formulas."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node
from torch.utils.flop_counter import flop_registry

from ..fx import tensor_leaves


def count_flops(node: Node) -> int:
    """Multiply-adds counted twice where torch has a formula; one per output element otherwise (bytes rule there)."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return 0
    formula = flop_registry.get(target.overloadpacket)
    if formula is None:
        return sum(math.prod(leaf.shape) for leaf in tensor_leaves(node.meta.get("val")))
    value = node.meta.get("val")

    def recorded(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, lambda n: n.meta.get("val"))

    return int(formula(*recorded(node.args), **recorded(node.kwargs), out_val=value))
