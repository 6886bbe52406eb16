"""A recurrent language model: embedding, stacked `nn.LSTM`, output layer."""

# Calling an nn.Module is typed Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LSTMSize:
    """Width of embedding and state, stacked layers, dropout between them."""

    width: int
    depth: int
    dropout: float = 0.2


@final
class LSTM(nn.Module):
    """(B, T) int64 to logits (B, T, symbols)."""

    def __init__(self, size: LSTMSize, *, symbols: int = 256) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, size.width)
        self.lstm = nn.LSTM(size.width, size.width, size.depth, dropout=size.dropout, batch_first=True)
        self.dropout = nn.Dropout(size.dropout)
        self.head = nn.Linear(size.width, symbols)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.dropout(self.symbol(ids)))
        return self.head(self.dropout(states))
