"""What steers gradients: detach, custom functions, hooks on tensors, precision islands, checkpoints."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..forms import ROWS, SEQUENCE, Form, formula, piece


@formula()
def straight_through(x: Tensor, number: float) -> Tensor:
    return x + (x.sign() * number - x).detach()


@formula()
def fake_quantized(x: Tensor, number: float) -> Tensor:
    scale = x.detach().abs().amax() / 127 + 1e-6
    return torch.fake_quantize_per_tensor_affine(
        x, scale.reshape(1), torch.zeros(1, dtype=torch.int32), -128, 127
    )


@formula()
def half_detached(x: Tensor, number: float) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a.detach() * 2, b.tanh()], -1)


@formula()
def without_gradient(x: Tensor, number: float) -> Tensor:
    with torch.no_grad():
        scale = (x * x).mean(-1, keepdim=True).sqrt() + 0.1
    return x / scale


@formula()
def stopped_momentum(x: Tensor, number: float) -> Tensor:
    return x * (x.detach() * number).sigmoid()


class Reverse(torch.autograd.Function):
    """Gradient reversal (domain-adversarial training)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -0.5 * gradient


class Surrogate(torch.autograd.Function):
    """A step whose backward is a smooth curve of what was saved (spiking networks)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient / (1 + x.abs()).square()


@formula()
def reversed_gradient(x: Tensor, number: float) -> Tensor:
    return Reverse.apply(x) * number + x


@formula()
def spikes(x: Tensor, number: float) -> Tensor:
    return Surrogate.apply(x - number) + 0.1 * x


def halve(gradient: Tensor) -> Tensor:
    return gradient * 0.5


@formula()
def hooked(x: Tensor, number: float) -> Tensor:
    y = x * 1.0
    if y.requires_grad:
        y.register_hook(halve)
    return y + 1


@piece(ROWS, SEQUENCE)
class Island(nn.Module):
    """Lower precision inside, float32 inside that; a weight used in and out of it."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(form.width, form.width), nn.Linear(form.width, form.width)
        self.twice = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = self.a(x)
            with torch.autocast("cpu", enabled=False):
                y = torch.tanh(y.float() @ self.b.weight.t() + self.b.bias)
            if self.twice:
                y = self.a(y)
        return y.float()


@piece(ROWS, SEQUENCE)
class FullPrecision(nn.Module):
    """A float32 island, which matters where the module runs under autocast."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(form.width, form.width) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return torch.tanh(x.float() @ self.weight)


@piece(ROWS, SEQUENCE)
class Checkpointed(nn.Module):
    """The user's own checkpoint in the forward."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(form.width, form.width), nn.GELU(), nn.Dropout(draw.choice((0.0, 0.2)))
        )

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False)


@piece(ROWS, SEQUENCE)
class Sometimes(nn.Module):
    """A layer whose weights get no gradient: its result is detached before it is read."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = nn.Linear(form.width, form.width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).detach().sigmoid()


@piece()
class Clamped(nn.Module):
    """A weight that the forward itself keeps in bounds, before it is used (Wasserstein critics)."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(form.last))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.clamp_(-1, 1)
        return x * self.weight
