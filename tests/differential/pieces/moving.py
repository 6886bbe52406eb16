"""Views, copies, gathers and scatters: what moves elements about."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import IMAGE, ROWS, SEQUENCE, Form, formula, piece


@formula()
def swap_halves(x: Tensor, number: float) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([b * number, a], -1)


@formula()
def split_unevenly(x: Tensor, number: float) -> Tensor:
    n = max(1, int(x.shape[-1] * number))
    a, b = x.split([n, x.shape[-1] - n], -1)
    return torch.cat([a.sigmoid(), b], -1)


@formula()
def unbind_and_stack(x: Tensor, number: float) -> Tensor:
    return torch.stack(x.unbind(-1)[::-1], -1)


@formula()
def permute_and_back(x: Tensor, number: float) -> Tensor:
    y = x.transpose(0, -1).contiguous() * 2
    return y.transpose(0, -1)


@formula()
def leave_transposed(x: Tensor, number: float) -> Tensor:
    """The result has the strides of a transposed tensor."""
    return x.transpose(0, -1).contiguous().tanh().transpose(0, -1)


@formula()
def strided_windows(x: Tensor, number: float) -> Tensor:
    y = x.contiguous().flatten(1)
    windows = y.as_strided((y.shape[0], y.shape[1] // 2 - 1, 4), (y.shape[1], 2, 1))
    return x + windows.mean((1, 2)).reshape(-1, *[1] * (x.dim() - 1))


@formula()
def sliding_windows(x: Tensor, number: float) -> Tensor:
    y = x.flatten(1).unfold(1, 4, 2).square().sum(-1)
    return x * y.mean(1).reshape(-1, *[1] * (x.dim() - 1))


@formula()
def roll_and_flip(x: Tensor, number: float) -> Tensor:
    return x.roll(int(number * x.shape[-1]), -1) - 0.5 * x.flip(0, -1)


@formula()
def expand_and_sum(x: Tensor, number: float) -> Tensor:
    return (x.unsqueeze(0).expand(3, *x.shape) * torch.arange(3.0).reshape(-1, *[1] * x.dim())).mean(0)


@formula()
def repeat_and_average(x: Tensor, number: float) -> Tensor:
    return (
        x.repeat_interleave(2, -1).reshape(*x.shape, 2).mean(-1)
        + x.repeat(2, *[1] * (x.dim() - 1))[: x.shape[0]]
    )


@formula()
def every_second(x: Tensor, number: float) -> Tensor:
    return torch.cat([x[..., ::2], x[..., 1::2].neg()], -1)


@formula()
def select_rows(x: Tensor, number: float) -> Tensor:
    index = (torch.arange(x.shape[0]) * 7 + 1) % x.shape[0]
    return x.index_select(0, index) + x[index]


@formula()
def gather_features(x: Tensor, number: float) -> Tensor:
    index = (x.detach() > 0).long().cumsum(-1) % x.shape[-1]
    return x.gather(-1, index) + torch.take_along_dim(x, index.flip(-1), -1)


@formula()
def scatter_features(x: Tensor, number: float) -> Tensor:
    index = (x.detach().abs() * 10).long() % x.shape[-1]
    return torch.zeros_like(x).scatter_add(-1, index, x) * 0.5


@formula()
def scatter_mean(x: Tensor, number: float) -> Tensor:
    index = (x.detach().abs() * 10).long() % x.shape[-1]
    return torch.scatter_reduce(x, -1, index, x * number, "mean")


@formula()
def put_rows(x: Tensor, number: float) -> Tensor:
    y = x.clone()
    index = torch.arange(0, x.shape[0], 2)
    y[index] = x[index] * 2
    return y


@formula()
def accumulate_rows(x: Tensor, number: float) -> Tensor:
    index = torch.arange(x.shape[0]) // 2
    return torch.zeros_like(x).index_put((index,), x, accumulate=True)


@formula()
def add_rows(x: Tensor, number: float) -> Tensor:
    index = torch.arange(x.shape[0]) % max(1, x.shape[0] // 2)
    return x.index_add(0, index, x * number)


@formula()
def scatter_in_place(x: Tensor, number: float) -> Tensor:
    y = torch.zeros_like(x)
    y.scatter_(-1, x.argsort(-1), x)
    return y + x


@formula()
def pad_and_cut(x: Tensor, number: float) -> Tensor:
    y = F.pad(x, (2, 1), value=number)
    return y[..., 1:-2] + y[..., 2:-1]


@formula(SEQUENCE, IMAGE)
def pad_reflecting(x: Tensor, number: float) -> Tensor:
    y = (
        F.pad(x, (1, 1), mode="reflect")
        + F.pad(x, (1, 1), mode="replicate")
        + F.pad(x, (1, 1), mode="circular")
    )
    return y[..., 2:] - y[..., :-2]


@formula(SEQUENCE, IMAGE)
def lower_triangle(x: Tensor, number: float) -> Tensor:
    return x.tril() + 0.5 * x.triu(1)


@formula()
def flat_and_back(x: Tensor, number: float) -> Tensor:
    y = x.reshape(-1).view(2, -1) if x.numel() % 2 == 0 else x.reshape(1, -1)
    return (y * torch.tensor(0.5 + number)).view_as(x)


@formula(ROWS, SEQUENCE)
def unflatten(x: Tensor, number: float) -> Tensor:
    y = x.unflatten(-1, (4, -1))
    return y.movedim(-2, 0).softmax(0).movedim(0, -2).flatten(-2) + x


@formula()
def mesh(x: Tensor, number: float) -> Tensor:
    a, b = torch.meshgrid(x.reshape(-1)[:8], x.reshape(-1)[-8:], indexing="ij")
    return x + (a * b).sum() * 0.01


@formula()
def diagonal(x: Tensor, number: float) -> Tensor:
    y = x.flatten(1)[:, : x.shape[0]]
    return x + torch.diagonal(y @ y.T / y.shape[1]).reshape(-1, *[1] * (x.dim() - 1))


@formula(IMAGE)
def resize_nearest(x: Tensor, number: float) -> Tensor:
    return F.interpolate(F.interpolate(x, scale_factor=2), size=x.shape[-2:], mode="nearest-exact")


@formula(IMAGE)
def resize_bilinear(x: Tensor, number: float) -> Tensor:
    y = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=number > 0.5)
    return x + F.interpolate(
        y, size=x.shape[-2:], mode="bicubic" if number > 0.3 else "bilinear", align_corners=False
    )


@formula(SEQUENCE)
def resize_linear(x: Tensor, number: float) -> Tensor:
    return F.interpolate(F.interpolate(x, scale_factor=0.5, mode="linear"), size=x.shape[-1], mode="linear")


@formula(IMAGE)
def fold_patches(x: Tensor, number: float) -> Tensor:
    y = F.unfold(x, 3, padding=1)
    return F.fold(y * number, x.shape[-2:], 3, padding=1)


@formula(IMAGE)
def shuffle_pixels(x: Tensor, number: float) -> Tensor:
    return F.pixel_unshuffle(F.pixel_shuffle(x, 2) * 1.5, 2)


@formula(IMAGE)
def shuffle_channels(x: Tensor, number: float) -> Tensor:
    return F.channel_shuffle(x, 2).contiguous() + F.pixel_unshuffle(x, 2)[:, : x.shape[1]].repeat(1, 1, 2, 2)


@formula(IMAGE)
def sample_grid(x: Tensor, number: float) -> Tensor:
    theta = torch.tensor([[0.9, number * 0.1, 0.0], [0.0, 1.1, 0.1]]).expand(x.shape[0], 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border")


@formula(IMAGE)
def channels_last(x: Tensor, number: float) -> Tensor:
    return (x.contiguous(memory_format=torch.channels_last) * 0.9).relu()


@piece(IMAGE)
class Shifted(nn.Module):
    """Windows that are cut, shifted and put together again (Swin)."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.mix, self.window = nn.Linear(form.width, form.width), 4

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        n = self.window
        y = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
        y = y.view(b, h // n, n, w // n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, c)
        y = self.mix(y).view(b, h // n, w // n, n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, (2, 2), (1, 2)).permute(0, 3, 1, 2)
