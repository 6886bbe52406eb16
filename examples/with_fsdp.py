"""FSDP2: each block sharded by `fully_shard`, the activations of its steps under a budget, a process for each shard.

    torchrun --nproc-per-node 2 examples/with_fsdp.py

Shard the module, make the optimizer, then call `outsize.compile`. The steps run in eager PyTorch and are observed; each
process plans its own, and after `agree` all have the plans of the first one. FSDP gathers and frees the parameters as
always, and the bytes of that count.

Garbage is collected between steps only, at the same place in all processes, as long runs on many machines do: when that
happens decides how long some tensors live, and processes whose steps differ by it have no plan in common.
"""

import gc
import json
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import outsize
from outsize.integrations.processes import agree

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
    return module, optimizer


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


def train(folder: Path, *, planned: bool):
    """The losses of ten steps, and of the last four again after a checkpoint was loaded; the record; the plan's hash."""
    model, optimizer = make(planned)
    losses = steps(model, optimizer, 0, 6)
    plan = agree(model) if planned else ""
    state, updates = get_state_dict(model, optimizer)
    dcp.save({"model": state, "optimizer": updates}, checkpoint_id=folder)
    losses += steps(model, optimizer, 6, 10)
    record = outsize.report(model) if planned else None
    outsize.release(model)

    model, optimizer = make(planned)
    state, updates = get_state_dict(model, optimizer)
    dcp.load({"model": state, "optimizer": updates}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=state, optim_state_dict=updates)
    losses += steps(model, optimizer, 6, 10)
    outsize.release(model)
    return losses, record, plan


def main() -> None:
    gc.disable()
    dist.init_process_group("gloo")
    shared = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(shared)
    folder = Path(shared[0])
    plain, *_ = train(folder / "plain", planned=False)
    losses, record, plan = train(folder / "planned", planned=True)
    assert losses == plain, (losses, plain)
    assert losses[6:10] == losses[10:], "a loaded checkpoint goes on as the run that wrote it"
    assert record.highest_peak_bytes <= record.budget_bytes < record.plain_peak_bytes
    line = {"rank": dist.get_rank(), "peak": record.highest_peak_bytes, "budget": record.budget_bytes}
    print(json.dumps(line | {"plain": record.plain_peak_bytes, "plan": plan}), file=sys.stdout, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
