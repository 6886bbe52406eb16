"""What every worker settles before anything is shared: the parameters' slots and the process groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from ..errors import ParallelError, RankFailure
from .chunks import Slot, lay_out
from .node import Groups
from .sinks import TORCH_TYPES

_SPACES = {dtype: name for name, dtype in TORCH_TYPES.items()}


def slots_of(module: nn.Module) -> tuple[list[str], list[nn.Parameter], tuple[Slot, ...]]:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad][::-1]
    if not named:
        raise ParallelError("the module has no parameter that requires a gradient, so nothing to synchronise")
    for name, p in named:
        if hasattr(p, "_in_backward_optimizers"):
            raise ParallelError(
                f"{name} has an optimizer of its own (_apply_optimizer_in_backward), which would step on one worker's "
                "gradient before the others' are added: distribute(module, optimizer_class, ...) updates in the "
                "backward pass, of all workers"
            )
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ParallelError(f"{name} has no shape yet: run one forward pass before distribute()")
        if p.dtype not in _SPACES:
            raise ParallelError(
                f"{name} has type {p.dtype}; chunks hold {', '.join(map(str, _SPACES))}: convert it, or "
                "freeze it with requires_grad_(False)"
            )
    shapes = [(n, _SPACES[p.dtype], p.numel(), p.element_size(), n.rpartition(".")[0]) for n, p in named]
    return [name for name, _ in named], [p for _, p in named], lay_out(shapes)


def open_groups(timeout: float) -> Groups:
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Groups()
        _rendezvous()
    if dist.get_world_size() == 1:
        return Groups()
    return Groups(everyone=dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)))


@contextmanager
def meeting(timeout: float) -> Iterator[None]:
    """Around what workers do before they know each other's processes: nobody can be named, and only time tells.

    Raises:
        RankFailure: with rank and pid -1.
    """
    try:
        yield
    except RuntimeError as error:
        raise RankFailure(
            f"a worker did not come to distribute() within {timeout:g} s, or died in it: {str(error).splitlines()[0]}",
            rank=-1,
            pid=-1,
            phase="startup",
        ) from error


def _rendezvous() -> None:
    """What `init_process_group("gloo")` does under a launcher, with keys of their own for each restart.

    torch 2.13 reuses the launcher's store after a restart without a prefix, so gloo would connect to the addresses of
    the dead (its comment in `torch/distributed/rendezvous.py` expects a new store for each attempt).
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group("gloo")
        return
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]
    own = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=own, rank=rank, world_size=world)


def dense_strides(p: torch.Tensor) -> tuple[int, ...]:
    """The strides of `p` if it fills its memory without gaps (channels last, say), else row-major ones."""
    order = sorted((stride, size) for stride, size in zip(p.stride(), p.shape) if size > 1)
    expected = 1
    for stride, size in order:
        if stride != expected:
            return torch.empty(p.shape, device="meta").stride()
        expected *= size
    return p.stride()
