"""The detector: what should stand here, judged from everything but what stands here.

Every place of a function is masked in turn, and a localized tree convolution describes its surroundings;
because the layers are rerooted, one pass over the tree does that for all places at once. From the description
of a place the
heads score each candidate: a name by its words and by the places where the same name occurs elsewhere (a vote
of the occurrences), an operator or a number by a table, an exchange of arguments by the arguments and their
slots.

A rewrite's logit is the score of the candidate minus the score of what stands there, plus a term for how
telling the place is. One softmax over all rewrites of a function and "nothing is wrong" (logit 0) gives a
joint probability for place and repair, trained by its logarithm; a second loss asks every place for its right
content, so that each function teaches at all its places and not only at its bug.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...values.ranges import Range
from .batch import RELATIONS, TRAITS, Batch
from .grammar import FIELDS, KINDS, OPERATORS, PLACES, RESERVED
from .localized import EdgeStates, LocalizedTreeConv
from .words import WordEmbedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Sizes of the network.

    Attributes:
        width: channels of the tree convolution.
        layers: its layers, which is also how many steps in the tree a place sees.
        rows: rows of the word table (16,384 x 64 in half precision is 2 MB of the 10 MB a shipped model may
            take).
        inner: channels of the word table.
        head: channels of the heads' queries and keys.
        mode: of `LocalizedTreeConv`.
    """

    width: Annotated[int, Range(1, 4096)] = 96
    layers: Annotated[int, Range(2, 64)] = 5
    rows: Annotated[int, Range(1, 2**22)] = 16384
    inner: Annotated[int, Range(1, 4096)] = 64
    head: Annotated[int, Range(1, 4096)] = 64


