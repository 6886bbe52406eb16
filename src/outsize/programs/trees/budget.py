"""Training the tree convolution under a byte budget.

Long files make large forests, and a layer keeps several vectors per node for its backward pass. `outsize.compile` plans
those bytes, one plan for each shape it meets; but no two batches of trees have the same number of nodes. So a forest
is padded to the next multiple of `bucket` by one more tree, whose nodes nobody reads, and a plan serves every batch of
that bucket.
"""

from __future__ import annotations

import dataclasses
import warnings

import torch
from torch import Tensor, nn

from .localized import EdgeStates, LocalizedTreeConv
from .topology import Topology

#: Nodes in one bucket: half the nodes of a usual batch of 64 functions, so a run meets a handful of shapes and pads by
#: a quarter on average.
BUCKET = 2048


def padded(topology: Topology, nodes: int) -> Topology:
    """The same forest with one more tree (a root and its children) that fills it up to `nodes`.

    The number of trees, and with it the number of edges, then depends on the bucket and the batch size only.
    """
    old, extra = topology.nodes, nodes - topology.nodes
    own = torch.arange(old + 1, nodes)
    root = torch.full((extra - 1,), old)
    weight = topology.rho.dtype

    def grown(column: Tensor, first: float, rest: float) -> Tensor:
        shape = (extra, *column.shape[1:])
        more = torch.full(shape, rest, dtype=column.dtype)
        more[0] = first
        return torch.cat([column, more])

    return Topology(
        nodes=nodes, inner=torch.cat([topology.inner, own]), above=torch.cat([topology.above, root]),
        parent=grown(topology.parent, old, old), has_parent=grown(topology.has_parent.to(weight), 0, 1),
        rho=grown(topology.rho, 0.5, 0.5), children=grown(topology.children, extra - 1, 0),
        first=grown(topology.first, min(old + 1, nodes - 1), nodes - 1),
    )  # fmt: skip


class _Step(nn.Module):
    """The convolution with tensors only in its signature, as a captured step needs it."""

    def __init__(self, tree: LocalizedTreeConv) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, x: Tensor, own: Tensor, *shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner, above, parent, has_parent, rho, children, first = shape
        topology = Topology(
            nodes=x.shape[0], inner=inner, above=above, parent=parent, has_parent=has_parent, rho=rho,
            children=children, first=first,
        )  # fmt: skip
        states = self.tree.edge_states(x, topology, own)
        return states.up, states.down, states.pivot


class BudgetedTree(nn.Module):
    """`LocalizedTreeConv.edge_states` under a budget; shares the parameters of the convolution it is given.

    Args:
        tree: the convolution.
        budget: as `outsize.compile` takes it: bytes, or a text such as "600 MiB".
        bucket: forests are padded to a multiple of so many nodes.
    """

    def __init__(self, tree: LocalizedTreeConv, budget: int | str, *, bucket: int = BUCKET) -> None:
        super().__init__()
        import outsize

        self.bucket = bucket
        self.step = outsize.compile(_Step(tree), budget=budget)

    def edge_states(self, x: Tensor, topology: Topology, pivot_x: Tensor) -> EdgeStates:
        """See `LocalizedTreeConv.edge_states`; the padding is cut off again."""
        count = topology.nodes
        nodes = -(-(count + 1) // self.bucket) * self.bucket
        whole = padded(topology, nodes)
        fill = x.new_zeros(nodes - count, x.shape[1])
        shape = [getattr(whole, f.name) for f in dataclasses.fields(whole) if f.name != "nodes"]
        with warnings.catch_warnings():
            # Tracing reads `.grad` of every input, and torch warns because these are no leaves.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            up, down, pivot = self.step(torch.cat([x, fill]), torch.cat([pivot_x, fill]), *shape)
        return EdgeStates(up=up[:count], down=down[:count], pivot=pivot[:count])
