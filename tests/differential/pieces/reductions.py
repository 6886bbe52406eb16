"""Sorts, sums along a dimension, products of matrices, transforms and complex numbers."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import IMAGE, ROWS, SEQUENCE, Form, formula, piece


@formula()
def sum_up(x: Tensor, number: float) -> Tensor:
    return x.cumsum(-1) / x.shape[-1] ** 0.5


@formula()
def multiply_up(x: Tensor, number: float) -> Tensor:
    return (1 + 0.1 * x.tanh()).cumprod(-1)


@formula()
def logcumsumexp(x: Tensor, number: float) -> Tensor:
    return x.logcumsumexp(-1) - 2


@formula()
def running_maximum(x: Tensor, number: float) -> Tensor:
    return x.cummax(-1).values


@formula()
def ordered(x: Tensor, number: float) -> Tensor:
    return x.sort(-1, descending=number > 0.5).values


@formula()
def ranks(x: Tensor, number: float) -> Tensor:
    order = x.argsort(-1)
    return x.gather(-1, order) + order.to(x.dtype) / x.shape[-1]


@formula()
def largest_only(x: Tensor, number: float) -> Tensor:
    values, places = x.topk(max(1, x.shape[-1] // 2), dim=-1)
    return torch.zeros_like(x).scatter(-1, places, values)


@formula()
def less_median(x: Tensor, number: float) -> Tensor:
    return x - x.median(-1, keepdim=True).values


@formula()
def less_kth(x: Tensor, number: float) -> Tensor:
    return x - x.kthvalue(1 + int(number * (x.shape[-1] - 1)), -1, keepdim=True).values


@formula()
def standardize(x: Tensor, number: float) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + 0.1)


@formula()
def extremes(x: Tensor, number: float) -> Tensor:
    return x - 0.5 * x.amax(-1, keepdim=True) + 0.1 * x.max(-1, keepdim=True).values + x.amin(0, keepdim=True)


@formula()
def unit_length(x: Tensor, number: float) -> Tensor:
    return F.normalize(x, dim=-1) * 4 + 0.1 * x.norm(dim=-1, keepdim=True)


@formula()
def softmax(x: Tensor, number: float) -> Tensor:
    return x.softmax(-1) * x.shape[-1] + 0.1 * x.log_softmax(-1) - x.logsumexp(-1, keepdim=True)


@formula()
def similarity(x: Tensor, number: float) -> Tensor:
    return x * F.cosine_similarity(x, x.flip(-1), dim=-1).unsqueeze(-1)


@formula()
def product_over_features(x: Tensor, number: float) -> Tensor:
    y = x.flatten(1).tanh()
    y = y[:, : min(64, y.shape[1])]
    return x + torch.einsum("bi,bj,bj->bi", y, y, y).mean(1).reshape(-1, *[1] * (x.dim() - 1))


@formula(SEQUENCE)
def outer_product(x: Tensor, number: float) -> Tensor:
    weights = torch.einsum("btd,bsd->bts", x, x) / x.shape[-1]
    return torch.bmm(weights.softmax(-1), x)


@formula(ROWS)
def distances(x: Tensor, number: float) -> Tensor:
    y = x[:32]
    return x + torch.cdist(x, y).mean(1, keepdim=True)


@formula()
def real_transform(x: Tensor, number: float) -> Tensor:
    spectrum = torch.fft.rfft(x, dim=-1)
    return torch.fft.irfft(spectrum * (0.5 + number), n=x.shape[-1], dim=-1)


@formula()
def complex_transform(x: Tensor, number: float) -> Tensor:
    y = torch.fft.fft(x, dim=-1, norm="ortho")
    return y.real + 0.5 * y.imag + 0.1 * y.abs()


@formula(IMAGE, SEQUENCE)
def transform_planes(x: Tensor, number: float) -> Tensor:
    y = torch.fft.rfft2(x, norm="ortho")
    return torch.fft.irfft2(y * y.conj().abs().clamp(max=1), s=x.shape[-2:], norm="ortho")


@formula()
def polar(x: Tensor, number: float) -> Tensor:
    z = torch.polar(x.sigmoid() + 0.1, x)
    return (z * z.conj()).real + torch.view_as_real(z).sum(-1)


@formula(ROWS, SEQUENCE)
def rotate_pairs(x: Tensor, number: float) -> Tensor:
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    turn = torch.polar(torch.ones(z.shape[-1]), torch.arange(z.shape[-1]) * number)
    return torch.view_as_real(z * turn).flatten(-2)


@piece()
class SpectralWeights(nn.Module):
    """Complex parameters over the spectrum (FNet, AFNO, S4)."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(form.last // 2 + 1, dtype=torch.complex64) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x, dim=-1) * self.weight, n=x.shape[-1], dim=-1)


@formula(ROWS)
def window_spectrum(x: Tensor, number: float) -> Tensor:
    window = torch.hann_window(16)
    spectrum = torch.stft(x.repeat(1, 2), 16, 8, window=window, return_complex=True)
    return torch.istft(spectrum, 16, 8, window=window, length=x.shape[1] * 2)[:, : x.shape[1]]


@piece(SEQUENCE, ROWS)
class Bilinear(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = nn.Bilinear(8, form.width, form.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[..., :8].contiguous(), x)


@piece(ROWS, SEQUENCE)
class Broadcast(nn.Module):
    """Products that broadcast: a matrix for each group of features, a bias over all."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, form.width // 4, form.width // 4) * 0.1)
        self.bias = nn.Parameter(torch.zeros(form.width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.unflatten(-1, (4, -1)).unsqueeze(-2) @ self.weight
        return torch.baddbmm(
            self.bias.expand(1, 1, -1), torch.ones(1, 1, 1), torch.ones(1, 1, x.shape[-1])
        ).squeeze(0) + y.squeeze(-2).flatten(-2)
