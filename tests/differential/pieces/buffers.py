"""Buffers that a forward changes: queues, averages, counters, codebooks; read before, after and again in the backward."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import IMAGE, ROWS, SEQUENCE, Form, piece

UPDATES = ("copy", "mul add", "lerp", "slice", "slice assign", "rebind", "view", "data", "twice", "zero fill")


def update(owner: nn.Module, name: str, new: Tensor, how: str) -> None:
    """Change a buffer of a module in one of the ways that forwards do it."""
    buffer = getattr(owner, name)
    with torch.no_grad():
        if how == "copy":
            buffer.copy_(new)
        elif how == "mul add":
            buffer.mul_(0.9).add_(new, alpha=0.1)
        elif how == "lerp":
            buffer.lerp_(new, 0.25)
        elif how == "slice":
            half = max(1, buffer.shape[0] // 2)
            buffer[:half].copy_(new[:half])
        elif how == "slice assign":
            buffer[::2] = new[::2] * 0.5
        elif how == "rebind":
            setattr(owner, name, buffer * 0.5 + new.detach() * 0.5)
        elif how == "view":
            buffer.view(-1).sub_(new.reshape(-1) * 0.1)
        elif how == "data":
            buffer += new.detach() * 0.1
        elif how == "twice":
            buffer.add_(new)
            buffer.mul_(0.5)
        else:
            buffer.zero_()
            buffer.add_(new.mean())


@piece()
class Normalizer(nn.Module):
    """A running scale, read before or after its update, by a copy or as it is."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(form.last))
        self.how, self.first, self.copied = draw.choice(UPDATES), draw.random() < 0.5, draw.random() < 0.7

    def forward(self, x: Tensor) -> Tensor:
        new = x.detach().abs().mean(tuple(range(x.dim() - 1))) + 0.5
        if self.first:
            update(self, "scale", new, self.how)
        scale = self.scale.clone() if self.copied or not self.first else self.scale
        y = x / (scale.abs() + 0.5)
        if not self.first:
            update(self, "scale", new, self.how)
        return y


@piece(ROWS)
class Queue(nn.Module):
    """MoCo's memory bank: keys compared with, then a slice overwritten at a place that a buffer counts."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("queue", F.normalize(torch.randn(form.width, 256), dim=0))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))
        self.how = draw.choice(("slice", "index", "roll", "rebind"))

    def forward(self, x: Tensor) -> Tensor:
        q = F.normalize(x, dim=1)
        logits = q @ self.queue.clone() / 0.2
        with torch.no_grad():
            keys = q.detach()[:32].T
            n = keys.shape[1]
            if self.how == "slice":
                self.queue[:, :n] = keys
            elif self.how == "index":
                self.queue.index_copy_(1, (torch.arange(n) + self.place) % 256, keys)
            elif self.how == "roll":
                self.queue.copy_(torch.cat([keys, self.queue[:, :-n]], 1))
            else:
                self.queue = torch.cat([keys, self.queue[:, n:]], 1)
            self.place.add_(n).remainder_(256)
        return x + logits.softmax(1) @ self.queue.T.clone()


@piece(ROWS, SEQUENCE)
class Codebook(nn.Module):
    """VQ-VAE with averages: the nearest code replaces the activation, then the codes move."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(32, form.width))
        self.register_buffer("sizes", torch.ones(32))
        self.register_buffer("sums", torch.randn(32, form.width))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        far = (
            flat.detach().pow(2).sum(1, keepdim=True)
            - 2 * flat.detach() @ self.codes.T
            + self.codes.pow(2).sum(1)
        )
        chosen = far.argmin(1)
        q = F.embedding(chosen, self.codes.clone()).view_as(x)
        if self.training:
            with torch.no_grad():
                one_hot = F.one_hot(chosen, 32).to(x.dtype)
                self.sizes.mul_(0.9).add_(one_hot.sum(0), alpha=0.1)
                self.sums.mul_(0.9).add_(one_hot.T @ flat, alpha=0.1)
                self.codes.copy_(self.sums / (self.sizes.unsqueeze(1) + 1e-3))
        return x + (q - x).detach() + 0.1 * (x - q) ** 2


