"""What every worker settles before anything is shared: the parameters' slots and the process groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import final

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


@final
class Idle:
    """Asked before a module's `state_dict()` is read: no update may be half done. Copies of the module ask nobody."""

    def __init__(self, ask: Callable[[], None] = lambda: None) -> None:
        self._ask = ask

    def __call__(self, *_: object) -> None:
        self._ask()

    def __reduce__(self) -> tuple[type[Idle], tuple[()]]:
        return Idle, ()


@final
class Places:
    """That the trainable parameters are still the ones, and where, they were when the module was distributed.

    `module.double()`, `p.data = ...` and `load_state_dict(assign=True)` put other memory or other parameters in their
    place, which nobody would update, without a word.

    Args:
        module: the module.
        names: of `params`.
        params: the trainable parameters.
        shared: whether they live in memory shared by the workers.
    """

    def __init__(
        self, module: nn.Module, names: Sequence[str], params: Sequence[nn.Parameter], shared: bool
    ) -> None:
        self._kept = [
            (name, p, p.dtype, p.data_ptr() if shared else None)
            for name, p in zip(names, params, strict=True)
        ]
        self._module = module
        self._owned: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, p in zip(names, params, strict=True):
            path, _, attribute = name.rpartition(".")
            self._owned.setdefault(path, []).append((attribute, p))

    def check_memory(self) -> None:
        """Raise if a parameter has moved or changed its type."""
        for name, p, dtype, address in self._kept:
            if p.dtype != dtype or (address is not None and p.data_ptr() != address):
                raise ParallelError(
                    f"{name} has been moved or converted since distribute() ({dtype} then, {p.dtype} now), so its "
                    "updates would be lost: do that before distribute(), and change values with copy_()"
                )

    def check_identity(self) -> None:
        """Raise if another parameter has taken the name of one."""
        for path, owned in self._owned.items():
            there = self._module.get_submodule(path)._parameters
            for attribute, p in owned:
                if there.get(attribute, p) is not p:
                    raise ParallelError(
                        f"{path}.{attribute} is another parameter than when the module was distributed, so "
                        "nobody updates it: load with load_state_dict(assign=False), replace layers before distribute()"
                    )


def dense_strides(p: torch.Tensor) -> tuple[int, ...]:
    """The strides of `p` if it fills its memory without gaps (channels last, say), else row-major ones."""
    order = sorted((stride, size) for stride, size in zip(p.stride(), p.shape) if size > 1)
    expected = 1
    for stride, size in order:
        if stride != expected:
            return torch.empty(p.shape, device="meta").stride()
        expected *= size
    return p.stride()
