"""One worker of the paired comparison: variants take turns step by step in the same processes.

Prints, on rank 0, one JSON line per variant: seconds per step (slowest worker) and CPU seconds per step
(all workers), for every step after the warm-up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from outsize.parallel import Search, Settings, distribute


def mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(4096, 10))


def block(inside: int, outside: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
        nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
    )  # fmt: skip


def conv() -> nn.Module:
    """Eighteen convolutions on 32 x 32 images, 11 M parameters: time goes into the convolutions."""
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [block(a, b, 2 if b > a else 1) for a, b in itertools.pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks, *head)


def build(variant: str, net: Callable[[], nn.Module], chunk_mb: float | None) -> Callable[..., None]:
    """A function that makes one training step of the variant."""
    torch.manual_seed(0)
    module = net()
    optimizer: torch.optim.Optimizer | None = None
    if variant == "local":
        model: nn.Module = module
    elif variant.startswith("ddp"):
        model = DistributedDataParallel(module, gradient_as_bucket_view="view" in variant)
        fused = True if "default" not in variant else None
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    else:
        settings = Settings(search=Search(limit=1)) if chunk_mb is None else Settings()
        model, optimizer = distribute(
            module, torch.optim.AdamW, lr=1e-3, chunk_mb=chunk_mb, settings=settings
        )

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        nn.functional.cross_entropy(model(x), y).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        else:
            module.zero_grad()

    return step


def measure(step: Callable[..., None], x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    dist.barrier()
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    step(x, y)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", choices=["mlp", "conv"], default="mlp")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--chunk-mb", type=float, default=None)
    parser.add_argument("--variants", nargs="+", default=["local", "ddp", "ours"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    net = mlp if args.net == "mlp" else conv
    steps = {name: build(name, net, args.chunk_mb) for name in args.variants}
    shape = (args.batch, 4096) if args.net == "mlp" else (args.batch, 3, 32, 32)
    torch.manual_seed(dist.get_rank())
    x, y = torch.randn(shape), torch.randint(0, 10, (args.batch,))
    taken: dict[str, list[list[float]]] = {name: [] for name in steps}
    for index in range(args.warm + args.steps):
        for name, step in steps.items():
            both = torch.tensor(measure(step, x, y), dtype=torch.float64)
            slowest, total = both.clone(), both.clone()
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            dist.all_reduce(total)
            if index >= args.warm:
                taken[name].append([float(slowest[0]), float(total[1])])
    if dist.get_rank() == 0:
        for name, pairs in taken.items():
            wall, cpu = zip(*pairs)
            print(json.dumps({"variant": name, "seconds": wall, "cpu_seconds": cpu}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
