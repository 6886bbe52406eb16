"""A layer of the rerooted convolution with one pass in C around its matrix products (`native/tree_layer.c`).

The products take half of a training step as array operations stand, the two dozen passes between them the other
half; here the latter are one pass forward and one backward. Only the layer of the detector is written this way
(single precision on the CPU, residual, LayerNorm); everything else stays with the operations of torch, which also
say what is right (`tests/programs/trees/test_layer_native.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...native import kernels
from .topology import Topology

States = tuple[Tensor, Tensor, Tensor]


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether the pass in C takes these: built, single precision, on the CPU, and not being captured."""
    return (
        kernels is not None
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )


def layer(
    states: States,
    below: tuple[Tensor, Tensor],
    above: Tensor,
    norm: tuple[Tensor, Tensor, float],
    t: Topology,
) -> States:
    """`up`, `down` and `pivot` after one layer.

    Args:
        states: the same before it, `[nodes, width]` each.
        below: weight `[3 width, width]` and bias of (self, left, right).
        above: weight `[2 width, width]` of a parent's (near, far).
        norm: weight, bias and epsilon of the LayerNorm.
        t: shape of the forest.
    """
    result: States = _Layer.apply(
        *(s.contiguous() for s in states), *below, above, *norm[:2], t, norm[2], torch.is_grad_enabled()
    )
    return result


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, up: Tensor, down: Tensor, pivot: Tensor, weight: Tensor, bias: Tensor, above: Tensor,
        gamma: Tensor, beta: Tensor, topology: Topology, eps: float, keep: bool,
    ) -> States:  # fmt: skip
        nodes, width = up.shape
        from_parent = torch.cat([weight[:width], above])
        mixed = [torch.addmm(bias, up, weight.T), down @ from_parent.T, pivot @ weight[:width].T]
        out = [torch.empty_like(up) for _ in range(3)]
        kept: list[Tensor | None] = [None] * 9
        if keep:
            kept = [torch.empty_like(up) for _ in range(3)]
            kept += [up.new_empty(nodes) for _ in range(3)]
            kept += [torch.empty(nodes, width, dtype=torch.uint8) for _ in range(3)]
        rho = topology.rho.to(torch.float32).contiguous()
        shape = [
            rho,
            *(column.contiguous() for column in (topology.first, topology.children, topology.parent)),
        ]
        _call([up, down, pivot, *mixed, *out, *kept, gamma, beta, bias, None, None, *shape],
              nodes, width, eps, backward=False)  # fmt: skip
        if keep:
            ctx.save_for_backward(up, down, pivot, weight, from_parent, gamma, *kept, *shape)
            ctx.eps = eps
        return out[0], out[1], out[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        up, down, pivot, weight, from_parent, gamma, *rest = ctx.saved_tensors
        kept, shape = rest[:9], rest[9:]
        nodes, width = up.shape
        given = [torch.zeros_like(up) if grad is None else grad.contiguous() for grad in grads]
        mixed = [up.new_empty(nodes, 3 * width), up.new_empty(nodes, 3 * width), up.new_empty(nodes, width)]
        passed = [torch.empty_like(up) for _ in range(3)]
        gamma_grad, beta_grad = torch.zeros_like(gamma), torch.zeros_like(gamma)
        _call([*given, *mixed, *passed, *kept, gamma, None, None, gamma_grad, beta_grad, *shape],
              nodes, width, ctx.eps, backward=True)  # fmt: skip
        below, parent, own = mixed
        weight_grad, from_parent_grad = below.T @ up, parent.T @ down
        weight_grad[:width] += from_parent_grad[:width] + own.T @ pivot
        bias_grad = below.sum(0)
        bias_grad[:width] += parent[:, :width].sum(0) + own.sum(0)
        return (
            passed[0].addmm_(below, weight), passed[1].addmm_(parent, from_parent),
            passed[2].addmm_(own, weight[:width]), weight_grad, bias_grad, from_parent_grad[width:], gamma_grad,
            beta_grad, None, None, None,
        )  # fmt: skip


def _call(tensors: list[Tensor | None], nodes: int, width: int, eps: float, *, backward: bool) -> None:
    assert kernels is not None
    # The struct `layer` of tree_layer.c, whose last field the callee fills.
    addresses = np.array([0 if t is None else t.data_ptr() for t in tensors] + [0], np.uint64)
    kernels.tree_layer(addresses.ctypes.data, nodes, width, eps, backward)
