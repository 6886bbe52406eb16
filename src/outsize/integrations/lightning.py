"""Lightning: a callback that puts a `LightningModule` under plan once its optimizers exist.

    trainer = lightning.Trainer(callbacks=[OutsizeCallback("6 GiB")])
    trainer.fit(module, loader)

Lightning never calls the module: it calls `module.training_step(batch, batch_idx)`, which may call anything. So what is
planned is that step as a whole, the loss in it included: it becomes the forward of a module of its own (`TrainingStep`).
`self.log` reaches into the trainer, where no graph can follow, so what is logged leaves the step with its results and is
handed to the real `log` afterwards. A step that cannot be one graph (metrics of torchmetrics, say, or optimization by
hand) names the submodule that does the work: `OutsizeCallback("6 GiB", module="net")`.
"""

from __future__ import annotations

from typing import Any, final

import torch

from ..errors import OutsizeError
from ..values import RunRecord
from .run import CHECKPOINT, EVALUATION, STEP, Log, Run, RunPeaks, check_settings, submodule

try:
    import lightning.pytorch as pl
except ModuleNotFoundError:
    import pytorch_lightning as pl

__all__ = ["OutsizeCallback", "TrainingStep"]


@final
class TrainingStep(torch.nn.Module):
    """A LightningModule's `training_step` as a forward.

    Args:
        module: the LightningModule.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__()
        self.module = module
        #: What the step under way has logged: name, value, and the other arguments of `log`.
        self.logged: list[tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = []
        self._in_place = {"log": self._log, "log_dict": self._log_dict}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the step returns."""
        return type(self.module).training_step(self.module, *args, **kwargs)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """What Lightning calls in place of the module's own `training_step`."""
        attributes = vars(self.module)
        attributes.update(self._in_place)
        try:
            result = self(*args, **kwargs)
        finally:
            for name in self._in_place:
                del attributes[name]
            logged = self.logged[:]
            self.logged.clear()
        for name, value, more, options in logged:
            self.module.log(name, value, *more, **options)
        return result

    def _log(self, name: str, value: Any, *more: Any, **options: Any) -> None:
        if isinstance(value, torch.Tensor) and not options.get("enable_graph", False):
            value = value.detach()
        self.logged.append((name, value, more, options))

    def _log_dict(self, dictionary: Any, *more: Any, **options: Any) -> None:
        for name, value in dictionary.items():
            self._log(name, value, *more, **options)


@final
class _Several:
    """The optimizers of a module, as one that holds them."""

    def __init__(self, optimizers: list[Any]) -> None:
        self.optimizers = optimizers


@final
class OutsizeCallback(pl.Callback):
    """Trains under a budget what a Lightning `Trainer` fits.

    Args:
        budget: as for `outsize.compile`: bytes, `"6 GiB"`, `"60%"`, or None for what is free when training begins.
        module: name of the submodule to plan (`"net"`, `"net.backbone"`); None plans the whole `training_step`.
        log: called after each batch, in the first process, as `log(values, step)` with the step's figures:
            `wandb.log`, `tensorboard(writer)` of `outsize.integrations.scalars`, or a function of your own.
        settings: further arguments of `outsize.compile`: `disk`, `actions`, `effort` and the like.

    Attributes:
        record: what was planned and measured (`outsize.report`) in the latest `fit`; None before it ends.
        peaks: the highest bytes of its steps, evaluations and checkpoints; None before it ends.

    Raises:
        OutsizeError: `settings` has a name that `outsize.compile` does not know; when training begins, as
            `outsize.compile`, and where there is no such submodule or no step to plan.
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
        super().__init__()
        check_settings(budget, settings)
        self.budget, self.module, self.settings, self._figures_to = budget, module, settings, log
        self.record: RunRecord | None = None
        self.peaks: RunPeaks | None = None
        self._run: Run | None = None
        self._step: TrainingStep | None = None
        self._saves = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The optimizers are there, and where training resumes, their state: the module is put under plan."""
        _check(trainer)
        self._close(pl_module)
        optimizers = list(trainer.optimizers)
        updates = optimizers[0] if len(optimizers) == 1 else _Several(optimizers) if optimizers else None
        if self.module is not None:
            planned = submodule(pl_module, self.module)
        else:
            planned = self._step = _training_step(pl_module)
        self._run = Run(planned, self.budget, optimizer=updates, whole=pl_module, settings=self.settings)
        self._optimizers = updates  # which a session holds weakly
        if self._step is not None:
            vars(pl_module)["training_step"] = self._step.step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """What was done since the latest step is over."""
        self._ends(STEP)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step is over."""
        self._ends(STEP)
        if self._figures_to is not None and self._run is not None and trainer.is_global_zero:
            self._figures_to(self._run.scalars(), trainer.global_step)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """An evaluation begins."""
        self._ends(STEP)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """An evaluation is over."""
        self._ends(EVALUATION)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """A checkpoint is gathered, and written after this."""
        self._saves = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The plain module is given back."""
        self._ends(STEP)
        if self._run is not None:
            self.record, self.peaks = self._run.record, self._run.peaks
        self._close(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The plain module is given back."""
        self._close(pl_module)

    def _ends(self, phase: str) -> None:
        if self._run is not None:
            self._run.ends(CHECKPOINT if self._saves else phase)
        self._saves = False

    def _close(self, pl_module: pl.LightningModule) -> None:
        vars(pl_module).pop("training_step", None) if self._step is not None else None
        if self._run is not None:
            self._run.close()
        self._run, self._step, self._optimizers = None, None, None


def _training_step(pl_module: pl.LightningModule) -> TrainingStep:
    if not pl_module.automatic_optimization:
        raise OutsizeError(
            f"{type(pl_module).__name__} optimizes by hand (automatic_optimization=False): its training_step calls "
            "backward() and step() itself and cannot be planned as a forward. Name the submodule that it calls, as in "
            "OutsizeCallback(budget, module='net')"
        )
    return TrainingStep(pl_module)


def _check(trainer: pl.Trainer) -> None:
    """What wraps the module in something that its plan does not see is refused, not ignored."""
    kind = type(trainer.strategy).__name__
    if any(name in kind for name in ("FSDP", "DeepSpeed", "ModelParallel", "XLA")):
        raise OutsizeError(
            f"Trainer(strategy=…): {kind} shards or moves the module's bytes itself, in Lightning's own wrappers: "
            "train with 'auto' or 'ddp', or shard with fully_shard in a loop of your own"
        )
