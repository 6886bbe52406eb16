"""`distribute`: one call from a module and an optimizer class to their data-parallel pair."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from ..errors import ParallelError
from .module import Distributed
from .optimizer import ChunkOptimizer
from .settings import Settings
from .startup import slots_of
from .tune import Tuner
from .worker import Worker


def distribute(
    module: nn.Module,
    optimizer_class: type[torch.optim.Optimizer],
    *,
    update: Literal["cpu", "device"] = "cpu",
    chunk_mb: float | None = None,
    clip_grad_norm: float | None = None,
    timeout: float = 60.0,
    settings: Settings | None = None,
    **optimizer_args: Any,
) -> tuple[Distributed, torch.optim.Optimizer]:
    """Train `module` on all workers of this job (method 5).

    Call it on every worker, under `torchrun` or with `torch.distributed` initialised; alone, it moves the update into
    the backward pass of one process. Parameters and buffers start with rank 0's values.

    Args:
        module: on the CPU. Parameters that require a gradient are synchronised.
        optimizer_class: a torch optimizer class. With `update="cpu"`: SGD, Adam and AdamW in native code, any other
            whose update is elementwise through its own code.
        update: `"cpu"` sums and updates during the backward pass: parameters and optimizer state exist
            once per node, and `.grad` is None afterwards. `"device"` sums and hands the mean back in `.grad`:
            parameters and state stay each worker's own, and any optimizer works.
        chunk_mb: chunk size in MiB; None searches for it during the first steps.
        clip_grad_norm: largest global gradient norm; updates wait for `step()`.
        timeout: seconds after which a worker that does not arrive counts as stopped.
        settings: everything else.
        **optimizer_args: for `optimizer_class`; `params=[...]` gives parameter groups.

    Returns:
        The wrapped module and the optimizer, which has `chunk_plan`.

    Raises:
        ParallelError: the model, optimizer, machine or arguments do not fit.
        RankFailure: another worker ended or stopped during startup.
    """
    if update not in ("cpu", "device"):
        raise ParallelError(f"update must be 'cpu' or 'device', got {update!r}")
    if chunk_mb is not None and not chunk_mb > 0:
        raise ParallelError(f"chunk_mb must be positive, got {chunk_mb}")
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise ParallelError(f"clip_grad_norm must be positive, got {clip_grad_norm}")
    if clip_grad_norm is not None and update == "device":
        raise ParallelError(
            "with update='device' gradients are complete after backward(): call "
            "torch.nn.utils.clip_grad_norm_ before step() instead of passing clip_grad_norm"
        )
    slots_of(module)  # its refusals speak of the module, the optimizer's only of a list
    params = optimizer_args.pop("params", None)
    params = [p for p in module.parameters() if p.requires_grad] if params is None else list(params)
    optimizer = optimizer_class(params, **optimizer_args)
    worker = Worker(
        module,
        optimizer if update == "cpu" else None,
        chunk_mb=chunk_mb,
        max_norm=clip_grad_norm,
        timeout=timeout,
        settings=settings or Settings(),
    )
    tuner = Tuner(worker, fixed=chunk_mb is not None)
    wrapped = Distributed(module, worker)
    if update == "cpu":
        return wrapped, ChunkOptimizer(worker, optimizer, tuner)
    wrapped.after_gradients = tuner.after_step  # type: ignore[method-assign]
    return wrapped, _show_plan(optimizer, worker)


def _show_plan(optimizer: torch.optim.Optimizer, worker: Worker) -> torch.optim.Optimizer:
    """The same optimizer, with `chunk_plan`: a class of the same name whose instances know their worker."""
    kind = type(optimizer)
    optimizer.__class__ = type(
        kind.__name__, (kind,), {"chunk_plan": property(lambda _: worker.plan), "__module__": kind.__module__}
    )
    return optimizer


def synchronize(
    module: nn.Module,
    *,
    chunk_mb: float | None = None,
    timeout: float = 60.0,
    settings: Settings | None = None,
) -> Distributed:
    """Only synchronise gradients, as `DistributedDataParallel(module)` does: the CPU sums, `.grad` holds the mean.

    Any optimizer, or several, may use the gradients.

    Args:
        module: on the CPU, the same on every worker.
        chunk_mb, timeout, settings: as for `distribute`.

    Returns:
        the module, wrapped.

    Raises:
        ParallelError: as for `distribute`.
    """
    worker = Worker(
        module, None, chunk_mb=chunk_mb, max_norm=None, timeout=timeout, settings=settings or Settings()
    )
    wrapped = Distributed(module, worker)
    wrapped.after_gradients = Tuner(worker, fixed=chunk_mb is not None).after_step  # type: ignore[method-assign]
    return wrapped
