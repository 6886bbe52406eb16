"""Networks whose steps no single graph holds, or that hold their tensors in unusual ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH = 64
Make = Callable[[], nn.Module]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


class Stack(nn.Module):
    """Blocks one after the other, each with `between` around it."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], blocks: int = 4) -> None:
        super().__init__()
        self.blocks, self.between = nn.ModuleList([mlp() for _ in range(blocks)]), between

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.between(block, x)
        return x


def residual(block: nn.Module, x: Tensor) -> Tensor:
    return x + block(x)


def dropped(block: nn.Module, x: Tensor) -> Tensor:
    return F.dropout(torch.relu(block(x)), 0.3)


def left_out(block: nn.Module, x: Tensor) -> Tensor:
    return x + block(x) if torch.rand(()).item() > 0.4 else x


def branched(block: nn.Module, x: Tensor) -> Tensor:
    return torch.sigmoid(block(x)) if x.flatten()[0].item() > 0 else torch.tanh(block(x))


def in_place(block: nn.Module, x: Tensor) -> Tensor:
    hidden = block(x)
    hidden += x
    return F.relu(hidden, inplace=True)


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = checkpoint(block, x, use_reentrant=False)
    return x + result


class Attention(nn.Module):
    """Views of one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), mlp()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).view(*x.shape[:-1], 3, 4, WIDTH // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 4, -1) @ v
        result: Tensor = self.out(x + mixed.transpose(1, 2).reshape(x.shape))
        return result


class Experts(nn.Module):
    """Each row goes to one of four: sizes that depend on data."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts, self.first = (
            nn.Linear(WIDTH, 4),
            nn.ModuleList([mlp() for _ in range(4)]),
            mlp(),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = (x + self.first(x)).reshape(-1, WIDTH)
        weight, chosen = torch.softmax(self.gate(rows), -1).max(-1)
        result = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            picked = (chosen == number).nonzero().flatten()
            if picked.numel():
                result = result.index_add(0, picked, expert(rows[picked]) * weight[picked, None])
        return result.view_as(x)


class _Wave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.sin(x) * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return g * w * torch.cos(x), (g * torch.sin(x)).sum((0, 1))


class Custom(nn.Module):
    """An autograd function of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.first, self.second = nn.Parameter(torch.ones(WIDTH)), mlp(), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(_Wave.apply(self.first(x), self.weight))
        return result


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.lstm(x)[0])
        return result


class SparseTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(64, WIDTH, sparse=True), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.table((x[..., 0].abs() * 7).long() % 64))
        return result


class Spectral(nn.Module):
    """Complex parameters, conjugated lazily."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.out = nn.Parameter(torch.randn(WIDTH // 2 + 1, dtype=torch.cfloat)), mlp()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(torch.fft.irfft(torch.fft.rfft(x) * self.filter.conj(), n=WIDTH))
        return result


@dataclass
class Output:
    last: Tensor
    hidden: list[Tensor]


class Outputs(nn.Module):
    """A dataclass that holds every hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([mlp() for _ in range(3)])

    def forward(self, x: Tensor) -> Output:
        hidden = [x]
        for block in self.blocks:
            hidden.append(hidden[-1] + block(hidden[-1]))
        return Output(hidden[-1], hidden)


class Cooling(Stack):
    """A Python number that changes from step to step."""

    def __init__(self) -> None:
        super().__init__(lambda block, x: x + torch.sigmoid(block(x) * self.heat) * self.heat)
        self.heat = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.heat *= 0.9
        return super().forward(x)


class Hooked(Stack):
    """Hooks on the backward and the forward of parts."""

    def __init__(self) -> None:
        super().__init__(residual)
        self.blocks[1].register_full_backward_hook(lambda m, given, out: tuple(2 * g for g in given))
        self.blocks[2].register_forward_hook(lambda m, args, result: result * 1.5)


class Inner(nn.Module):
    """A gradient taken inside of the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.energy, self.out = mlp(), mlp()

    def forward(self, x: Tensor) -> Tensor:
        y = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.energy(y).tanh().sum(), y, create_graph=True)
        result: Tensor = self.out(x + gradient)
        return result


MODELS: dict[str, Make] = {
    "residual": lambda: Stack(residual),
    "views": Attention,
    "in place": lambda: Stack(in_place),
    "dropout": lambda: Stack(dropped),
    "branches on data": lambda: Stack(branched, 2),
    "layer drop": lambda: Stack(left_out),
    "experts": Experts,
    "custom function": Custom,
    "lstm": Recurrent,
    "checkpoints": lambda: Stack(checkpointed),
    "sparse gradients": SparseTable,
    "complex": Spectral,
    "dataclass": Outputs,
    "hooks on parts": Hooked,
    "a number that changes": Cooling,
    "a gradient inside": Inner,
}


def loss_of(result: Any) -> Tensor:
    if isinstance(result, Output):
        return result.last.square().mean() + sum(h.mean() for h in result.hidden)
    loss: Tensor = result.square().mean()
    return loss
