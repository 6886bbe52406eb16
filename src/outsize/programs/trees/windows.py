"""The neighbourhood of each pivot, as rows of one flat batch.

A row is a pair (pivot, node). Rows are found ring by ring: from every row of the last ring to its node's
neighbours but the one it came from; in a tree no node is met twice. So rows are ordered by distance, each row
but the pivots' brought exactly one edge, and a smaller neighbourhood is a prefix of both.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from .forest import Forest, Ints, expand


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges:
    """Directed edges between rows, ordered by their farther end."""

    source: Ints
    target: Ints

    def upto(self, rows: int, targets: int) -> Edges:
        """The edges among the first `rows` that lead to one of the first `targets`."""
        count = int(np.searchsorted(np.maximum(self.source, self.target), rows))
        source, target = self.source[:count], self.target[:count]
        if targets < rows and len(target) and int(target.max()) >= targets:
            source, target = source[target < targets], target[target < targets]
        return Edges(source=source, target=target)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.source), torch.from_numpy(self.target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """Who reads whom among the rows.

    Attributes:
        child: from a child's row to its parent's row.
        parent: from a parent's row to its child's row.
        rho: `[rows]` the node's place among all its siblings.
        scale: `[rows]` one over the root of the number of children that count.
    """

    child: Edges
    parent: Edges
    rho: Ints
    scale: Ints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Windows of several pivots.

    Attributes:
        pivots: how many; their rows come first.
        node: `[rows]` int64, the node in the forest.
        near: `[rows - pivots]` int64, the row from which row `pivots + i` was reached.
        upward: `[rows - pivots]` bool, whether it is the parent of that row.
        rings: rows up to each distance; without a limit on the hops, every entry is the number of rows.
        bounded: whether the hops were limited.
    """

    pivots: int
    node: Ints
    near: Ints
    upward: Ints
    rings: list[int]
    bounded: bool

    def within(self, hops: int) -> int:
        """How many rows lie within `hops` of their pivot (all, where windows were not limited)."""
        return self.rings[min(hops, len(self.rings) - 1)] if self.bounded else len(self.node)

    def flow(self, forest: Forest, mode: str, pivot_is_child: bool) -> Flow:
        """Edges and weights of one mode of `LocalizedTreeConv`."""
        far = np.arange(self.pivots, len(self.node))
        up, down = np.flatnonzero(self.upward), np.flatnonzero(~self.upward)
        parent = forest.absolute_parent
        inner = parent >= 0
        children = np.bincount(parent[inner], minlength=forest.nodes)
        counted = children[self.node].astype(np.float64)
        counted[far[up]] -= 1  # the way to the pivot leads through one child
        child_edges = [(far[down], self.near[down])]
        parent_edges = [(far[up], self.near[up])]
        if mode == "claim":
            parent_edges.append((self.near[down], far[down]))
            if pivot_is_child:
                first = up[self.near[up] < self.pivots]
                child_edges.append((self.near[first], far[first]))
                counted[far[first]] += 1
        siblings = np.ones(forest.nodes)
        siblings[inner] = children[parent[inner]]
        rho = np.where(siblings > 1, forest.pos / np.maximum(siblings - 1, 1), 0.5)
        scale = 1 / np.sqrt(np.maximum(counted, 1))
        return Flow(child=_sorted(child_edges), parent=_sorted(parent_edges), rho=rho[self.node], scale=scale)


def _sorted(pairs: list[tuple[Ints, Ints]]) -> Edges:
    source = np.concatenate([pair[0] for pair in pairs])
    target = np.concatenate([pair[1] for pair in pairs])
    if len(pairs) == 1:  # ascending as it comes: every edge was brought by its farther row
        return Edges(source=source, target=target)
    order = np.argsort(np.maximum(source, target), kind="stable")
    return Edges(source=source[order], target=target[order])


def window_rows(forest: Forest, pivots: Ints, hops: int | None) -> Rows:
    """Rows of all nodes within `hops` of each pivot; None takes whole trees."""
    parent = forest.absolute_parent
    inner = np.flatnonzero(parent >= 0)
    counts = np.bincount(parent[inner], minlength=forest.nodes)
    begins = _first_children(parent, inner, forest.nodes)
    node = np.asarray(pivots, np.int64)
    came = np.full(len(node), -1)
    row = np.arange(len(node))
    nodes, nears, ups, rings = [node], [], [], [len(node)]
    total = len(node)
    while len(node) and (hops is None or len(rings) <= hops):
        climb = np.flatnonzero((parent[node] >= 0) & (parent[node] != came))
        fan = np.repeat(np.arange(len(node)), counts[node])
        below = inner[expand(begins[node], counts[node])] if len(fan) else np.zeros(0, np.int64)
        other = below != came[fan]
        fan, below = fan[other], below[other]
        nears.append(np.concatenate([row[climb], row[fan]]))
        ups.append(np.concatenate([np.ones(len(climb), np.bool_), np.zeros(len(fan), np.bool_)]))
        came = np.concatenate([node[climb], node[fan]])
        node = np.concatenate([parent[node[climb]], below])
        row = total + np.arange(len(node))
        total += len(node)
        nodes.append(node)
        rings.append(total)
    return Rows(
        pivots=len(pivots), node=np.concatenate(nodes),
        near=np.concatenate([*nears, np.zeros(0, np.int64)]).astype(np.int64),
        upward=np.concatenate([*ups, np.zeros(0, np.bool_)]), rings=rings, bounded=hops is not None,
    )  # fmt: skip


def _first_children(parent: Ints, inner: Ints, nodes: int) -> Ints:
    """Where each node's children begin in `inner` (breadth-first order keeps them together)."""
    counts = np.bincount(parent[inner], minlength=nodes)
    return np.cumsum(counts) - counts
