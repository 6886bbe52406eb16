"""Your own network in `outsize train examples/my_model.py:build`.

`build()` returns the module, its batches and its loss; with validation batches as a fourth the summary shows the
validation loss as well. Here: an MLP-Mixer that learns which of two noisy waves has the higher frequency.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixerBlock(nn.Module):
    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm_patches, self.norm_width = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_patches = nn.Sequential(
            nn.Linear(patches, 4 * patches), nn.GELU(), nn.Linear(4 * patches, patches)
        )
        self.over_width = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_patches(self.norm_patches(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_width(self.norm_width(x))


class Mixer(nn.Module):
    def __init__(self, *, patches: int = 32, patch: int = 16, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(2 * patch, width)
        self.blocks = nn.Sequential(*(MixerBlock(patches, width) for _ in range(depth)))
        self.head = nn.Linear(width, 2)

    def forward(self, waves: Tensor) -> Tensor:
        batch = waves.shape[0]
        patches = waves.view(batch, 2, -1, self.patch).transpose(1, 2).flatten(2)
        return self.head(self.blocks(self.embed(patches)).mean(1))


def batches(seed: int, *, batch: int = 64, length: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    time = torch.linspace(0, 1, length)
    while True:
        frequency = 5 + 30 * torch.rand(batch, 2, 1, generator=generator)
        waves = torch.sin(2 * torch.pi * frequency * time)
        waves += 0.3 * torch.randn(waves.shape, generator=generator)
        yield waves, frequency.squeeze(2).argmax(1)


def build():
    validation = [batch for batch, _ in zip(batches(seed=1), range(2))]
    return Mixer(), batches(seed=0), F.cross_entropy, validation