class Detector(nn.Module):
    """See the module; `forward` gives logits, `losses` the two training losses.

    Args:
        config: sizes.
        encoder: a module with `edge_states` instead of the localized tree convolution: how the baselines of
            `benchmarks/trees-detector` put another network under the same heads.
    """

    def __init__(self, config: DetectorConfig | None = None, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config = config or DetectorConfig()
        width, head = config.width, config.head
        self.kinds = nn.Embedding(len(KINDS), width)
        self.fields = nn.Embedding(len(FIELDS), width)
        self.local = nn.Embedding(2, width)
        self.words = WordEmbedding(config.rows, config.inner, width)
        self.tree = encoder or LocalizedTreeConv(width, layers=config.layers, residual=True, norm=True)
        self.name_query = nn.Linear(width, 2 * head)
        self.name_key = nn.Linear(width, head)
        self.name_token = nn.Linear(width, head, bias=False)
        self.relation = nn.Embedding(RELATIONS, head)
        self.trait = nn.Embedding(TRAITS, head)
        self.relation_bias = nn.Embedding(RELATIONS, 1)
        self.trait_bias = nn.Embedding(TRAITS, 1)
        self.operators = nn.Linear(width, len(OPERATORS))
        self.literal_query = nn.Linear(width, head)
        self.literals = nn.Embedding(len(RESERVED), head)
        self.literal_bias = nn.Embedding(len(RESERVED), 1)
        self.swap = nn.Sequential(nn.Linear(5 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.content, self.slot = nn.Linear(width, head, bias=False), nn.Linear(width, head, bias=False)
        self.telling = nn.Sequential(nn.Linear(width, head), nn.GELU(), nn.Linear(head, len(PLACES)))
        for table in (self.kinds, self.fields, self.local):
            nn.init.normal_(table.weight, std=0.5)
        for table in (self.relation, self.trait, self.literals):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.relation_bias, self.trait_bias, self.literal_bias):
            nn.init.zeros_(table.weight)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of all candidates, and logits of those that are rewrites.

        Returns:
            `scores` `[candidates]`, `logits` `[candidates]` (of a current candidate: -inf), both float32.
        """
        return self.judge(batch, *self.describe(batch))

    def describe(self, batch: Batch) -> tuple[Tensor, EdgeStates]:
        """Vectors of the batch's tokens, and the states of its nodes: the part that no place changes."""
        tokens = self.words(batch.words, batch.offsets)
        return tokens, self.encode(batch, tokens)

    def judge(self, batch: Batch, tokens: Tensor, states: EdgeStates) -> tuple[Tensor, Tensor]:
        """As `forward`, of nodes that are described already."""
        scores = torch.cat(
            [self._names(batch, tokens, states), self._operators(batch, states),
             self._literals(batch, states),
             self._swaps(batch, states)]
        ).float()  # fmt: skip
        places = len(batch.place_node)
        current = batch.candidate_current
        own = scores.new_zeros(places).index_add(0, batch.candidate_place[current], scores[current])
        pivot = states.pivot.index_select(0, batch.place_node)
        telling = self.telling(pivot).gather(1, batch.place_kind[:, None])[:, 0].float()
        logits = scores + (telling - own).index_select(0, batch.candidate_place)
        return scores, logits.masked_fill(current, float("-inf"))

    def encode(self, batch: Batch, tokens: Tensor) -> EdgeStates:
        """States of the tree convolution, each node masked as its own pivot."""
        bare = self.kinds(batch.kind) + self.fields(batch.field)
        x = bare + tokens.index_select(0, batch.token) + self.local(batch.local)
        precision = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
        with torch.autocast("cpu", enabled=False):
            tree = cast(LocalizedTreeConv, self.tree)
            return tree.edge_states(x.to(precision), batch.topology.to(precision), bare.to(precision))

    def _names(self, batch: Batch, tokens: Tensor, states: EdgeStates) -> Tensor:
        names = batch.names
        ask, spell = self.name_query(states.pivot).chunk(2, -1)
        keys = self.name_key(states.pivot)
        told = tokens.index_select(0, names.token)
        described = self.name_token(told) + self.trait(names.trait)
        pairs = len(names.node)
        by_name: Tensor = (spell.index_select(0, names.node) * described).sum(-1).float() / 8
        known: Tensor = self.trait_bias(names.trait)[:, 0]
        by_name = by_name + known.float()
        asked = ask.index_select(0, names.node.index_select(0, names.pair))
        heard = keys.index_select(0, names.voter) + self.relation(names.relation)
        bias: Tensor = self.relation_bias(names.relation)[:, 0]
        votes = (asked * heard).sum(-1).float() / 8 + bias.float()
        return by_name + log_sum_exp(votes, names.pair, pairs, floor=-4.0)

    def _operators(self, batch: Batch, states: EdgeStates) -> Tensor:
        pivot = states.pivot.index_select(0, batch.operator_node)
        table: Tensor = self.operators(pivot).gather(1, batch.operator[:, None])[:, 0]
        return table.float()

    def _literals(self, batch: Batch, states: EdgeStates) -> Tensor:
        query = self.literal_query(states.pivot.index_select(0, batch.literal_node))
        score: Tensor = (query * self.literals(batch.literal)).sum(-1).float() / 8
        bias: Tensor = self.literal_bias(batch.literal)[:, 0]
        return score + bias.float()

    def _swaps(self, batch: Batch, states: EdgeStates) -> Tensor:
        first, second = states.up.index_select(0, batch.first), states.up.index_select(0, batch.second)
        left, right = states.down.index_select(0, batch.first), states.down.index_select(0, batch.second)
        call = states.pivot.index_select(0, batch.call)
        a, b = self.content(first), self.content(second)
        i, j = self.slot(left), self.slot(right)
        fit = ((a - b) * (j - i)).sum(-1).float() / 8
        score = self.swap(torch.cat([first, second, left, right, call], -1))[:, 0].float() + fit
        return torch.stack([torch.zeros_like(score), score], -1).reshape(-1)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean negative log probability of the right answer by function, and of the right content by
        place.
        """
        scores, logits = self(batch)
        places = len(batch.place_node)
        by_place = log_sum_exp(scores, batch.candidate_place, places) - scores[batch.truth]
        log_none = -self.log_total(batch, logits)
        repaired = batch.repair >= 0
        answer = torch.where(repaired, logits[batch.repair.clamp(min=0)], logits.new_zeros(()))
        return -(log_none + answer).mean(), by_place.mean()

    def log_total(self, batch: Batch, logits: Tensor) -> Tensor:
        """`[functions]` logarithm of the softmax's denominator; "nothing is wrong" is the 1 in it."""
        function = batch.place_function.index_select(0, batch.candidate_place)
        rewrites = ~batch.candidate_current
        total = log_sum_exp(logits[rewrites], function[rewrites], batch.functions, floor=-30.0)
        return F.softplus(total)


def log_sum_exp(values: Tensor, group: Tensor, groups: int, *, floor: float | None = None) -> Tensor:
    """`log(sum exp)` within groups: `[groups]`; an empty group, or the sum next to `exp(floor)`, gives
    `floor`.
    """
    top = torch.full((groups,), float("-inf") if floor is None else floor, dtype=values.dtype)
    top = top.scatter_reduce(0, group, values.detach(), "amax")
    total = torch.zeros(groups, dtype=values.dtype) if floor is None else torch.exp(floor - top)
    total = total.index_add(0, group, torch.exp(values - top.index_select(0, group)))
    return top + torch.log(total)
