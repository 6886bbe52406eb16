"""Layers with weights: linear, convolution, normalisation, embedding, pooling, shared and reparametrized weights."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from ..forms import IMAGE, ROWS, SEQUENCE, Between, Form, piece


def mixer(form: Form, bias: bool = True) -> nn.Module:
    """A linear layer over the features of a form."""
    layer = nn.Linear(form.width, form.width, bias=bias)
    return Between(layer, (0, 2, 3, 1)) if form.kind == IMAGE else layer


@piece()
class Linear(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.layer = mixer(form, bias=draw.random() < 0.7)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@piece(ROWS, SEQUENCE)
class Bottleneck(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(form.width, 2 * form.width), nn.Linear(2 * form.width, form.width)
        self.gated = draw.random() < 0.3
        self.gate = nn.Linear(form.width, 4 * form.width) if self.gated else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.gate(x), -1) if self.gate is not None else F.relu(self.up(x))
        return self.down(y)


@piece(IMAGE)
class Convolution(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        groups = draw.choice((1, 1, 2, form.width))
        dilation = draw.choice((1, 1, 2))
        self.layer = nn.Conv2d(
            form.width, form.width, 3, padding=dilation, dilation=dilation, groups=groups, bias=draw.random() < 0.5,
            padding_mode=draw.choice(("zeros", "zeros", "reflect", "circular")),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@piece(IMAGE)
class DownAndUp(nn.Module):
    """A strided convolution and a transposed one, with the way past both (U-Net)."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.down = nn.Conv2d(form.width, 2 * form.width, 4, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2 * form.width, form.width, 2, stride=2)
        self.mix = nn.Conv2d(2 * form.width, form.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(x), inplace=True)
        return self.mix(torch.cat([x, self.up(y)], 1))


@piece(SEQUENCE)
class Convolution1d(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        groups = draw.choice((1, form.width))
        self.layer = nn.Conv1d(form.width, form.width, 3, padding=2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2))[..., :-2].transpose(1, 2)