@piece()
class Counter(nn.Module):
    """A counter that scales: warm-up, annealing."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer(
            "steps", torch.zeros((), dtype=draw.choice((torch.long, torch.float32, torch.int32)))
        )
        self.after = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            self.steps += 1
        y = x * (1 / (1 + 0.1 * self.steps.to(x.dtype)))
        if not self.after:
            self.steps.add_(1)
        return y


@piece()
class Momentum(nn.Module):
    """A teacher whose weights are an average of the student's, updated before or after it runs."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(form.last, form.last) * 0.1)
        self.register_buffer("teacher", torch.randn(form.last, form.last) * 0.1)
        self.after, self.how = draw.random() < 0.5, draw.choice(("lerp", "mul add", "rebind", "copy"))

    def forward(self, x: Tensor) -> Tensor:
        if not self.after:
            update(self, "teacher", self.weight.detach(), self.how)
        y = x @ self.weight * (x @ self.teacher.clone()).sigmoid()
        if self.after:
            update(self, "teacher", self.weight.detach(), self.how)
        return y


@piece()
class State(nn.Module):
    """A state that recurs over steps, as large as an activation."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(form.shape[1:]), persistent=draw.random() < 0.5)
        self.gate = nn.Parameter(torch.zeros(form.last))
        self.how = draw.choice(UPDATES)

    def forward(self, x: Tensor) -> Tensor:
        before = self.state.clone()
        y = x * (before * self.gate).sigmoid() + (before * self.gate).tanh()
        update(self, "state", y.detach().mean(0), self.how)
        return y + 0.1 * self.state.clone()


@piece()
class Renormalized(nn.Module):
    """Batch renormalisation: corrections come from the running statistics, which then move."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(form.last))
        self.register_buffer("deviation", torch.ones(form.last))
        self.register_buffer("seen", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(x.dim() - 1))
        mean, deviation = x.mean(dims), x.std(dims, unbiased=False) + 0.1
        r = (deviation.detach() / self.deviation).clamp(0.5, 2)
        d = ((mean.detach() - self.mean) / self.deviation).clamp(-1, 1)
        y = (x - mean) / deviation * r + d
        with torch.no_grad():
            self.mean.add_((mean - self.mean) * 0.1)
            self.deviation += (deviation - self.deviation) * 0.1
            self.seen.fill_(True)
        return y


@piece()
class ReadTwice(nn.Module):
    """A buffer read, changed and read again; both readings matter in the backward."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(form.last, form.last) * 0.1)
        self.weight, self.how = nn.Parameter(torch.ones(form.last)), draw.choice(UPDATES)

    def forward(self, x: Tensor) -> Tensor:
        y = (x * self.weight) @ self.table.clone()
        update(
            self,
            "table",
            y.detach().mean(tuple(range(x.dim() - 1))).expand_as(self.table).contiguous(),
            self.how,
        )
        return torch.tanh(y) @ self.table.clone() * self.weight


@piece()
class OwnNorm(nn.Module):
    """A batch norm written by hand: the running mean is used in evaluation alone, the variance in both."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(form.last))
        self.register_buffer("variance", torch.ones(form.last))
        self.weight = nn.Parameter(torch.ones(form.last))

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(x.dim() - 1))
        mean = x.mean(dims) if self.training else self.mean
        y = (x - mean) * torch.rsqrt(self.variance.clone() + 0.1) * self.weight
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(mean, 0.1)
                self.variance.mul_(0.9).add_(x.var(dims, unbiased=False), alpha=0.1)
        return y


@piece(ROWS, IMAGE, SEQUENCE)
class History(nn.Module):
    """The last activations, newest first; a mask of booleans; a place of whole numbers."""

    def __init__(self, form: Form, draw: random.Random) -> None:
        super().__init__()
        self.register_buffer("history", torch.zeros(3, form.last))
        self.register_buffer("active", torch.ones(form.last, dtype=torch.bool))
        self.register_buffer("used", torch.zeros(3, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        new = x.detach().mean(tuple(range(x.dim() - 1)))
        y = torch.where(self.active.clone(), x, x * 0.1) + self.history.clone().mean(0)
        with torch.no_grad():
            self.history[1:] = self.history[:-1].clone()
            self.history[0] = new
            self.active.copy_(new > new.median())
            self.used[self.used.argmin()] += 1
        return y * self.history[0].clone().cos()
