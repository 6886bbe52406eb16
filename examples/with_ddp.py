"""DistributedDataParallel around a module under plan, a process for each part of the batch, and its checkpoints.

    torchrun --nproc-per-node 2 examples/with_ddp.py

`outsize.compile` the module, then put it into DDP. Each process plans its own steps; after `agree` all have the plans of
the first one. Gradients are summed as they come, as DDP always does. `torch.distributed.checkpoint` saves and loads it
like a plain module.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import outsize
from outsize.integrations.processes import agree

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


def train(folder: Path, *, planned: bool):
    """The losses of ten steps, and of the last four again after a checkpoint was loaded; the record; the plan's hash."""
    module, model, optimizer = make(planned)
    losses = steps(model, optimizer, 0, 6)
    plan = agree(model) if planned else ""
    state, updates = get_state_dict(model, optimizer)
    dcp.save({"model": state, "optimizer": updates}, checkpoint_id=folder)
    losses += steps(model, optimizer, 6, 10)
    record = outsize.report(module) if planned else None
    outsize.release(module)

    module, model, optimizer = make(planned)
    state, updates = get_state_dict(model, optimizer)
    dcp.load({"model": state, "optimizer": updates}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=state, optim_state_dict=updates)
    losses += steps(model, optimizer, 6, 10)
    outsize.release(module)
    return losses, record, plan


def main() -> None:
    dist.init_process_group("gloo")
    shared = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(shared)
    folder = Path(shared[0])
    plain, *_ = train(folder / "plain", planned=False)
    losses, record, plan = train(folder / "planned", planned=True)
    assert losses == plain, (losses, plain)
    assert losses[6:10] == losses[10:], "a loaded checkpoint goes on as the run that wrote it"
    assert record.measured_peak_bytes <= record.budget_bytes < record.plain_peak_bytes
    line = {"rank": dist.get_rank(), "peak": record.measured_peak_bytes, "budget": record.budget_bytes}
    print(json.dumps(line | {"plain": record.plain_peak_bytes, "plan": plan}), file=sys.stdout, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
