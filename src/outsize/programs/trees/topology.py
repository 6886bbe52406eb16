"""What the layers need to know of a forest's shape, as tensors.

A layer sums over children, reads a parent, and weighs a child by its place among its siblings. All of it is
integer work that is the same for every layer and every step on a forest, so it is done once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...native import kernels, warn_missing
from .forest import Forest, Ints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Shape of a packed forest.

    Attributes:
        nodes: how many.
        inner: `[e]` int64, the nodes that have a parent, ascending.
        above: `[e]` int64, their parents.
        parent: `[nodes]` int64, the parent; a root is its own.
        has_parent: `[nodes, 1]` 1.0 below a root, 0.0 at a root.
        rho: `[nodes, 1]` place among the siblings from 0 (first) to 1 (last); 0.5 for an only child.
        children: `[nodes]` int64, the number of children.
        first: `[nodes]` int64, the first child (breadth-first order keeps the children of a node together).
    """

    nodes: int
    inner: Tensor
    above: Tensor
    parent: Tensor
    has_parent: Tensor
    rho: Tensor
    children: Tensor
    first: Tensor

    @staticmethod
    def of(forest: Forest, dtype: torch.dtype = torch.float32) -> Topology:
        """The shape of a forest.

        Args:
            forest: the trees.
            dtype: of the weights, `rho` and `has_parent`.

        Returns:
            the tensors, on the CPU.
        """
        parent = forest.absolute_parent
        nodes = forest.nodes
        inner = np.flatnonzero(parent >= 0)
        children = np.bincount(parent[inner], minlength=nodes)
        siblings = np.ones(nodes, np.int64)
        siblings[inner] = children[parent[inner]]
        rho = np.where(siblings > 1, forest.pos / np.maximum(siblings - 1, 1), 0.5)
        return Topology(
            nodes=nodes,
            inner=torch.from_numpy(inner),
            above=torch.from_numpy(parent[inner]),
            parent=torch.from_numpy(np.where(parent < 0, np.arange(nodes), parent)),
            has_parent=torch.from_numpy((parent >= 0)[:, None]).to(dtype),
            rho=torch.from_numpy(rho[:, None]).to(dtype),
            children=torch.from_numpy(children),
            first=torch.from_numpy(_first_children(inner, children)),
        )

    def to(self, dtype: torch.dtype) -> Topology:
        """The same shape with its weights in another precision.

        Args:
            dtype: of the weights.

        Returns:
            another topology; the indices are shared.
        """
        return dataclasses.replace(self, rho=self.rho.to(dtype), has_parent=self.has_parent.to(dtype))

    def child_sum(self, values: Tensor) -> Tensor:
        """Sum of `values` `[nodes, h]` over the children of each node: `[nodes, h]`.

        Args:
            values: `[nodes, h]`.

        Returns:
            `[nodes, h]`; zeros at a leaf.
        """
        total = values.new_zeros(values.shape)
        return total.index_add(0, self.above, values.index_select(0, self.inner))

    def mixed_sum(self, mixed: Tensor, left: int) -> Tensor:
        """Sum over children of `(1 - rho) l + rho r`, with l and r two blocks of columns of `mixed`.

        Args:
            mixed: `[nodes, columns]`, contiguous.
            left: the column where l begins; r follows it, and ends at the last column.

        Returns:
            `[nodes, (columns - left) / 2]`. One pass in C for float32 on the CPU, with its gradient; else torch.
        """
        if mixed.dtype == torch.float32 and mixed.device.type == "cpu" and mixed.is_contiguous():
            if kernels is not None:
                summed: Tensor = _MixedSum.apply(mixed, self, left)
                return summed
            warn_missing("sums over children take several passes of torch")
        near, far = mixed[:, left:].chunk(2, -1)
        return self.child_sum(torch.lerp(near, far, self.rho.to(mixed.dtype)))


def _first_children(inner: Ints, children: Ints) -> Ints:
    """Children follow one another in the order of their parents, tree after tree, roots left out."""
    begin = np.cumsum(children) - children
    return inner[np.minimum(begin, max(len(inner) - 1, 0))] if len(inner) else begin


class _MixedSum(torch.autograd.Function):
    """`Topology.mixed_sum` through the C module (`native/trees.c`)."""

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, topology: Topology, left: int) -> Tensor:
        ctx.topology, ctx.left, ctx.columns = topology, left, mixed.shape[1]
        width = (mixed.shape[1] - left) // 2
        out = mixed.new_empty(mixed.shape[0], width)
        _call("child_sum", mixed, topology, out, width, mixed.shape[1], left)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        out = grad.new_zeros(grad.shape[0], ctx.columns)
        _call("child_spread", grad.contiguous(), ctx.topology, out, grad.shape[1], ctx.columns, ctx.left)
        return out, None, None


def _call(
    name: str, read: Tensor, topology: Topology, out: Tensor, width: int, stride: int, left: int
) -> None:
    assert kernels is not None
    rho = topology.rho.to(torch.float32).contiguous()
    first, count = topology.first.contiguous(), topology.children.contiguous()
    getattr(kernels, name)(
        read.data_ptr(), rho.data_ptr(), first.data_ptr(), count.data_ptr(), out.data_ptr(), topology.nodes,
        width, stride, left,
    )  # fmt: skip
