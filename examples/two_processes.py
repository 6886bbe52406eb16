"""What examples/with_ddp.py and with_fsdp.py share: a run that is saved, goes on, and is loaded again, with and without a
plan. Each example says how a module is made and how its steps go."""

import json
import sys
import tempfile
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import outsize
from outsize.integrations.processes import agree


def train(make, steps, folder: Path, *, planned: bool):
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


def compare(make, steps) -> None:
    """Train with a plan and without, and print what it took as a line of JSON."""
    dist.init_process_group("gloo")
    shared = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(shared)
    folder = Path(shared[0])
    plain, *_ = train(make, steps, folder / "plain", planned=False)
    losses, record, plan = train(make, steps, folder / "planned", planned=True)
    assert losses == plain, (losses, plain)
    assert losses[6:10] == losses[10:], "a loaded checkpoint goes on as the run that wrote it"
    assert record.highest_peak_bytes <= record.budget_bytes < record.plain_peak_bytes
    line = {"rank": dist.get_rank(), "peak": record.highest_peak_bytes, "budget": record.budget_bytes}
    print(json.dumps(line | {"plain": record.plain_peak_bytes, "plan": plan}), file=sys.stdout, flush=True)
    dist.destroy_process_group()