@piece()
class BatchNorm(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        settings = {
            "momentum": draw.choice((0.1, 0.1, 0.5, None)),
            "affine": draw.random() < 0.7,
            "track_running_stats": draw.random() < 0.8,
        }
        layer = nn.BatchNorm2d if form.kind == IMAGE else nn.BatchNorm1d
        norm = layer(form.width, **settings)
        self.norm = Between(norm, (0, 2, 1)) if form.kind == SEQUENCE else norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@piece()
class BatchNormRelu(nn.Module):
    """The pair that zero suppression and reruns of a normalisation meet most."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.first = mixer(form)
        norm = nn.BatchNorm2d(form.width) if form.kind == IMAGE else nn.BatchNorm1d(form.width)
        self.norm = Between(norm, (0, 2, 1)) if form.kind == SEQUENCE else norm
        self.act = nn.ReLU(inplace=draw.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.first(x)))


@piece()
class OtherNorm(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        affine = draw.random() < 0.7
        makers = [
            lambda: nn.LayerNorm(form.last, elementwise_affine=affine),
            lambda: nn.RMSNorm(form.last, elementwise_affine=affine),
            lambda: nn.LayerNorm(form.shape[1:], elementwise_affine=affine),
        ]
        if form.kind == IMAGE:
            makers += [
                lambda: nn.GroupNorm(2, form.width, affine=affine),
                lambda: nn.InstanceNorm2d(form.width, affine=affine, track_running_stats=affine),
                lambda: nn.LocalResponseNorm(3),
            ]
        self.norm = draw.choice(makers)()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@piece(ROWS)
class GroupNormRows(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, form.width, affine=draw.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@piece(IMAGE)
class Pooling(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.pool = draw.choice((
            nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            nn.Sequential(nn.LPPool2d(2, 2), nn.Upsample(scale_factor=2)),
            nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Upsample(size=form.length, mode="bilinear")),
            nn.Sequential(nn.AdaptiveMaxPool2d(4), nn.Upsample(size=form.length)),
        ))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@piece(IMAGE)
class UnpooledMax(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.pool, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y, places = self.pool(x)
        return self.back(y.tanh(), places) + x


@piece(SEQUENCE)
class Pooling1d(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.pool = draw.choice((nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@piece()
class SqueezeExcite(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.dims = {ROWS: (0,), SEQUENCE: (1,), IMAGE: (2, 3)}[form.kind]
        self.a, self.b = nn.Linear(form.width, 4), nn.Linear(4, form.width)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.b(F.relu(self.a(x.mean(self.dims)))).sigmoid()
        if x.dim() == 4:
            return x * gate[:, :, None, None]
        return x * (gate.unsqueeze(1) if x.dim() == 3 else gate)


@piece()
class Embedded(nn.Module):
    """Whole numbers made from the activation look up an embedding, with padding or a bound of its norms."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        kind = draw.choice(("plain", "padding", "max_norm", "by frequency"))
        self.table = nn.Embedding(
            16, form.last, padding_idx=0 if kind == "padding" else None, max_norm=1.0 if kind == "max_norm" else None,
            scale_grad_by_freq=kind == "by frequency",
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        index = (x.detach()[..., 0].abs() * 20).long() % 16
        return x + self.table(index)


@piece(ROWS)
class Bag(nn.Module):
    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(16, form.width, mode=draw.choice(("sum", "mean", "max")))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table((x.detach()[:, :5].abs() * 20).long() % 16)


@piece(ROWS, SEQUENCE)
class Tied(nn.Module):
    """One matrix as embedding and, transposed, as output layer; another used three times."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.table, self.again = nn.Embedding(32, form.width), nn.Linear(form.width, form.width)
        self.out = nn.Linear(form.width, 32, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.table((x.detach()[..., 0].abs() * 9).long() % 32)
        for _ in range(3):
            x = torch.tanh(self.again(x))
        return self.out(x).softmax(-1) @ self.table.weight + x


@piece()
class Frozen(nn.Module):
    """A frozen layer, an unused one, a scalar parameter and one of size 1."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.frozen, self.unused = mixer(form), nn.Linear(3, 3)
        for parameter in self.frozen.parameters():
            parameter.requires_grad_(False)
        self.scale, self.shift = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) * self.scale + self.shift


@piece(ROWS, SEQUENCE)
class Reparametrized(nn.Module):
    """Spectral norm updates buffers in each forward; weight norm and orthogonal weights compute their matrix."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        how = draw.choice(
            (nn.utils.spectral_norm, parametrizations.spectral_norm, parametrizations.weight_norm)
        )
        self.layer = how(nn.Linear(form.width, form.width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@piece()
class Standardized(nn.Module):
    """Weight standardisation, and a mask over the weights as pruning puts there."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(form.last, form.last) * 0.2)
        self.register_buffer("mask", (torch.rand(form.last, form.last) < 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean(1, keepdim=True)) / (self.weight.std(1, keepdim=True) + 1e-5)
        return F.linear(x, weight * self.mask)


@piece(ROWS, SEQUENCE)
class LowRank(nn.Module):
    """LoRA: a frozen matrix and two small ones."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.base = nn.Linear(form.width, form.width).requires_grad_(False)
        self.a, self.b = nn.Linear(form.width, 4, bias=False), nn.Linear(4, form.width, bias=False)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * self.b(self.a(self.drop(x)))


@piece(ROWS, SEQUENCE)
class Experts(nn.Module):
    """A gate chooses for each row; every expert computes all rows."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.gate = nn.Linear(form.width, 3)
        self.experts = nn.ModuleList(nn.Linear(form.width, form.width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        full = torch.zeros(*x.shape[:-1], 3).scatter(-1, chosen, weights)
        return sum(full[..., i : i + 1] * F.relu(e(x)) for i, e in enumerate(self.experts))
