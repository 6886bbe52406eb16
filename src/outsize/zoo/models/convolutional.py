"""Image networks: ResNet (He et al. 2015, stride in the 3×3 convolution), VGG-16 with batch normalisation, and a
convolutional autoencoder whose decoder uses the encoder's own weights."""

# Calling an nn.Module is typed Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class ResNetSize:
    """Bottlenecks per stage, and channels of the first stage's inner convolutions."""

    stages: tuple[int, ...]
    width: int = 64


@final
class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with a shortcut: (B, C, h, w) to (B, 4·width, h/stride, w/stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.relu(self.norm2(self.conv2(y)))
        return self.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


@final
class ResNet(nn.Module):
    """(B, 3, side, side) to logits (B, classes)."""

    def __init__(self, size: ResNetSize, *, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, size.width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(size.width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels, stages = size.width, []
        for index, count in enumerate(size.stages):
            width = size.width * 2**index
            for block in range(count):
                stages.append(Bottleneck(channels, width, stride=2 if block == 0 and index else 1))
                channels = 4 * width
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class VGGSize:
    """Channels of the convolutions of each stage, width of the two hidden layers, dropout between them."""

    stages: tuple[tuple[int, ...], ...] = (
        (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
    )  # fmt: skip
    hidden: int = 4096
    dropout: float = 0.5


@final
class VGG(nn.Module):
    """(B, 3, side, side) to logits (B, classes); `side` is a multiple of 2 to the number of stages."""

    def __init__(self, size: VGGSize, *, side: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in size.stages:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
                layers += [nn.ReLU(inplace=True)]
                channels = width
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels * (side // 2 ** len(size.stages)) ** 2, size.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(size.dropout),
            nn.Linear(size.hidden, size.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(size.dropout),
            nn.Linear(size.hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


@final
class TiedAutoencoder(nn.Module):
    """Denoising autoencoder with one set of weights: each encoder convolution (stride 2) is the decoder's transposed
    convolution as well. (B, 1, side, side) to the same; `side` is a multiple of 2 to the number of layers."""

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128), *, noise: float = 0.2) -> None:
        super().__init__()
        pairs = list(zip((1, *channels[:-1]), channels, strict=True))
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(b, a, 4, 4)) for a, b in pairs)
        self.down = nn.ParameterList(nn.Parameter(torch.zeros(b)) for _, b in pairs)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(a)) for a, _ in pairs)
        self.noise = nn.Dropout(noise)
        for weight in self.weights:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.noise(x)
        for weight, bias in zip(self.weights, self.down, strict=True):
            x = F.relu(F.conv2d(x, weight, bias, stride=2, padding=1))
        layers = list(zip(self.weights, self.up, strict=True))
        for index in reversed(range(len(layers))):
            weight, bias = layers[index]
            x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
            x = F.relu(x) if index else x
        return x
