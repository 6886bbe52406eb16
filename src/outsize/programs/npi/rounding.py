"""How far a primitive's logits can be from their exact values, in whatever order its sums are made.

A network that is right in one batch may be wrong in another: matrix products add up in an order that depends on the
shape, the machine and the library. So a primitive's answers are certified by the standard forward error bound (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1): a sum of n float32 products is off by at most
γ_n Σ|w||x|, γ_n = n·u / (1 - n·u), u the rounding unit; what an input of a layer is off by passes on through |W|.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["certified_margins", "plain_arithmetic"]

#: Twice the rounding unit of float32, for products that are rounded before they are added.
_UNIT = 2.0**-23


@torch.no_grad()
def certified_margins(layers: nn.Sequential, features: Tensor, wanted: Tensor) -> Tensor:
    """Lower bounds [n] of the gap between the wanted class and any other one, over all orders of summation.

    Args:
        layers: linear layers and ReLUs, in float32.
        features: exact inputs, [n, width].
        wanted: right classes, int64 [n].

    Returns:
        float64; NaN or infinite weights give NaN, which no comparison takes for large enough.
    """
    x, off = features.double(), torch.zeros_like(features, dtype=torch.float64)
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            x = x.relu()
            continue
        weight, bias = layer.weight.double(), layer.bias.double()
        terms = weight.shape[1] + 1
        gamma = terms * _UNIT / (1 - terms * _UNIT)
        size = (x.abs() + off) @ weight.abs().T + bias.abs()
        off = off @ weight.abs().T + gamma * size
        x = x @ weight.T + bias
    low = (x - off).gather(1, wanted[:, None])[:, 0]
    if x.shape[1] == 1:
        return torch.where(low.isfinite(), torch.inf, torch.nan)
    return low - (x + off).scatter(1, wanted[:, None], -torch.inf).amax(1)


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """float32 as it is: no autocast around, no reduced precision of products."""
    before = torch.get_float32_matmul_precision()
    with torch.autocast("cpu", enabled=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
