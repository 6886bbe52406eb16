"""What the localized tree convolution has to beat, trained on the same functions with the same bugs.

Undirected tree convolution and GRU over the nodes in reading order come twice: as they are usually built, with a
classifier on the vector of each place, and as encoders under the detector's own heads (candidates, votes of the
occurrences), which says what the layers alone contribute. The others score candidates in their own way. All give
logits for the same candidate table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from outsize.programs.trees.batch import Batch, collate
from outsize.programs.trees.forest import Forest, ranges
from outsize.programs.trees.functions import Functions
from outsize.programs.trees.grammar import FIELDS, KINDS, PLACES, RESERVED
from outsize.programs.trees.inject import KINDS as BUGS
from outsize.programs.trees.inject import inject
from outsize.programs.trees.localized import EdgeStates, TreeConv
from outsize.programs.trees.model import log_sum_exp
from outsize.programs.trees.topology import Topology
from outsize.programs.trees.words import WordEmbedding, WordTable


class UndirectedEncoder(nn.Module):
    """Self, parent and children at every layer, without a pivot: a node's vector sees what stands there."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))

    def edge_states(self, x: Tensor, topology: Topology, pivot_x: Tensor) -> EdgeStates:
        h = x.float()
        scale = topology.children.clamp(min=1).rsqrt()[:, None].float()
        rho, below = topology.rho.float(), topology.has_parent.float()
        for mix, norm in zip(self.mix, self.norms):
            own, left, right, above = mix(h).chunk(4, -1)
            inside = topology.child_sum(torch.lerp(left, right, rho)) * scale
            h = norm(h + F.relu(own + inside + above.index_select(0, topology.parent) * below))
        return EdgeStates(up=h, down=h.index_select(0, topology.parent), pivot=h)


