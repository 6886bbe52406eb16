"""accelerate: `prepare` in place of `accelerator.prepare`, with a budget.

    model, optimizer, batches = prepare(accelerator, model, optimizer, batches, budget="6 GiB")

accelerate wraps the optimizer, so the module is put under plan afterwards, with the wrapped one. `accumulate`,
`clip_grad_norm_`, `autocast`, `save_state` and `load_state` stay as they are.
"""

from __future__ import annotations

import weakref
from typing import Any

import accelerate
import torch

from ..errors import OutsizeError
from ..measure.optimizer import optimizers_in
from .run import STEP, Run, RunPeaks, check_settings

__all__ = ["peaks", "prepare", "release"]

_RUNS: weakref.WeakKeyDictionary[torch.nn.Module, Run] = weakref.WeakKeyDictionary()


def prepare(
    accelerator: accelerate.Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *others: Any,
    budget: int | str | None = None,
    **settings: Any,
) -> tuple[Any, ...]:
    """`accelerator.prepare(model, optimizer, *others)`, with the model's training step under a budget.

    Args:
        accelerator: of the loop.
        model: what is trained.
        optimizer: what updates it.
        others: loaders, schedulers and whatever else `accelerator.prepare` takes.
        budget: as for `outsize.compile`.
        settings: further arguments of `outsize.compile`: `disk`, `actions`, `effort` and the like.

    Returns:
        what `accelerator.prepare` returns, in the order given.

    Raises:
        OutsizeError: as for `outsize.compile`; `model` is no module or `optimizer` no optimizer; the accelerator
            compiles or shards the model itself.
        UnitError: the budget cannot be read.
    """
    check_settings(budget, settings)
    if not isinstance(model, torch.nn.Module) or not optimizers_in(optimizer):
        raise OutsizeError(
            f"prepare(accelerator, {type(model).__name__}, {type(optimizer).__name__}, …): give the model first and its "
            "optimizer second, and the loaders and schedulers after them"
        )
    _check(accelerator)
    prepared = tuple(accelerator.prepare(model, optimizer, *others))
    inner, updates = accelerator.unwrap_model(prepared[0]), prepared[1]
    run = Run(inner, budget, optimizer=updates, settings=settings)
    _RUNS[inner] = run
    _watch(accelerator, inner, updates)
    return prepared


def peaks(model: torch.nn.Module) -> RunPeaks:
    """The highest bytes alive since `prepare`: in steps (up to the update, evaluations in between included), and from the
    latest step or checkpoint to now.

    Args:
        model: as `prepare` returned it, or the one inside.

    Returns:
        peak bytes by phase, and the budget.

    Raises:
        OutsizeError: it was not prepared here.
    """
    run = _run_of(model)
    if run is None:
        raise OutsizeError(
            f"{type(model).__name__} was not prepared by outsize.integrations.accelerate.prepare"
        )
    run.ends(STEP)
    return run.peaks


def release(model: torch.nn.Module) -> None:
    """The plain model is given back, as by `outsize.release`. A model that was not prepared here stays as it is.

    Args:
        model: as `prepare` returned it, or the one inside.
    """
    if (run := _run_of(model)) is not None:
        run.close()


def _run_of(model: torch.nn.Module) -> Run | None:
    return _RUNS.get(model) or _RUNS.get(getattr(model, "module", model))


def _watch(accelerator: accelerate.Accelerator, model: torch.nn.Module, optimizer: Any) -> None:
    """A step ends when the optimizer has updated; what is saved counts in the one after it."""
    held = weakref.ref(model)

    def ends(phase: str) -> None:
        if (module := held()) is not None and (run := _RUNS.get(module)) is not None:
            run.ends(phase)

    inner = optimizers_in(optimizer)[-1]
    inner.register_step_post_hook(lambda *_: ends(STEP))
    accelerator.register_save_state_pre_hook(lambda *_: ends(STEP))


def _check(accelerator: accelerate.Accelerator) -> None:
    """What wraps the model in something that its plan does not see is refused, not ignored."""
    kind = str(accelerator.distributed_type).removeprefix("DistributedType.")
    if kind == "FSDP" and not accelerator.is_fsdp2:
        raise OutsizeError(
            "accelerate is set up for FSDP1, whose flat shards no plan covers: write "
            "FullyShardedDataParallelPlugin(fsdp_version=2), or fsdp_version: 2 in its configuration"
        )
    if kind in ("DEEPSPEED", "MEGATRON_LM", "XLA"):
        raise OutsizeError(
            f"accelerate is set up for {kind}, which moves or shards the model's bytes itself: use FSDP2, plain data "
            "parallelism (DDP), or one process"
        )
    dynamo = accelerator.state.dynamo_plugin
    if str(dynamo.backend).upper().removeprefix("DYNAMOBACKEND.") != "NO":
        raise OutsizeError(
            f"accelerate is set up to compile with {dynamo.backend}: leave that out; outsize compiles"
        )
