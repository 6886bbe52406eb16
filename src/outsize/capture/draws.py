"""Random numbers drawn into a tensor, in the order in which eager draws them.

AOTAutograd has no operators that write: `t.bernoulli_()` becomes `bernoulli(t)`, whose result is contiguous whatever
the strides of `t`, and `t.normal_()` becomes one that fills a copy without the holes of a sliced `t`. Both then draw in
another order than the eager step, which goes through memory as `t` lies there: other masks, not other last bits.

So these two are traced as an operator that draws into a tensor laid out as `t` is, and a copy over `t`; `fold_draws`
takes the copy away where nothing but the strides of `t` was wanted.

Private names used: `py_kernels` and `_dispatch_cache` of an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

__all__ = ["IN_PLACE", "fold_draws"]

_LIBRARY = torch.library.Library("outsize", "FRAGMENT")
_RANDOM = (torch.Tag.nondeterministic_seeded,)
_LIBRARY.define("bernoulli_like(Tensor like, float p) -> Tensor", tags=_RANDOM)
_LIBRARY.define("normal_like(Tensor like, float mean, float std) -> Tensor", tags=_RANDOM)


def _laid_out(like: torch.Tensor) -> torch.Tensor:
    """A tensor of its own with the strides of another, holes included."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)


def _bernoulli(like: torch.Tensor, p: float) -> torch.Tensor:
    return _laid_out(like).bernoulli_(p)


def _normal(like: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    return _laid_out(like).normal_(mean, std)


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("bernoulli_like", _bernoulli, _device)
    _LIBRARY.impl("normal_like", _normal, _device)
_LIBRARY.impl("bernoulli_like", lambda like, p: _laid_out(like), "Meta")
_LIBRARY.impl("normal_like", lambda like, mean, std: _laid_out(like), "Meta")
_LIKE = (torch.ops.outsize.bernoulli_like.default, torch.ops.outsize.normal_like.default)


def _bernoulli_in_place(tensor: torch.Tensor, p: float = 0.5) -> torch.Tensor:
    return _over(tensor, torch.ops.outsize.bernoulli_like, p)


def _normal_in_place(tensor: torch.Tensor, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    return _over(tensor, torch.ops.outsize.normal_like, mean, std)


def _over(tensor: torch.Tensor, draw: Callable[..., torch.Tensor], *numbers: float) -> torch.Tensor:
    with torch.no_grad():
        drawn = draw(tensor.detach(), *numbers)
    return tensor.copy_(drawn)


#: What stands in for the two while torch traces.
IN_PLACE: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.bernoulli_.float: _bernoulli_in_place,
    torch.ops.aten.normal_.default: _normal_in_place,
}


def fold_draws(module: GraphModule) -> None:
    """Drop the copies that only say where numbers were drawn to, in the graph itself."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.copy.default and _is_drawn(node):
            node.args[1].meta["val"] = node.meta["val"]  # views were recorded over it
            node.replace_all_uses_with(node.args[1])
            module.graph.erase_node(node)


def _is_drawn(node: Node) -> bool:
    over, drawn = node.args[:2]
    if not isinstance(drawn, Node) or drawn.target not in _LIKE or not isinstance(over, Node):
        return False
    made, wanted = drawn.meta["val"], node.meta["val"]
    return bool(
        made.shape == wanted.shape and made.stride() == wanted.stride() and made.dtype == wanted.dtype
    )
