"""U-Nets in two and three dimensions (Ronneberger et al. 2015; Çiçek et al. 2016).

The skips keep each level's result alive from the way down to the way up, inside the forward already: the longest idle
spans of any network here.
"""

# Calling an nn.Module is typed Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class UNetSize:
    """Channels of the first level (doubled at each next one), levels below it, dropout at the bottom."""

    width: int
    depth: int
    dropout: float = 0.1


@final
class UNet(nn.Module):
    """(B, 1, side, …) to logits (B, classes, side, …); `side` is a multiple of 2**depth."""

    def __init__(self, size: UNetSize, *, dimensions: int, classes: int) -> None:
        super().__init__()
        flat = dimensions == 2
        up = nn.ConvTranspose2d if flat else nn.ConvTranspose3d
        last = nn.Conv2d if flat else nn.Conv3d
        self.pool = nn.MaxPool2d(2) if flat else nn.MaxPool3d(2)
        self.dropout = nn.Dropout2d(size.dropout) if flat else nn.Dropout3d(size.dropout)
        widths = [size.width * 2**level for level in range(size.depth + 1)]
        self.down = nn.ModuleList(
            _double(a, b, dimensions) for a, b in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(up(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(_double(2 * a, a, dimensions) for a in widths[:-1])
        self.head = last(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.dropout(self.down[-1](x))
        for up, merge, skip in zip(reversed(self.up), reversed(self.merge), reversed(skips), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


def _double(channels: int, width: int, dimensions: int) -> nn.Sequential:
    """Two 3-wide convolutions. Batches of volumes are small, so three dimensions normalise by groups."""
    layers: list[nn.Module] = []
    for wide in (channels, width):
        if dimensions == 2:
            layers += [nn.Conv2d(wide, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        else:
            layers += [nn.Conv3d(wide, width, 3, padding=1, bias=False), nn.GroupNorm(min(4, width), width)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
