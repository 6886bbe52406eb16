"""Attention: by hand, by torch's function, by its layers; masks, heads of size one, memories of earlier steps."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import SEQUENCE, Form, piece


def heads(x: Tensor, n: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


@piece(SEQUENCE)
class Attention(nn.Module):
    """Softmax by hand, dropout on the weights, one or several heads."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.n, self.p = draw.choice((1, 2, 4)), draw.choice((0.0, 0.2))
        self.q, self.k, self.v, self.o = (nn.Linear(form.width, form.width) for _ in range(4))
        mask = torch.ones(form.length, form.length, dtype=torch.bool).tril()
        self.register_buffer("mask", mask, persistent=False)
        self.causal = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(layer(x), self.n) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(~self.mask, float("-inf"))
        weights = F.dropout(scores.softmax(-1), self.p, self.training)
        return self.o((weights @ v).transpose(1, 2).reshape(x.shape))


@piece(SEQUENCE)
class FusedAttention(nn.Module):
    """torch's scaled_dot_product_attention with each kind of mask."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.n, self.kind = (
            draw.choice((1, 2, 4)),
            draw.choice(("none", "causal", "bool", "float", "dropout")),
        )
        self.qkv, self.o = nn.Linear(form.width, 3 * form.width), nn.Linear(form.width, form.width)
        self.bias = nn.Parameter(torch.zeros(1, 1, form.length, form.length))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(t, self.n) for t in self.qkv(x).chunk(3, -1))
        n, mask = x.shape[1], None
        if self.kind == "bool":
            mask = torch.ones(x.shape[0], 1, n, n, dtype=torch.bool).tril()
        if self.kind == "float":
            mask = self.bias
        p = 0.2 if self.kind == "dropout" and self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=p, is_causal=self.kind == "causal"
        )
        return self.o(y.transpose(1, 2).contiguous().reshape(x.shape))


@piece(SEQUENCE)
class TorchAttention(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(
            form.width, draw.choice((1, 4)), draw.choice((0.0, 0.1)), batch_first=True
        )
        self.weights = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, need_weights=self.weights)[0]


@piece(SEQUENCE)
class EncoderLayer(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            form.width, 4, form.width, draw.choice((0.0, 0.1)), draw.choice(("relu", "gelu")), batch_first=True,
            norm_first=draw.random() < 0.5,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@piece(SEQUENCE)
class Cached(nn.Module):
    """Transformer-XL: keys of the previous step are read beside those of this one, then overwritten."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.qkv = nn.Linear(form.width, 3 * form.width)
        self.register_buffer("memory", torch.zeros(1, form.length, form.width))
        self.how = draw.choice(("copy", "rebind", "slice", "roll"))

    def forward(self, x: Tensor) -> Tensor:
        past = self.memory.expand(x.shape[0], -1, -1)
        q, k, v = self.qkv(torch.cat([past, x], 1)).chunk(3, -1)
        y = F.scaled_dot_product_attention(q[:, past.shape[1] :], k, v)
        latest = x.detach().mean(0, keepdim=True)
        if self.how == "copy":
            self.memory.copy_(latest)
        elif self.how == "rebind":
            self.memory = latest.clone()
        elif self.how == "slice":
            self.memory[:, :2] = latest[:, :2]
        else:
            self.memory.copy_(torch.roll(self.memory, 1, 1)).mul_(0.9).add_(latest, alpha=0.1)
        return x + y


@piece(SEQUENCE)
class Positions(nn.Module):
    """Learned positions, a class token expanded over the batch, and rotary angles from a buffer."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, form.length, form.width) * 0.02)
        self.token = nn.Parameter(torch.randn(1, 1, form.width))
        angles = torch.arange(form.length)[:, None] * torch.logspace(0, -3, form.width // 2)[None]
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x + self.positions], 1)[:, :-1]
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * self.cosine - b * self.sine, a * self.sine + b * self.cosine], -1).flatten(-2)
