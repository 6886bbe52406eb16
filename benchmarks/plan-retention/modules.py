"""Small networks of the benchmark's families as torch modules, captured as `outsize.compile` captures them.

Nothing is allocated: tensors are fake, and seconds come from the roofline of the synthetic steps' processor. Published
shapes are cut down in depth and width, not in kind: what a normalisation, a concatenation, a cast or a gather saves for
the backward is what autograd saves for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plan.nets import CPU

from outsize.capture import capture
from outsize.measure.roofline import Hardware, estimate
from outsize.values import Profile, StepGraph
from outsize.zoo.models.unet import UNet, UNetSize

#: The processor of `tests/plan/nets.py`.
ROOFLINE = Hardware(
    name="processor",
    memory_bytes=2**36,
    memory_bytes_per_second=CPU.bandwidth,
    flops_per_second={"float32": CPU.flops},
    launch_seconds=CPU.launch,
    compute_fraction=1.0,
    memory_fraction=1.0,
    links=CPU.links,
)


def unit(cin: int, cout: int, k: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    conv = nn.Conv2d(cin, cout, k, stride, k // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU())


class DenseStage(nn.Module):
    """Huang et al. 2017: each layer reads all before it."""

    def __init__(self, growth: int = 24, layers: int = 8, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            conv = nn.Conv2d(width, growth, 3, padding=1)
            self.layers.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv))
            width += growth
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class InceptionBlock(nn.Module):
    """Szegedy et al. 2015: four branches of different depth, concatenated."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.one = unit(cin, 64, 1)
        self.three = nn.Sequential(unit(cin, 96, 1), unit(96, 128))
        self.five = nn.Sequential(unit(cin, 16, 1), unit(16, 32, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(cin, 32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Inception(nn.Module):
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(*(InceptionBlock(256 if i else 64) for i in range(blocks)))
        self.head = nn.Linear(256, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Pyramid(nn.Module):
    """Lin et al. 2017: laterals added to what comes down, a head at each level."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.up = nn.ModuleList(
            nn.Sequential(unit(cin, cout, 3, 2), unit(cout, cout)) for cin, cout in zip([3, *widths], widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths)
        self.heads = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()) for _ in widths)
        self.classes = nn.Linear(4 * width, 80)

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stage in self.up:
            x = stage(x)
            levels.append(x)
        down, pooled = None, []
        for level, lateral, head in zip(levels[::-1], list(self.lateral)[::-1], self.heads):
            here = lateral(level)
            down = here if down is None else here + F.interpolate(down, scale_factor=2.0)
            pooled.append(head(down).mean((2, 3)))
        return self.classes(torch.cat(pooled, 1))


class ResidualDense(nn.Module):
    """Wang et al. 2018 (ESRGAN): five convolutions, each reading all before it, scaled into a residual."""

    def __init__(self, width: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, growth, 3, 1, 1) for i in range(4))
        self.last = nn.Conv2d(width + 4 * growth, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for conv in self.convs:
            parts.append(F.leaky_relu(conv(torch.cat(parts, 1)), 0.2))
        return x + 0.2 * self.last(torch.cat(parts, 1))


class RRDB(nn.Module):
    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualDense() for _ in range(3))) for _ in range(blocks)
        )
        self.out = nn.Conv2d(64, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + 0.2 * block(x)
        return self.out(F.interpolate(x, scale_factor=2.0))


class Block(nn.Module):
    """A pre-norm transformer block; `adapter` adds a product of two narrow ones to two projections (Hu et al. 2021)."""

    def __init__(self, width: int = 512, heads: int = 8, adapter: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.Linear(width, adapter, bias=False), nn.Linear(adapter, width, bias=False))
            for _ in range(2 if adapter else 0)
        )
        for part in (self.q, self.v) if adapter else ():
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        q, k, v = self.q(y), self.k(y), self.v(y)
        if len(self.narrow):
            q, v = q + 2 * self.narrow[0](y), v + 2 * self.narrow[1](y)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.two(x))))


class Transformer(nn.Module):
    def __init__(self, layers: int = 4, *, adapter: int = 0, mixed: bool = False) -> None:
        super().__init__()
        self.mixed = mixed
        self.stem, self.head = nn.Linear(32, 512), nn.Linear(512, 256)
        self.blocks = nn.Sequential(*(Block(adapter=adapter) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            return self.head(self.blocks(self.stem(x)))


class Messages(nn.Module):
    """Rows gathered at both ends of each edge, a small network on each, sums at the nodes."""

    def __init__(self, layers: int = 4, width: int = 64) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(32, width), nn.Linear(width, 16)
        self.edges = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        x = self.stem(x)
        for edge, norm in zip(self.edges, self.norms):
            message = edge(torch.cat([x[source], x[target]], 1))
            x = norm(x + torch.zeros_like(x).index_add(0, target, message))
        return self.head(x)


class SqueezeExcite(nn.Module):
    """Hu et al. 2018: channels weighed by a gate that their means decide; an expansion before each."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.expand = unit(width, 4 * width, 1)
        self.gate = nn.Sequential(
            nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 4 * width), nn.Sigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(4 * width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        return x + self.project(y * self.gate(y.mean((2, 3)))[:, :, None, None])


class SENet(nn.Module):
    def __init__(self, blocks: int = 5) -> None:
        super().__init__()
        self.stem = unit(3, 64, 3, 2)
        self.blocks = nn.Sequential(*(SqueezeExcite() for _ in range(blocks)))
        self.head = nn.Linear(64, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def pictures(batch: int, size: int, channels: int = 3) -> tuple[Tensor, ...]:
    return (torch.empty(batch, channels, size, size),)


def ends(nodes: int, edges: int) -> tuple[Tensor, ...]:
    index = torch.zeros(edges, dtype=torch.int64)
    return torch.empty(nodes, 32), index, index.clone()


MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "dense stage": (DenseStage, lambda: pictures(16, 64)),
    "Inception": (Inception, lambda: pictures(32, 112)),
    "feature pyramid": (Pyramid, lambda: pictures(8, 256)),
    "RRDB": (RRDB, lambda: pictures(8, 64)),
    "mixed-precision transformer": (lambda: Transformer(mixed=True), lambda: (torch.empty(8, 512, 32),)),
    "LoRA": (lambda: Transformer(adapter=8), lambda: (torch.empty(8, 512, 32),)),
    "GNN": (Messages, lambda: ends(20_000, 160_000)),
    "squeeze-excite": (SENet, lambda: pictures(32, 112)),
    "U-Net": (
        lambda: UNet(UNetSize(width=32, depth=4), dimensions=2, classes=3),
        lambda: pictures(4, 256, 1),
    ),
}


def captured(name: str) -> tuple[StepGraph, Profile]:
    """The step of a module, and what it costs on the roofline."""
    module, args = MODULES[name]
    with FakeTensorMode(allow_non_fake_inputs=True):
        graph = capture(module(), args()).graph
    return graph, estimate(graph, ROOFLINE)
