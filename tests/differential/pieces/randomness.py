"""Dropouts and noise of every kind, results that nobody reads included: eager draws for those too."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import IMAGE, ROWS, SEQUENCE, Form, formula, piece


@piece()
class Dropout(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.drop = nn.Dropout(draw.choice((0.0, 0.1, 0.25, 0.3, 0.5, 0.9)), inplace=draw.random() < 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x * 1.1)


@piece()
class OddDropout(nn.Module):
    """Dropouts with a statistic of their own, or over whole features."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        kinds = [
            nn.AlphaDropout,
            nn.FeatureAlphaDropout,
            nn.Dropout1d if form.kind == SEQUENCE else nn.AlphaDropout,
        ]
        self.drop = draw.choice([*kinds, nn.Dropout2d] if form.kind == IMAGE else kinds)(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x)


@piece()
class FunctionalDropout(nn.Module):
    """By the functions: with the module's mode, always on, in place."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.how = draw.randrange(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == 0:
            return F.dropout(x, 0.2, self.training)
        if self.how == 1:
            return F.dropout(x, 0.35)
        if self.how == 2:
            return F.dropout(x + 1, 0.1, self.training, inplace=True)
        return F.alpha_dropout(x, 0.1, self.training)


@piece()
class StochasticDepth(nn.Module):
    """A residual that is dropped for whole samples."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight, self.keep = nn.Parameter(torch.ones(form.last)), draw.choice((0.5, 0.8))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + x * self.weight
        keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(self.keep).div_(self.keep)
        return x + (x * self.weight).tanh() * keep


@formula()
def gaussian_noise(x: Tensor, number: float) -> Tensor:
    return x + torch.randn_like(x) * number


@formula()
def uniform_mask(x: Tensor, number: float) -> Tensor:
    return x * (torch.rand_like(x) < 0.5 + number / 2)


@formula()
def drawn_in_place(x: Tensor, number: float) -> Tensor:
    noise = torch.empty(x.shape).uniform_(-1, 1) + torch.empty(x.shape).normal_(0, 0.1)
    return x + number * noise.add_(torch.empty(x.shape[-1:]).exponential_())


@formula()
def reparametrized(x: Tensor, number: float) -> Tensor:
    mean, log_scale = x.tanh(), -x.abs()
    return mean + torch.exp(0.5 * log_scale) * torch.randn_like(mean)


@formula()
def gumbel(x: Tensor, number: float) -> Tensor:
    return F.gumbel_softmax(x, tau=0.5 + number, hard=number > 0.5, dim=-1) * x.shape[-1] ** 0.5


@formula()
def random_slope(x: Tensor, number: float) -> Tensor:
    return F.rrelu(x, training=True)


@formula()
def shuffled_rows(x: Tensor, number: float) -> Tensor:
    return 0.5 * x + 0.5 * x[torch.randperm(x.shape[0])]


@formula()
def mixup(x: Tensor, number: float) -> Tensor:
    share = torch.rand(x.shape[0], *[1] * (x.dim() - 1))
    return share * x + (1 - share) * x.flip(0)


@formula()
def random_integers(x: Tensor, number: float) -> Tensor:
    return x + torch.randint(-1, 2, x.shape).to(x.dtype) * number


@formula(ROWS)
def drawn_classes(x: Tensor, number: float) -> Tensor:
    chosen = torch.multinomial(x.softmax(-1), 1)
    return x + x.gather(1, chosen)


@formula(IMAGE)
def random_pooling(x: Tensor, number: float) -> Tensor:
    y = F.fractional_max_pool2d(x, 2, output_size=(x.shape[-2] // 2, x.shape[-1] // 2))
    return x + F.interpolate(y, size=x.shape[-2:])


@formula()
def unread_dropout(x: Tensor, number: float) -> Tensor:
    F.dropout(x, 0.3)
    return F.dropout(x, 0.2)


@formula()
def unread_noise(x: Tensor, number: float) -> Tensor:
    torch.rand(7)
    torch.randn_like(x)
    torch.randint(10, (3,))
    return x * torch.rand_like(x)


@formula()
def unread_in_place(x: Tensor, number: float) -> Tensor:
    torch.empty(5).bernoulli_(0.5)
    x.detach().clone().normal_()
    torch.randperm(9)
    return x + torch.randn(())


@piece()
class UnreadBranch(nn.Module):
    """A branch with weights and dropout whose result is thrown away."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(form.last, form.last) * 0.1)
        self.drop = nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        unread = self.drop(x @ self.weight).relu()
        del unread
        return self.drop(x)


@piece(ROWS, SEQUENCE)
class SeededInside(nn.Module):
    """A dropout behind one that is switched off, and one with a probability that only evaluation knows."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.off, self.on = nn.Dropout(0.5).eval(), nn.Dropout(0.5)

    def train(self, mode: bool = True) -> SeededInside:
        super().train(mode)
        self.off.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.on(self.off(x).sin())
