"""One process, one allocator: some training steps of a ResNet-50, plain or with its early activations on disk.

Prints one JSON object. `run.py` starts it; the allocator must be chosen before the process allocates.
"""

import argparse
import ctypes
import gc
import json
import time

import torch
import torch.nn.functional as F
from swapping import Swapper
from torch import nn

from outsize.device import allocator, memory
from outsize.runtime.tiers import DiskTier

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, ONE_GIB = -1, -3, 2**30


class Bottleneck(nn.Module):
    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        outer = 4 * width
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(inner, width, 1, bias=False),
                nn.Conv2d(width, width, 3, stride, 1, bias=False),
                nn.Conv2d(width, outer, 1, bias=False),
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(n) for n in (width, width, outer)])
        same = stride == 1 and inner == outer
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norms[0](self.convs[0](x)))
        y = F.relu(self.norms[1](self.convs[1](y)))
        return F.relu(self.norms[2](self.convs[2](y)) + self.short(x))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inner = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for k in range(count):
            layers.append(Bottleneck(inner, width, stride if k == 0 else 1))
            inner = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def choose(name: str) -> None:
    libc = ctypes.CDLL(None)
    if name == "one-heap":
        libc.mallopt(M_MMAP_THRESHOLD, ONE_GIB)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    elif name == "mapped":
        libc.mallopt(M_MMAP_THRESHOLD, 2**20)
    elif name.startswith("arena"):
        assert allocator.install(allocator.ArenaSettings(huge_pages=name == "arena")), allocator.facts()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("allocator")
    parser.add_argument("--swap", type=float, default=0.0, help="share of the saved bytes that go to disk")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    choose(args.allocator)
    torch.manual_seed(0)
    model, x = resnet50(), torch.randn(args.batch, 3, 224, 224)
    y = torch.randint(0, 1000, (args.batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    resident = [*model.parameters(), *model.buffers(), x]
    gc.collect()
    idle_rss, idle_bytes = memory.rss_bytes(), memory.bytes_in_use()
    steps: list[dict[str, float]] = []
    with DiskTier() as tier:
        swapper = Swapper(tier, resident, share=args.swap) if args.swap else None
        for _ in range(args.steps + 1):  # the first warms the caches, the file and the pages
            memory.reset_peak_rss()
            stall, metering = tier.counters().stall_seconds, memory.meter_seconds()
            meter = memory.PeakMeter().start()
            wall, cpu = time.perf_counter(), time.process_time()
            if swapper is None:
                loss = F.cross_entropy(model(x), y)
            else:
                with swapper.forward():
                    loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            peak = meter.stop()
            allocator.trim()
            steps.append(
                {
                    "seconds": wall,
                    "cpu_seconds": cpu,
                    "stall_seconds": tier.counters().stall_seconds - stall,
                    "meter_seconds": memory.meter_seconds() - metering,
                    "peak_bytes": peak - idle_bytes,
                    "peak_rss_bytes": memory.peak_rss_bytes() - idle_rss,
                    "loss": float(loss),
                }
            )
        counters = tier.counters()
    print(json.dumps({"steps": steps[1:], "bytes_out": counters.bytes_out, "facts": dict(allocator.facts())}))


if __name__ == "__main__":
    main()
