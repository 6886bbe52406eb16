"""What the layers need to know of a forest's shape, as tensors.

A layer sums over children, reads a parent, and weighs a child by its place among its siblings. All of it is
integer work that is the same for every layer and every step on a forest, so it is done once.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from .forest import Forest


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
    """

    nodes: int
    inner: Tensor
    above: Tensor
    parent: Tensor
    has_parent: Tensor
    rho: Tensor
    children: Tensor

    @staticmethod
    def of(forest: Forest, dtype: torch.dtype = torch.float32) -> Topology:
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
        )

    def to(self, dtype: torch.dtype) -> Topology:
        """The same shape with its weights in another precision."""
        return dataclasses.replace(self, rho=self.rho.to(dtype), has_parent=self.has_parent.to(dtype))

    def child_sum(self, values: Tensor) -> Tensor:
        """Sum of `values` `[nodes, h]` over the children of each node: `[nodes, h]`."""
        total = values.new_zeros(values.shape)
        return total.index_add(0, self.above, values.index_select(0, self.inner))