class SequenceEncoder(nn.Module):
    """A bidirectional GRU over the nodes in reading order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.reading: tuple[Tensor, Tensor] | None = None

    def read(self, functions: Functions) -> None:
        """Where each node stands: `(function, rank)`; called before each batch."""
        tree = torch.from_numpy(functions.forest.tree_of)
        self.reading = tree, torch.from_numpy(functions.order.astype("int64"))

    def edge_states(self, x: Tensor, topology: Topology, pivot_x: Tensor) -> EdgeStates:
        assert self.reading is not None
        tree, rank = self.reading
        lengths = torch.bincount(tree)
        padded = x.float().new_zeros(len(lengths), int(lengths.max()), x.shape[1])
        padded[tree, rank] = x.float()
        packed = nn.utils.rnn.pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        h = x.float() + out[tree, rank]
        return EdgeStates(up=h, down=h.index_select(0, topology.parent), pivot=h)


def signs(batch: Batch, tokens: Tensor) -> Tensor:
    """`[nodes]` one number for kind and, where it is an operator or a small literal, token."""
    reserved = torch.where(tokens < len(RESERVED), tokens, torch.zeros_like(tokens))
    return batch.kind * len(RESERVED) + reserved


class _PlaceScorer(nn.Module):
    """A logit for each place; its candidates share it evenly."""

    def spread(self, batch: Batch, place: Tensor) -> tuple[Tensor, Tensor]:
        options = torch.bincount(batch.candidate_place, minlength=len(place)).clamp(min=2) - 1
        logits = (place - options.log()).index_select(0, batch.candidate_place)
        logits = logits.masked_fill(batch.candidate_current, float("-inf"))
        return logits, logits

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        _, logits = self(batch)
        function = batch.place_function.index_select(0, batch.candidate_place)
        rewrites = ~batch.candidate_current
        total = F.softplus(log_sum_exp(logits[rewrites], function[rewrites], batch.functions, floor=-30.0))
        repaired = batch.repair >= 0
        answer = torch.where(repaired, logits[batch.repair.clamp(min=0)], logits.new_zeros(()))
        return (total - answer).mean(), logits.new_zeros(())


class PlaceClassifier(_PlaceScorer):
    """An encoder, and a linear layer on the vector of each place: no candidates, no votes, nothing masked."""

    def __init__(self, encoder: nn.Module, width: int, rows: int = 16384, inner: int = 64) -> None:
        super().__init__()
        self.kinds, self.fields = nn.Embedding(len(KINDS), width), nn.Embedding(len(FIELDS), width)
        self.words = WordEmbedding(rows, inner, width)
        self.tree = encoder
        self.out = nn.Linear(width, len(PLACES))
        for table in (self.kinds, self.fields):
            nn.init.normal_(table.weight, std=0.5)
        nn.init.constant_(self.out.bias, -4.0)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        bare = self.kinds(batch.kind) + self.fields(batch.field)
        x = bare + self.words(batch.words, batch.offsets).index_select(0, batch.token)
        vector = self.tree.edge_states(x, batch.topology, bare).pivot.index_select(0, batch.place_node)
        return self.spread(batch, self.out(vector).gather(1, batch.place_kind[:, None])[:, 0])


class LinearWindow(_PlaceScorer):
    """A linear bag of the kinds (with operators and small numbers) within three hops of the place."""

    def __init__(self, hops: int = 3) -> None:
        super().__init__()
        self.hops = hops
        self.weight = nn.EmbeddingBag((hops + 1) * len(KINDS) * len(RESERVED), 1, mode="sum")
        self.bias = nn.Embedding(len(PLACES), 1)
        nn.init.zeros_(self.weight.weight)
        nn.init.constant_(self.bias.weight, -4.0)
        self.tokens: Tensor | None = None
        self.forest = None

    def read(self, functions: Functions) -> None:
        self.forest = functions.forest
        self.tokens = torch.from_numpy(functions.forest.token.astype("int64"))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        from outsize.programs.trees.windows import window_rows

        rows = window_rows(self.forest, batch.place_node.numpy(), self.hops)
        sign = signs(batch, self.tokens)[torch.from_numpy(rows.node)]
        start, pivot, sizes = 0, torch.zeros(len(rows.node), dtype=torch.long), [*rows.rings]
        pivot[: rows.pivots] = torch.arange(rows.pivots)
        near = torch.from_numpy(rows.near)
        for ring, stop in enumerate(sizes):
            if ring:
                pivot[start:stop] = pivot[near[start - rows.pivots : stop - rows.pivots]]
            sign[start:stop] += ring * len(KINDS) * len(RESERVED)
            start = stop
        value = self.weight(sign[:, None])[:, 0]
        score = value.new_zeros(rows.pivots).index_add(0, pivot, value)
        return self.spread(batch, score + self.bias(batch.place_kind)[:, 0])


class NgramTable(nn.Module):
    """Counts of what stands in a slot (parent's kind, role, own kind, grandparent's kind), with one weight
    learned.

    A candidate's score is the logarithm of its smoothed share in the slot; names are counted by their text.
    For an exchange of arguments, the share of each argument's kind at each position.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[tuple[int, ...], int] = {}
        self.totals: dict[tuple[int, ...], int] = {}
        self.scale = nn.Parameter(torch.ones(len(PLACES)))
        self.bias = nn.Parameter(torch.full((len(PLACES),), -3.0))
        self.functions: Functions | None = None
        self.learning = True

    def read(self, functions: Functions) -> None:
        self.functions = functions

    def _slot(self, node: int, parent: list[int], kind: list[int], field: list[int]) -> tuple[int, ...]:
        above = parent[node]
        return kind[above], field[node], kind[node], kind[parent[above]] if parent[above] >= 0 else -1

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        functions = self.functions
        assert functions is not None
        forest = functions.forest
        parent, kind = forest.absolute_parent.tolist(), forest.kind.tolist()
        field, texts = forest.field.tolist(), forest.tokens
        nodes = batch.place_node.tolist()
        scores = []
        symbol_token = functions["symbol_token"]
        for place, value, sort in zip(
            batch.candidate_place.tolist(), batch.table.value.tolist(), batch.table.kind.tolist()
        ):
            slot = self._slot(nodes[place], parent, kind, field)
            content = hash(texts[symbol_token[value]]) if sort in (0, 4) else value
            if sort == 1:
                scores.append(
                    0.0
                    if value == 0
                    else self._exchange(functions, int(batch.place_row[place]), nodes[place], kind)
                )
                continue
            key = (sort, *slot, content)
            scores.append(
                float(
                    torch.log(
                        torch.tensor(
                            (self.counts.get(key, 0) + 0.1) / (self.totals.get((sort, *slot), 0) + 10)
                        )
                    )
                )
            )
        values = torch.tensor(scores)
        sort = batch.place_kind[batch.candidate_place]
        values = values * self.scale[sort]
        own = values.new_zeros(len(nodes)).index_add(
            0, batch.candidate_place[batch.candidate_current], values[batch.candidate_current]
        )
        logits = values - own[batch.candidate_place] + self.bias[sort]
        return values, logits.masked_fill(batch.candidate_current, float("-inf"))

    def _exchange(self, functions: Functions, row: int, call: int, kind: list[int]) -> float:
        base = call - int(functions["place_node"][row])
        a, b = base + int(functions["place_a"][row]), base + int(functions["place_b"][row])
        pos = functions.forest.pos
        share = lambda n, p: (self.counts.get((9, p, kind[n]), 0) + 1) / (self.totals.get((9, p), 0) + 20)  # noqa: E731
        right = share(a, int(pos[a])) * share(b, int(pos[b]))
        return float(torch.log(torch.tensor(share(a, int(pos[b])) * share(b, int(pos[a])) / right)))

    def count(self, functions: Functions, batch: Batch) -> None:
        """Add sound functions to the table."""
        forest = functions.forest
        parent, kind, field = forest.absolute_parent.tolist(), forest.kind.tolist(), forest.field.tolist()
        nodes, symbol_token = batch.place_node.tolist(), functions["symbol_token"]
        here = batch.candidate_current
        places, values = batch.candidate_place[here].tolist(), batch.table.value[here.numpy()].tolist()
        for place, value, sort in zip(places, values,
                                      batch.table.kind[here.numpy()].tolist()):  # fmt: skip
            slot = self._slot(nodes[place], parent, kind, field)
            content = hash(forest.tokens[symbol_token[value]]) if sort in (0, 4) else value
            self._add((sort, *slot, content), (sort, *slot))
        pos = forest.pos
        for node in (forest.field == FIELDS.index("args")).nonzero()[0].tolist():
            self._add((9, int(pos[node]), kind[node]), (9, int(pos[node])))

    def _add(self, key: tuple[int, ...], total: tuple[int, ...]) -> None:
        self.counts[key] = self.counts.get(key, 0) + 1
        self.totals[total] = self.totals.get(total, 0) + 1

    losses = _PlaceScorer.losses


