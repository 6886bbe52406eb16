"""A dropout is one draw and one product, and only the draw may not be repeated.

`aten.native_dropout` makes both in one operator, so nothing behind it could be made again without drawing anew. On the
CPU it is the sequence that stands in `_mask` and `_masked` below, with the same bits from the same generator; split in
two, the mask (a byte for each element, which the backward reads anyway) is kept and the product is as repeatable as any.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Graph, GraphModule, Node

_LIBRARY = torch.library.Library("outsize", "FRAGMENT")
_LIBRARY.define("dropout_mask(Tensor input, float p) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
_LIBRARY.define("masked_dropout(Tensor input, Tensor mask, float scale) -> Tensor")


def _mask(value: torch.Tensor, p: float) -> torch.Tensor:
    return torch.empty_like(value, dtype=torch.bool).bernoulli_(1.0 - p)


def _masked(value: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    return value.mul(mask).mul_(
        torch.tensor(scale, dtype=value.dtype).item()
    )  # rounded as the whole operator does


_LIBRARY.impl("dropout_mask", _mask, "CPU")
_LIBRARY.impl("masked_dropout", _masked, "CPU")
_LIBRARY.impl("dropout_mask", lambda value, p: torch.empty_like(value, dtype=torch.bool), "Meta")
_LIBRARY.impl("masked_dropout", lambda value, mask, scale: torch.empty_like(value), "Meta")


def split_dropouts(module: GraphModule) -> None:
    """Put draw and product in place of each dropout of a CPU tensor, in the graph itself."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.native_dropout.default and _is_split(node):
            _split(module.graph, node)


def _is_split(node: Node) -> bool:
    source, _, train = node.args
    value = source.meta["val"] if isinstance(source, Node) else None
    parts = all(user.target is operator.getitem for user in node.users)
    return bool(
        train is not False and value is not None and value.device.type == "cpu" and value.numel() and parts
    )


def _split(graph: Graph, node: Node) -> None:
    source, p, _ = node.args
    keep = 1.0 - float(p)  # type: ignore[arg-type]
    result, drawn = node.meta["val"]
    with graph.inserting_before(node):
        mask = graph.call_function(torch.ops.outsize.dropout_mask.default, (source, p))
        scale = 1.0 / keep if keep else 0.0
        product = graph.call_function(torch.ops.outsize.masked_dropout.default, (source, mask, scale))
    mask.meta, product.meta = dict(node.meta, val=drawn), dict(node.meta, val=result)
    for user in list(node.users):
        user.replace_all_uses_with(mask if user.args[1] else product)
        graph.erase_node(user)
    graph.erase_node(node)
    if not product.users:  # nobody reads the result: the draw alone is left of it
        graph.erase_node(product)
