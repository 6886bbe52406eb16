"""Identifiers and literals as sums of hashed words.

New code brings new names, made of known words: `max_retry_count`. A token is spelled as its words (split at
case, digits and underscores) and itself as a whole, each hashed into one table of rows. No vocabulary has to
be shipped, and nothing is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor, nn

from .forest import Ints, expand

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^\sA-Za-z0-9_]")
#: Words that are read of one token; longer ones are mostly texts.
MAX_WORDS = 6


def words(token: str) -> list[str]:
    """`"maxRetry_count2"` → `["=maxRetry_count2", "max", "retry", "count", "2"]`; the empty token has
    none.
    """
    if not token:
        return []
    return [f"={token}", *(word.lower() for word in _WORD.findall(token)[:MAX_WORDS])]


class WordTable:
    """Rows of the hash table for every token of a forest.

    Args:
        tokens: the forest's texts.
        rows: size of the hash table.
    """

    def __init__(self, tokens: Sequence[str], rows: int) -> None:
        known: dict[str, int] = {}
        found: list[int] = []
        counts = np.zeros(len(tokens), np.int64)
        for index, token in enumerate(tokens):
            for word in (spelled := words(token)):
                if word not in known:
                    known[word] = xxhash.xxh32_intdigest(word.encode("utf-8", "surrogatepass")) % rows
                found.append(known[word])
            counts[index] = len(spelled)
        self.ptr: Ints = np.concatenate([[0], np.cumsum(counts)])
        self.rows: Ints = np.asarray(found, np.int64)

    def bags(self, tokens: Ints) -> tuple[Tensor, Tensor]:
        """Rows of the given tokens end to end, and where each token's begin."""
        count = self.ptr[tokens + 1] - self.ptr[tokens]
        rows = self.rows[expand(self.ptr[tokens], count)]
        return torch.from_numpy(rows), torch.from_numpy(np.cumsum(count) - count)


class WordEmbedding(nn.Module):
    """Vectors of tokens: the mean of their words' rows, projected to the width of the network."""

    def __init__(self, rows: int, inner: int, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(rows, inner, mode="mean")
        self.project = nn.Linear(inner, width, bias=False)
        nn.init.normal_(self.bag.weight, std=0.5)

    def forward(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """`[tokens, width]`; a token without words is zero."""
        vectors: Tensor = self.project(self.bag(rows, offsets))
        return vectors


def unique_tokens(*columns: npt.NDArray[np.integer]) -> tuple[Ints, list[Ints]]:
    """The distinct tokens of some columns, and each column as indices into them."""
    distinct, inverse = np.unique(np.concatenate(columns), return_inverse=True)
    return distinct, np.split(inverse, np.cumsum([len(c) for c in columns])[:-1])
