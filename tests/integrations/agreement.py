"""One of two processes under torchrun: plans that differ, what `agree` makes of them, and what is refused.

    torchrun --nproc-per-node 2 agreement.py

prints a line of JSON for each process.
"""

from __future__ import annotations

import json
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import outsize
from outsize import decide
from outsize.errors import CaptureError, OutsizeError
from outsize.integrations.processes import agree
from outsize.session import session_of
from outsize.session.agree import plan_digest
from outsize.values import OpCost


def layers(width: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *[m for _ in range(5) for m in (nn.Linear(width, width), nn.GELU())], nn.Linear(width, 10)
    )


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        torch.manual_seed(100 * step + dist.get_rank())
        loss = F.cross_entropy(model(torch.randn(512, 64)), torch.randint(10, (512,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def digest(module: nn.Module) -> str:
    made = session_of(module).prepared  # type: ignore[union-attr]
    return plan_digest([made.plan])  # type: ignore[union-attr]


def measured_here(*args, **kwargs):
    """As if this process were another machine: what is quick on the first one is slow here."""
    found = MEASURED(*args, **kwargs)
    times = [1e-3 if i % 3 == dist.get_rank() else 1e-6 for i in range(len(found))]
    return tuple(
        OpCost(seconds=s, workspace_bytes=c.workspace_bytes, surplus_bytes=c.surplus_bytes)
        for s, c in zip(times, found)
    )


MEASURED = decide.measure_ops


def data_parallel(budget: int | None):
    module = layers()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    if budget:
        outsize.compile(module, budget, optimizer=optimizer, actions=("recompute",))
    return module, DistributedDataParallel(module), optimizer


def captured() -> dict:
    """Under DDP; the plans differ before."""
    _, model, optimizer = data_parallel(None)
    plain = steps(model, optimizer, 0, 6)
    decide.measure_ops = measured_here
    module, model, optimizer = data_parallel(BUDGET)
    losses = steps(model, optimizer, 0, 3)
    before, agreed = digest(module), agree(model)
    losses += steps(model, optimizer, 3, 6)
    record = outsize.report(module)
    decide.measure_ops = MEASURED
    return {
        "equal": losses == plain, "before": before, "after": digest(module), "agreed": agreed,
        "peak": record.highest_peak_bytes, "budget": record.budget_bytes,
        "recomputes": any(d.action == "recompute" for d in record.decisions),
    }  # fmt: skip


def refused() -> dict:
    """What differs is named in every process."""
    rank, said = dist.get_rank(), {}
    for name, width, budget, ran in (
        ("compiled", 64, 0, False), ("planned", 64, 2**30, False), ("budget", 64, 2**30 + rank, True),
        ("shape", 64 - 8 * rank, 2**30, True),
    ):  # fmt: skip
        module = layers(64) if name != "shape" else nn.Sequential(nn.Linear(64, width), nn.GELU())
        if budget:
            outsize.compile(module, budget)
        if ran:
            module(torch.randn(8, 64)).sum().backward()
        try:
            agree(module)
        except OutsizeError as error:
            said[name] = str(error)
    cpu = torch.device("cpu")
    for name, module, door in (
        ("captured", fully_shard(nn.Linear(8, 8)), "captured"),
        ("flat", FullyShardedDataParallel(nn.Linear(8, 8), device_id=cpu), "auto"),
    ):
        try:
            outsize.compile(module, 2**30, door=door)
        except CaptureError as error:
            said[name] = str(error)
    return said


BUDGET = 1_500_000

if __name__ == "__main__":
    dist.init_process_group("gloo")
    line = {"rank": dist.get_rank(), "captured": captured(), "refused": refused()}
    os.write(1, f"{json.dumps(line)}\n".encode())
    dist.destroy_process_group()
