"""Small networks and batches that every worker can build alike."""

from __future__ import annotations

import torch
from torch import nn


def smooth(width: int = 24, depth: int = 3, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Tanh: no rounding error flips a unit, so two orders of summation stay together."""
    torch.manual_seed(7)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 5)).to(dtype)


def batch(step: int, rank: int, width: int = 24, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(6, width, generator=torch.Generator().manual_seed(1000 * step + rank)).to(dtype)


def loss_of(out: torch.Tensor) -> torch.Tensor:
    return (out.float() - 0.3).square().mean()


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1).double() for p in module.parameters()])
