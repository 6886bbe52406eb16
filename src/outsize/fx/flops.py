"""Floating-point operations of one node, from torch's own formulas."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node
from torch.utils.flop_counter import flop_registry

from .nodes import tensor_leaves

_aten = torch.ops.aten
#: The CPU's fused attention has no formula of its own; the same arguments come first, so its relatives' serve.
_SAME_AS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _aten._scaled_dot_product_flash_attention_backward,
}


def count_flops(node: Node) -> int:
    """FLOPs of one node, from its recorded values."""

    def recorded(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, lambda n: n.meta.get("val"))

    return call_flops(node.target, recorded(node.args), recorded(node.kwargs), node.meta.get("val"))


def call_flops(target: object, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> int:
    """Multiply-adds counted twice where torch has a formula; one per output element otherwise (bytes rule there)."""
    if not isinstance(target, torch._ops.OpOverload):
        return 0
    packet = target.overloadpacket
    formula = flop_registry.get(_SAME_AS.get(packet, packet))
    if formula is None:
        return sum(math.prod(leaf.shape) for leaf in tensor_leaves(value))
    return int(formula(*args, **kwargs, out_val=value))