class PooledTreeConv(_PlaceScorer):
    """TBCNN with max pooling over the whole tree says whether a function has a bug; a place is suspected by
    how much that falls when what stands there is masked (leave one out, one run of the network for each
    place).
    """

    def __init__(self, width: int, layers: int, rows: int = 16384, inner: int = 64) -> None:
        super().__init__()
        self.kinds, self.fields = nn.Embedding(len(KINDS), width), nn.Embedding(len(FIELDS), width)
        self.words = WordEmbedding(rows, inner, width)
        self.layers = nn.ModuleList(TreeConv(width, width) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.functions: Functions | None = None

    def read(self, functions: Functions) -> None:
        self.functions = functions

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Node vectors without and with what stands there."""
        bare = self.kinds(batch.kind) + self.fields(batch.field)
        return bare, bare + self.words(batch.words, batch.offsets).index_select(0, batch.token)

    def score(self, x: Tensor, forest: Forest, topology: Topology) -> Tensor:
        for layer in self.layers:
            x = layer(x, topology)
        tree = torch.from_numpy(forest.tree_of)
        pooled = torch.full((forest.trees, x.shape[1]), -1.0).scatter_reduce(
            0, tree[:, None].expand_as(x), x.float(), "amax"
        )
        return self.out(pooled)[:, 0]

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert self.functions is not None
        score = self.score(self.inputs(batch)[1], self.functions.forest, batch.topology)
        return F.binary_cross_entropy_with_logits(score, (batch.repair >= 0).float()), score.new_zeros(())

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert self.functions is not None
        forest = self.functions.forest
        bare, x = self.inputs(batch)
        whole = self.score(x, forest, batch.topology)
        place = torch.zeros(len(batch.place_node))
        sizes = np.diff(forest.ptr)[batch.place_function.numpy()]
        # A copy of the function for each place, the place masked, in portions of about 20,000 nodes.
        portion = np.cumsum(sizes) // 20_000
        for number in np.unique(portion):
            chosen = np.flatnonzero(portion == number)
            function = batch.place_function[chosen].numpy()
            copies = forest.select(function)
            rows, _ = ranges(np.asarray(forest.ptr), function)
            node = batch.place_node[chosen]
            masked = torch.from_numpy(copies.ptr[:-1] - np.asarray(forest.ptr)[function]) + node
            without = self.score(
                x[torch.from_numpy(rows)].index_copy(0, masked, bare[node]), copies, Topology.of(copies)
            )
            place[chosen] = whole[function] - without
        share = torch.zeros(batch.functions).scatter_reduce(
            0, batch.place_function, place, "amax", include_self=False
        )
        # Its own probability of a bug, shared out with the leave-one-out differences.
        place = place - share[batch.place_function] + whole[batch.place_function]
        return self.spread(batch, place)


def prepared(
    functions: Functions, table: WordTable, rng: object, share: float, model: object
) -> tuple[Batch, object]:
    """Draw bugs, tell the baseline what it reads beside the batch, and collate."""
    bugs = inject(functions, rng, share=share, kinds=BUGS)
    if hasattr(model, "read"):
        model.read(functions)
    tree = getattr(model, "tree", None)
    if hasattr(tree, "read"):
        tree.read(functions)
    return collate(functions, table, bugs, BUGS), bugs
