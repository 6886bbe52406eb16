"""Transformers: GPT (decoder), BERT-style encoder, ViT. One block serves all three.

Attention is `scaled_dot_product_attention`, so the T×T matrix of scores is never kept. Dropout stands on the
embeddings and on both residual branches; not inside the attention, where the CPU's fused kernel has none and would
give way to the one that keeps the scores.
"""

# Calling an nn.Module is typed Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class TransformerSize:
    """Width of the residual stream, blocks, heads, positions, dropout probability."""

    width: int
    depth: int
    heads: int
    context: int
    dropout: float = 0.1


@final
class Block(nn.Module):
    """Pre-norm attention and MLP, each on a residual branch: (B, T, width) to the same."""

    def __init__(self, size: TransformerSize, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = size.heads, causal
        self.norm_attention = nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.project = nn.Linear(size.width, size.width)
        self.norm_mlp = nn.LayerNorm(size.width)
        self.widen = nn.Linear(size.width, 4 * size.width)
        self.narrow = nn.Linear(4 * size.width, size.width)
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attend(self.norm_attention(x)))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm_mlp(x)))))

    def attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, width))


def initialise(module: nn.Module, depth: int) -> None:
    """GPT-2's: normal(0, 0.02), the last layer of each residual branch divided by √(2·depth)."""
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2:
            branch_end = name.endswith(("project.weight", "narrow.weight"))
            nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5 if branch_end else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


@final
class GPT(nn.Module):
    """Decoder over symbols: (B, T) int64 to logits (B, T, symbols). `tied` shares embedding and output matrix."""

    def __init__(self, size: TransformerSize, *, symbols: int = 256, tied: bool = False) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, size.width)
        self.position = nn.Embedding(size.context, size.width)
        self.dropout = nn.Dropout(size.dropout)
        self.blocks = nn.ModuleList(Block(size, causal=True) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, symbols, bias=False)
        initialise(self, size.depth)
        if tied:
            self.head.weight = self.symbol.weight

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.symbol(ids) + self.position(positions))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@final
class Bert(nn.Module):
    """Encoder over symbols, trained to fill in masked ones: (B, T) int64 to logits (B, T, symbols)."""

    def __init__(self, size: TransformerSize, *, symbols: int = 257) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, size.width)
        self.position = nn.Embedding(size.context, size.width)
        self.norm_in = nn.LayerNorm(size.width)
        self.dropout = nn.Dropout(size.dropout)
        self.blocks = nn.ModuleList(Block(size, causal=False) for _ in range(size.depth))
        self.norm_out = nn.LayerNorm(size.width)
        self.transform = nn.Linear(size.width, size.width)
        self.bias = nn.Parameter(torch.zeros(symbols))
        initialise(self, size.depth)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.norm_in(self.symbol(ids) + self.position(positions)))
        for block in self.blocks:
            x = block(x)
        # The output matrix is the embedding's, as in BERT.
        return F.linear(F.gelu(self.transform(self.norm_out(x))), self.symbol.weight, self.bias)


@final
class ViT(nn.Module):
    """Vision transformer: (B, 3, side, side) to logits (B, classes). `side` is a multiple of `patch`."""

    def __init__(self, size: TransformerSize, *, patch: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size.width, patch, stride=patch)
        self.summary = nn.Parameter(torch.zeros(1, 1, size.width))
        self.position = nn.Parameter(torch.zeros(1, size.context + 1, size.width))
        self.dropout = nn.Dropout(size.dropout)
        self.blocks = nn.ModuleList(Block(size, causal=False) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, classes)
        initialise(self, size.depth)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.summary.expand(len(x), -1, -1), x], dim=1)
        x = self.dropout(x + self.position)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))
