"""Tree convolution that looks at one place: the vector of a pivot describes its subtree in its context.

A tree-based CNN pools over the whole tree; it can say what a program is, not where something is. Method 6 (US
11,106,970 B2) marks a pivotal node that is not the root, and computes each layer's vectors from a node, its
parent, and its children that are not ancestors of the pivot. The last layer's pivot vector is all that is
read.

Two modes of the same layer,

    h'(w) = act(W_s h(w) + sum_c [(1 - rho_c) W_L + rho_c W_R] h(c) / sqrt(n) + [(1 - rho_w) W_PL + rho_w
    W_PR] h(p) + b),

with rho the place among the siblings (0.5 for an only child) and n the number of children that count, differ
in who reads whom. `claim`: claims 1 and 2 to the letter; every node reads its parent, and its children but
the pivot's ancestors. `rerooted`: information only flows towards the pivot; a node reads its neighbours other
than the one on its way to the pivot.

And there are three ways to compute the same vectors:

* `full`: each pivot's whole tree, once per pivot: O(layers x nodes x pivots).
* `windows`: the nodes within as many hops as there are layers; nothing farther can reach the pivot. Rows are
  ordered by distance, so layer l only touches a prefix. The cost does not depend on the size of the tree.
* `all`: every pivot of the tree in one pass: O(layers x nodes). In the rerooted mode the state of a node
  depends on the pivot only through the neighbour on the way to it, so one state per directed edge serves all
  pivots. The claim's mode has no such form: there a node reads its parent, the parent leaves out whichever of
  its children is on the path, and a sibling's state thus depends on pairs of siblings; asking for it is an
  error.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import TreesError
from . import layer_native
from .forest import Forest, Ints
from .topology import Topology
from .windows import Rows, window_rows

Mode = Literal["rerooted", "claim"]
Way = Literal["all", "windows", "full"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeStates:
    """The last layer's states on directed edges, `[nodes, width]` each.

    Attributes:
        up: what a node sends to its parent: its subtree.
        down: what a node receives from its parent: the context, without the node.
        pivot: the node's vector as a pivot: subtree and context.
    """

    up: Tensor
    down: Tensor
    pivot: Tensor


class LocalizedTreeConv(nn.Module):
    """A stack of localized tree-convolution layers (method 6).

    Args:
        width: channels of the input and of every layer.
        layers: how many, two or more (the claim names two); also the hops that a pivot sees.
        mode: see the module.
        residual: add a layer's input to its output.
        norm: normalise every layer's output (LayerNorm).
        pivot_is_child: in the claim's mode, whether the pivot's parent reads the pivot. The claim excludes
            "ancestors of the pivotal node", which the pivot is not, hence True.
    """

    def __init__(
        self, width: int, *, layers: int = 2, mode: Mode = "rerooted",
        residual: bool = False, norm: bool = False,
        pivot_is_child: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if layers < 2:
            raise TreesError(f"a localized tree convolution has two layers or more, {layers} was asked for")
        if mode not in ("rerooted", "claim"):
            raise TreesError(f"mode {mode!r} is neither 'rerooted' nor 'claim'")
        self.width, self.layers, self.mode = width, layers, mode
        self.residual, self.pivot_is_child = residual, pivot_is_child
        self.below = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))  # self, left, right
        self.above = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(layers))  # parent's
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(layers))
        for below, above in map(self._weights, range(layers)):
            nn.init.uniform_(below.bias, -0.01, 0.01)
            for weight in (below.weight, above.weight):
                nn.init.normal_(weight, std=1 / math.sqrt(3 * width))

    def forward(
        self,
        x: Tensor,
        forest: Forest,
        pivots: Tensor | Ints,
        *,
        way: Way = "all",
        pivot_x: Tensor | None = None,
    ) -> Tensor:
        """Vectors of the pivots.

        Args:
            x: `[nodes, width]` node vectors.
            forest: the trees.
            pivots: `[p]` node indices into the forest, none a root.
            way: see the module.
            pivot_x: `[p, width]` what stands at each pivot instead of its row of `x` (a masked token, say);
                the other nodes' rows stay.

        Returns:
            `[p, width]`, the last layer's pivot vectors.

        Raises:
            TreesError: a pivot that is a root or out of range, shapes that do not fit, `all` in the claim's
                mode.
        """
        index = torch.as_tensor(np.asarray(pivots)).long()
        self._check(x, forest, index)
        if way == "all":
            if self.mode == "claim":
                raise TreesError(
                    "mode 'claim' has no one-pass form (a sibling's state depends on the pair of siblings): "
                    "use way='windows', or mode 'rerooted'"
                )
            return self._all(x, Topology.of(forest, x.dtype), index, pivot_x)
        rows = window_rows(forest, index.numpy(), self.layers if way == "windows" else None)
        return self._rows(x, forest, rows, pivot_x)

    def _check(self, x: Tensor, forest: Forest, pivots: Tensor) -> None:
        if x.shape != (forest.nodes, self.width):
            raise TreesError(f"x has shape {tuple(x.shape)}, the forest needs {(forest.nodes, self.width)}")
        if len(pivots) and (int(pivots.min()) < 0 or int(pivots.max()) >= forest.nodes):
            raise TreesError(f"pivots must lie in 0 … {forest.nodes - 1}")
        root = np.asarray(forest.parent)[pivots.numpy()] < 0
        if root.any():
            first = int(pivots[int(np.flatnonzero(root)[0])])
            raise TreesError(f"pivot {first} is the root of its tree: a pivot needs a parent")

    def _weights(self, layer: int) -> tuple[nn.Linear, nn.Linear]:
        return cast(nn.Linear, self.below[layer]), cast(nn.Linear, self.above[layer])

    def _act(self, layer: int, state: Tensor, z: Tensor) -> Tensor:
        out = F.relu(z) if self.residual else torch.tanh(z)
        out = state + out if self.residual else out
        norm = self.norms[layer]
        if not isinstance(norm, nn.LayerNorm):
            return out
        return F.layer_norm(out, (self.width,), norm.weight.to(out.dtype), norm.bias.to(out.dtype), norm.eps)

    # Every pivot in one pass.

    def edge_states(self, x: Tensor, topology: Topology, pivot_x: Tensor) -> EdgeStates:
        """States on all directed edges, and of all nodes as pivots: one pass of O(layers x nodes).

        Args:
            topology: of the forest.
            x: `[nodes, width]`.
            pivot_x: `[nodes, width]`, each node's own vector when it is the pivot.

        Returns:
            the states: `[edges, width]` up and down, `[nodes, width]` of the pivots.
        """
        up, down, pivot = self._edges(x, topology, None, pivot_x)
        return EdgeStates(up=up, down=down, pivot=pivot)

    def _fused(self, layer: int) -> tuple[tuple[Tensor, Tensor], Tensor, tuple[Tensor, Tensor, float]] | None:
        """The parameters as `layer_native.layer` takes them; None without LayerNorm."""
        below, above, norm = *self._weights(layer), self.norms[layer]
        if not isinstance(norm, nn.LayerNorm):
            return None
        return (below.weight, below.bias), above.weight, (norm.weight, norm.bias, norm.eps)

    def _all(self, x: Tensor, topology: Topology, pivots: Tensor, pivot_x: Tensor | None) -> Tensor:
        own = x.index_select(0, pivots) if pivot_x is None else pivot_x
        return self._edges(x, topology, pivots, own)[2]

    def _edges(
        self, x: Tensor, t: Topology, pivots: Tensor | None, own: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = t.children.to(x.dtype)[:, None]
        whole, without = count.clamp(min=1).rsqrt(), (count - 1).clamp(min=1).rsqrt()
        up, down, pivot = x, x.index_select(0, t.parent), own
        if pivots is None and self.residual and layer_native.usable(x, self._weights(0)[0].weight):
            fused = [self._fused(layer) for layer in range(self.layers)]
            if all(parts is not None for parts in fused):
                for parts in fused:
                    assert parts is not None
                    up, down, pivot = layer_native.layer((up, down, pivot), *parts, t)
                return up, down, pivot
        share = without.index_select(0, t.parent) * t.has_parent.to(x.dtype)  # a root hears nothing
        for layer in range(self.layers):
            below, above = self._weights(layer)
            still, left, right = _linear(below, up).chunk(3, -1)
            child = torch.lerp(left, right, t.rho.to(left.dtype))
            total = t.child_sum(child)
            near, far = _linear(above, down).chunk(2, -1)
            context = torch.lerp(near, far, t.rho.to(near.dtype)) * t.has_parent.to(near.dtype)
            weight, bias = (p[: self.width].to(x.dtype) for p in (below.weight, below.bias))
            inside = total * whole.to(total.dtype)
            beside = (total.index_select(0, t.parent) - child) * share.to(child.dtype)
            from_above = beside + context.index_select(0, t.parent)
            both = inside + context
            seen = both if pivots is None else both.index_select(0, pivots)
            pivot = self._act(layer, pivot, F.linear(pivot, weight, bias) + seen)
            down = self._act(layer, down, F.linear(down, weight, bias) + from_above)
            up = self._act(layer, up, still + inside)
        return up, down, pivot

    # One pivot at a time, whole trees or windows.

    def _rows(self, x: Tensor, forest: Forest, rows: Rows, pivot_x: Tensor | None) -> Tensor:
        flow = rows.flow(forest, self.mode, self.pivot_is_child)
        state = x.index_select(0, torch.from_numpy(rows.node))
        if pivot_x is not None:
            state = torch.cat([pivot_x.to(state.dtype), state[rows.pivots :]])
        rho = torch.from_numpy(flow.rho[:, None]).to(x.dtype)
        scale = torch.from_numpy(flow.scale[:, None]).to(x.dtype)
        for layer in range(self.layers):
            # After this layer only rows within the remaining hops can still reach a pivot.
            keep, known = rows.within(self.layers - layer - 1), len(state)
            below, above = self._weights(layer)
            w = self.width
            # Only what is read is multiplied: own vectors of the rows that stay, and the senders'.
            z = F.linear(state[:keep], below.weight[:w], below.bias[:w])
            source, target = flow.child.upto(known, keep).tensors()
            left, right = F.linear(state.index_select(0, source), below.weight[w:], below.bias[w:]).chunk(
                2, -1
            )
            total = z.new_zeros(z.shape).index_add(0, target, torch.lerp(left, right, rho[source]))
            z = torch.addcmul(z, total, scale[:keep])
            source, target = flow.parent.upto(known, keep).tensors()
            near, far = _linear(above, state.index_select(0, source)).chunk(2, -1)
            z = z.index_add(0, target, torch.lerp(near, far, rho[target]))
            state = self._act(layer, state[:keep], z)
        return state[: rows.pivots]


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the precision of its input: parameters stay in single precision, activations may be
    half.
    """
    bias: Tensor | None = layer.bias
    return F.linear(x, layer.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class TreeConv(nn.Module):
    """One layer of the tree-based CNN of Mou et al. (AAAI 2016), window depth 2, over a packed forest.

    With depth 2 the continuous binary tree reduces to `W_t` for the node and, for child i of n, the mixture
    `(1 - rho) W_l + rho W_r`, rho = (i - 1) / (n - 1). Two traps: published codes disagree on an only child
    (half and half here, as the paper's limit; others use `W_l` alone), and for windows deeper than 2 the
    paper's three coefficients as printed do not sum to 1, because eta_r already holds the factor (1 - eta_t).

    Args:
        width_in, width_out: channels.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.width_in = width_in
        self.mix = nn.Linear(width_in, 3 * width_out, bias=False)
        self.bias = nn.Parameter(torch.zeros(width_out))
        nn.init.xavier_uniform_(self.mix.weight)

    def forward(self, x: Tensor, forest: Forest | Topology) -> Tensor:
        """`[nodes, width_in]` to `[nodes, width_out]`, each in (-1, 1).

        Args:
            x: `[nodes, width_in]` node vectors.
            forest: the trees, or their topology in the dtype of `x`.

        Returns:
            `[nodes, width_out]`, each element in (-1, 1).

        Raises:
            TreesError: the rows of `x` are not the nodes of the forest.
        """
        topology = forest if isinstance(forest, Topology) else Topology.of(forest, x.dtype)
        if x.shape != (topology.nodes, self.width_in):
            raise TreesError(
                f"x has shape {tuple(x.shape)}, the forest needs {(topology.nodes, self.width_in)}"
            )
        mixed = self.mix(x)
        width = len(self.bias)
        return torch.tanh(mixed[:, :width] + topology.mixed_sum(mixed, width) + self.bias)
