"""One worker of one variant. Variants run in processes of their own and take turns, step by step.

`main.py` holds the key-value store that gives the turns; rank 0 answers with the slowest worker's seconds and all
workers' CPU seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from outsize.device import allocator
from outsize.parallel import Search, Settings, distribute


def mlp(width: int) -> nn.Module:
    """Three layers and a head; 50.4 M parameters at a width of 4096."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def block(inside: int, outside: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
        nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
    )  # fmt: skip


def conv() -> nn.Module:
    """Seventeen convolutions on 32 x 32 images, 11 M parameters: time goes into the convolutions."""
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [block(a, b, 2 if b > a else 1) for a, b in itertools.pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *blocks, *head)


def build(variant: str, module: nn.Module, chunk_mb: float | None) -> Callable[..., None]:
    """A function that makes one training step of the variant.

    `local` runs forward and backward only; `-arena` has outsize's allocator, as `ours` has by itself;
    `ddp-default` uses AdamW as torch makes it by default; `bytes` only moves what `ours` must (see README.md).
    """
    if variant == "bytes":
        return move(sum(p.numel() for p in module.parameters()), dist.get_world_size())
    optimizer: torch.optim.Optimizer | None = None
    if "arena" in variant:
        allocator.install()
    if variant.startswith("local"):
        model: nn.Module = module
    elif variant.startswith("ddp"):
        model = DistributedDataParallel(module, gradient_as_bucket_view="view" in variant)
        fused = None if "default" in variant else True
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    else:
        settings = Settings(search=Search(limit=6))
        model, optimizer = distribute(
            module, torch.optim.AdamW, lr=1e-3, chunk_mb=chunk_mb, settings=settings
        )
        build.optimizer = optimizer  # type: ignore[attr-defined]

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        nn.functional.cross_entropy(model(x), y).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        else:
            module.zero_grad()

    return step


def move(elements: int, workers: int) -> Callable[..., None]:
    """A function that moves the bytes of one worker's synchronisation and AdamW, 12 of an element at a time.

    Per element of the model: stage what others sum (read and write 4, times (workers - 1) / workers), then read the
    gradients of all and read and write parameter and moments of its own slice (4 * workers + 24, divided by workers).
    """
    wanted = 8 * (workers - 1) / workers + 4 + 24 / workers
    target, other = torch.zeros(elements), torch.ones(elements)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        left = int(elements * wanted / 12)
        while left > 0:
            n = min(left, elements)
            target[:n].add_(other[:n])
            left -= n

    return step


def measure(step: Callable[..., None], x: torch.Tensor, y: torch.Tensor) -> list[float]:
    dist.barrier()
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    step(x, y)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    both = torch.tensor([seconds, cpu], dtype=torch.float64)
    slowest, total = both.clone(), both.clone()
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    dist.all_reduce(total)
    return [float(slowest[0]), float(total[1])]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", required=True)
    parser.add_argument("--net", choices=["mlp", "mlp-2048", "conv"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunk-mb", type=float, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    turns = dist.TCPStore("127.0.0.1", args.port, is_master=False)
    torch.manual_seed(0)
    width = 2048 if args.net == "mlp-2048" else 4096
    variant, _, size = args.variant.partition("@")  # ours@4: chunks of 4 MiB
    chunk_mb = float(size) if size else args.chunk_mb
    step = build(variant, conv() if args.net == "conv" else mlp(width), chunk_mb)
    torch.manual_seed(dist.get_rank() + 1)
    x = torch.randn((args.batch, 3, 32, 32) if args.net == "conv" else (args.batch, width))
    y = torch.randint(0, 10, (args.batch,))
    turns.set(f"{args.variant}/pid/{dist.get_rank()}", str(os.getpid()))
    for index in range(args.steps):
        turns.wait([f"{args.variant}/go/{index}"])
        found = measure(step, x, y)
        if dist.get_rank() == 0:
            turns.set(f"{args.variant}/done/{index}", json.dumps(found))
    if args.variant == "ours" and dist.get_rank() == 0:
        optimizer = build.optimizer  # type: ignore[attr-defined]
        turns.set("ours/chunk_mb", str(optimizer.chunk_plan.chunk_bytes / 2**20))
    turns.wait(["end"])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
