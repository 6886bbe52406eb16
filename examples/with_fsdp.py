"""FSDP2: each block sharded by `fully_shard`, the activations of its steps under a budget, a process for each shard.

    torchrun --nproc-per-node 2 examples/with_fsdp.py

Shard the module, make the optimizer, then call `outsize.compile`. The steps run in eager PyTorch and are observed; each
process plans its own, and after `agree` all have the plans of the first one. FSDP gathers and frees the parameters as
always, and the bytes of that count.

Garbage is collected between steps only, at the same place in all processes, as long runs on many machines do: when that
happens decides how long some tensors live, and processes whose steps differ by it have no plan in common.
"""

import gc

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from two_processes import compare

import outsize

BUDGET = 6_000_000


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.1)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.dropout(self.down(F.gelu(self.up(self.norm(x)))))


def make(planned: bool):
    torch.manual_seed(0)
    module = nn.Sequential(*[Block(64) for _ in range(6)], nn.Linear(64, 10))
    for block in module:
        fully_shard(block)
    fully_shard(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    if planned:
        outsize.compile(module, BUDGET, optimizer=optimizer)
    return module, module, optimizer


def steps(model, optimizer, first: int, last: int) -> list[float]:
    """Steps with accumulation and clipping; the batches and the dropout of each follow from its number."""
    losses = []
    for step in range(first, last):
        torch.manual_seed(100 * step + dist.get_rank())
        x, y = torch.randn(512, 64), torch.randint(10, (512,))
        model.set_requires_gradient_sync(step % 2 == 1)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if step % 2 == 1:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        gc.collect()
    return losses


if __name__ == "__main__":
    gc.disable()
    compare(make, steps)
