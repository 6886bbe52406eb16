"""Activations, masks, and operators that change an activation in place."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import Form, formula, piece

ACTIVATIONS = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.Hardswish, nn.Mish, nn.CELU,
    nn.SELU, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, nn.ReLU6, nn.Hardsigmoid, nn.Tanhshrink, nn.Softshrink, nn.PReLU,
)  # fmt: skip
INPLACE = (
    nn.ReLU,
    nn.SiLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.Hardswish,
    nn.Mish,
    nn.CELU,
    nn.SELU,
    nn.Hardtanh,
    nn.ReLU6,
)


@piece()
class Activation(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.act = draw.choice(ACTIVATIONS)()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


@piece()
class Relu(nn.Module):
    """Zeros behind it, so that it can be encoded; what follows reads it again in the backward."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full(form.shape[-1:], -0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bias)


@piece()
class ActivationInPlace(nn.Module):
    """An in-place activation over the result of an operator that does not save it."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.act = draw.choice(INPLACE)(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + 0.1)


@formula()
def add_in_place(x: Tensor, number: float) -> Tensor:
    y = x * 0.5
    y += number
    y.add_(x, alpha=0.25)
    return y


@formula()
def multiply_in_place(x: Tensor, number: float) -> Tensor:
    y = x + 1
    y.mul_(0.5 + number)
    return y.sub_(0.5)


@formula()
def assign_slice(x: Tensor, number: float) -> Tensor:
    y, n = x.clone(), max(1, x.shape[-1] // 4)
    y[..., :n] = y[..., :n] * 2
    y[..., -n:] = number
    return y


@formula()
def assign_through_view(x: Tensor, number: float) -> Tensor:
    y = x * 1.5
    y.flatten(1)[:, ::2].tanh_()
    return y


@formula()
def clamp_in_place(x: Tensor, number: float) -> Tensor:
    return (x * 2).clamp_(-1 - number, 1 + number)


@formula()
def fill_masked(x: Tensor, number: float) -> Tensor:
    return x.masked_fill(x > 1 + number, 0.5)


@formula()
def fill_masked_in_place(x: Tensor, number: float) -> Tensor:
    y = x + 0.0
    return y.masked_fill_(x.detach() < -number, -0.1)


@formula()
def choose(x: Tensor, number: float) -> Tensor:
    return torch.where(x > number - 0.5, x, x * 0.1)


@formula()
def choose_by_self(x: Tensor, number: float) -> Tensor:
    return torch.where(x.abs() < 1, x.sin(), x.sign() * x.abs().sqrt())


@formula()
def read_before_and_after(x: Tensor, number: float) -> Tensor:
    y = x * (1 + number)
    before = y.sum(-1, keepdim=True)
    y.add_(1)
    return y + 0.01 * before


@formula()
def polynomial(x: Tensor, number: float) -> Tensor:
    y = x.tanh()
    return y + y * y - number * y**3


@formula()
def combine_in_place(x: Tensor, number: float) -> Tensor:
    y = x.sigmoid()
    return torch.zeros_like(x).addcmul_(y, x, value=number).addcdiv_(x, y + 1)


@formula()
def interpolate_values(x: Tensor, number: float) -> Tensor:
    return torch.lerp(x, x.tanh(), number)


@formula()
def clip_rows(x: Tensor, number: float) -> Tensor:
    return x.clamp(min=x.detach().mean() - 2, max=None).minimum(torch.full_like(x, 2 + number))


@formula()
def double_precision(x: Tensor, number: float) -> Tensor:
    return (x.double().exp().log1p() * number).to(x.dtype)


@formula()
def half_precision(x: Tensor, number: float) -> Tensor:
    return (x.to(torch.bfloat16) * 2).float() * number + x


@formula()
def fill_index_in_place(x: Tensor, number: float) -> Tensor:
    y = x.clone()
    y.index_fill_(-1, torch.arange(0, x.shape[-1], 3), number)
    return y


@formula()
def copy_over(x: Tensor, number: float) -> Tensor:
    y = torch.empty_like(x)
    y.copy_(x * number)
    y.narrow(0, 0, 1).copy_(x.narrow(0, x.shape[0] - 1, 1))
    return y


@formula()
def power_in_place(x: Tensor, number: float) -> Tensor:
    return (x.abs() + 0.1).pow_(1 + number).log_()


@formula()
def straight_integer(x: Tensor, number: float) -> Tensor:
    whole = (x * 4).round().to(torch.int32)
    return x + (whole.remainder(3) - 1).to(x.dtype) * number
