"""DistributedDataParallel around a module under plan, a process for each part of the batch, and its checkpoints.

    torchrun --nproc-per-node 2 examples/with_ddp.py

`outsize.compile` the module, then put it into DDP. Each process plans its own steps; after `agree` all have the plans of
the first one. Gradients are summed as they come, as DDP always does. `torch.distributed.checkpoint` saves and loads it
like a plain module.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from two_processes import compare

import outsize

BUDGET = 2_600_000


def make(planned: bool):
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1))]
    module = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    if planned:
        outsize.compile(module, BUDGET, optimizer=optimizer)
    return module, DistributedDataParallel(module), optimizer


def steps(model, optimizer, first: int, last: int) -> list[float]:
    """Steps with accumulation and clipping; the batches and the dropout of each follow from its number."""
    losses = []
    for step in range(first, last):
        torch.manual_seed(100 * step + dist.get_rank())
        x, y = torch.randn(512, 64), torch.randint(10, (512,))
        if step % 2 == 0:
            with model.no_sync():
                loss = F.cross_entropy(model(x), y)
                loss.backward()
        else:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    compare(make, steps)
