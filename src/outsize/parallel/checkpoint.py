"""Checkpoints through `torch.distributed.checkpoint`, for any number of workers.

Nothing is sharded from the outside: every worker shows whole tensors (views of the node's one copy), named by
parameter, so a checkpoint of 2 workers loads on 4. `torch.distributed.checkpoint` writes a tensor that
all workers show only once. A step that is half done, or was torn by a failure, is refused.

    state = outsize.parallel.state_dict(model, optimizer)
    torch.distributed.checkpoint.save(state, checkpoint_id=path)
    ...
    torch.distributed.checkpoint.load(state, checkpoint_id=path)
    outsize.parallel.load_state_dict(model, optimizer, state)
"""

from __future__ import annotations

from typing import Any

import torch

from .faults import Field
from .fitting import checksum, fitting
from .module import Distributed
from .optimizer import ChunkOptimizer


def state_dict(module: Distributed, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Model and optimizer as `{"model": {...}, "optimizer": {...}, "checksum": ...}`, by parameter names. Collective.

    Tensors are private copies: loading into them changes nothing until `load_state_dict`, and a checkpoint
    that is written in the background sees no later step.

    Args:
        module: as `distribute` returned it.
        optimizer: as `distribute` returned it.

    Returns:
        tensors on the CPU; the same on every worker.

    Raises:
        ParallelError: `step()` is still due.
        RankFailure: a worker failed; the parameters may be half updated.
    """
    worker = module._worker
    worker.wait_idle()
    worker.control.barrier()
    worker.control.check()
    names = {id(p): name for name, p in module.module.named_parameters()}
    if isinstance(optimizer, ChunkOptimizer):
        optimizer.expose_all()
    packed = optimizer.state_dict()
    order = [p for group in optimizer.param_groups for p in group["params"]]
    by_name = {
        names[id(order[index])]: {key: _own(value) for key, value in entries.items()}
        for index, entries in packed["state"].items()
    }
    groups = [
        {**{k: _own(v) for k, v in group.items() if k != "params"},
         "params": [names[id(order[i])] for i in group["params"]]}
        for group in packed["param_groups"]
    ]  # fmt: skip
    state: dict[str, Any] = {
        "model": {name: _own(value) for name, value in module.module.state_dict().items()},
        "optimizer": {"state": by_name, "param_groups": groups},
    }
    return {**state, "checksum": checksum(state)}


def load_state_dict(module: Distributed, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what `state_dict` gave, of any number of workers. Collective.

    The whole state is held against module and optimizer first, so that one that does not fit changes nothing.

    Args:
        module: from `distribute`.
        optimizer: from `distribute`.
        state: what `state_dict` gave; the same on every worker.

    Raises:
        ParallelError: `step()` is still due; or the state belongs to another module or optimizer, or is damaged.
    """
    worker = module._worker
    worker.wait_idle()
    worker.control.barrier()
    shared = {id(p) for p in worker.params} if worker.template is not None else set()
    own = module.module.state_dict(keep_vars=True)
    packed = fitting(own, dict(module.module.named_parameters()), optimizer, state)
    with torch.no_grad():
        for name, target in own.items():
            if isinstance(target, torch.Tensor) and (id(target) not in shared or worker.node.leads):
                target.copy_(state["model"][name])
    optimizer.load_state_dict(packed)
    worker.control.barrier()
    worker.control.post(Field.BARRIER, worker.control.read(Field.BARRIER, worker.node.local_rank))


def _own(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
