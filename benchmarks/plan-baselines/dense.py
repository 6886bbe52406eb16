"""A DenseNet whose normalised concatenations are modules of their own, so that they can be checkpointed.

That is the memory-efficient scheme of Pleiss et al. 2017 ("Memory-Efficient Implementation of DenseNets"): what a layer
concatenates and normalises is made again in the backward, and its convolutions are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Joined(nn.Module):
    """Concatenation, normalisation, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)

    def forward(self, *features: Tensor) -> Tensor:
        return self.norm(torch.cat(features, 1)).relu()


class Layer(nn.Module):
    """Huang et al. 2017, with the bottleneck of DenseNet-B."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.joined = Joined(width)
        self.narrow = nn.Conv2d(width, 4 * growth, 1, bias=False)
        self.norm = nn.BatchNorm2d(4 * growth)
        self.wide = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, *features: Tensor) -> Tensor:
        return self.wide(self.norm(self.narrow(self.joined(*features))).relu())


class Stage(nn.Module):
    def __init__(self, width: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width + i * growth, growth) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(*features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """Two stages of DenseNet-BC."""

    def __init__(self, layers: tuple[int, int] = (6, 12), growth: int = 32) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.first = Stage(width, layers[0], growth)
        width += layers[0] * growth
        self.between = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)
        )
        self.second = Stage(width // 2, layers[1], growth)
        width = width // 2 + layers[1] * growth
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.between(self.first(self.pool(self.stem(x)))))
        return self.head(self.norm(x).relu().mean((2, 3)))

    def stages(self) -> list[nn.Module]:
        """Each dense block as a whole."""
        return [self.first, self.second]

    def joins(self) -> list[nn.Module]:
        """What the memory-efficient scheme makes again."""
        return [module for module in self.modules() if isinstance(module, Joined)]
