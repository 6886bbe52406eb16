"""transformers' `Trainer`, whose optimizer is made after the model was handed over: a callback that waits for it.

    trainer = Trainer(model, args, train_dataset=data, callbacks=[OutsizeCallback("6 GiB")])
    trainer.train()

The Trainer goes on to accumulate, clip, evaluate, save and resume as it does without; the model's call is what runs under
plan. It serves whatever is built on the Trainer, and PEFT's models; with `fsdp=` (FSDP2) each process plans the steps of
its own shard. trl's `SFTTrainer` computes its loss in pieces that cannot be captured: name the part of the model before
it, `OutsizeCallback("6 GiB", module="model")`.
"""

from __future__ import annotations

from typing import Any, final

import torch
import transformers

from ..capture import is_sharded
from ..errors import OutsizeError
from ..values import RunRecord
from .run import CHECKPOINT, EVALUATION, STEP, Log, Run, RunPeaks, check_settings, submodule

__all__ = ["OutsizeCallback"]


@final
class OutsizeCallback(transformers.TrainerCallback):
    """Trains under a budget what a `Trainer` trains.

    Args:
        budget: as for `outsize.compile`: bytes, `"6 GiB"`, `"60%"`, or None for what is free when training begins.
        module: name of the submodule to plan, where the whole model cannot be one graph (`"transformer"` of a GPT-2 that
            trl trains with its fused head); None plans the model.
        log: called after each step, in the first process, as `log(values, step)` with the step's figures:
            `wandb.log`, `tensorboard(writer)` of `outsize.integrations.scalars`, or a function of your own.
        settings: further arguments of `outsize.compile`: `disk`, `actions`, `effort` and the like.

    Attributes:
        record: what was planned and measured (`outsize.report`) in the latest `trainer.train()`; None before it ends.
        peaks: the highest bytes of its steps, evaluations and checkpoints; None before it ends.

    Raises:
        OutsizeError: `settings` has a name that `outsize.compile` does not know; when training begins, as
            `outsize.compile`, and where the Trainer's own arguments leave no module to plan.
        UnitError: the budget cannot be read.
    """

    def __init__(
        self,
        budget: int | str | None = None,
        *,
        module: str | None = None,
        log: Log | None = None,
        **settings: Any,
    ) -> None:
        check_settings(budget, settings)
        self.budget, self.module, self.settings, self._figures_to = budget, module, settings, log
        self.record: RunRecord | None = None
        self.peaks: RunPeaks | None = None
        self._run: Run | None = None

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: Any,
        control: Any,
        *,
        model: torch.nn.Module,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """The optimizer is there, and where training resumes, its state: the model is put under plan."""
        _check(args, model)
        if self._run is not None:  # the training before ended with an error
            self._run.close()
        planned = model if self.module is None else submodule(model, self.module)
        self._run = Run(planned, self.budget, optimizer=optimizer, whole=model, settings=self.settings)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The optimizer has stepped."""
        self._ends(STEP)
        if self._figures_to is not None and self._run is not None and state.is_world_process_zero:
            self._figures_to(self._run.scalars(), state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An evaluation has ended."""
        self._ends(EVALUATION)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint was written."""
        self._ends(CHECKPOINT)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The plain model is given back."""
        if self._run is None:
            return
        self._ends(STEP)
        self.record, self.peaks = self._run.record, self._run.peaks
        self._run.close()
        self._run = None

    def _ends(self, phase: str) -> None:
        if self._run is not None:
            self._run.ends(phase)


def _check(args: transformers.TrainingArguments, model: torch.nn.Module) -> None:
    """What wraps the model in something that its plan does not see is refused, not ignored."""
    refused = {
        "torch_compile=True": (args.torch_compile, "leave it out: outsize compiles the model"),
        "deepspeed=": (bool(args.deepspeed), "DeepSpeed moves the model's bytes itself; use one of the two"),
        "fsdp= without FSDP2": (
            bool(args.fsdp) and not is_sharded(model),
            f"{type(model).__name__} was not sharded by fully_shard. Write fsdp_config={{'version': 2, "
            "'transformer_layer_cls_to_wrap': [...]}, and start a process for each GPU with torchrun (accelerate "
            "shards on GPUs only); without a GPU, leave fsdp= out",
        ),
        "fsdp_config={'cpu_offload': True}": (
            bool(args.fsdp) and bool((args.fsdp_config or {}).get("cpu_offload")),
            "the shards would be on the host while the step is on the GPU: leave it out, a plan moves what does not fit",
        ),
        "n_gpu > 1": (
            args.n_gpu > 1,
            "nn.DataParallel runs copies of the model, which have no plan: start one process for each GPU "
            "(torchrun), or show one (CUDA_VISIBLE_DEVICES=0)",
        ),
    }
    for name, (given, instead) in refused.items():
        if given:
            raise OutsizeError(f"TrainingArguments: {name} and OutsizeCallback do not go together: {instead}")
