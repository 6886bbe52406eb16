"""Lightning under a budget: one callback, and everything else as it was.

    python examples/with_lightning.py

The whole `training_step` is planned, its loss and what it logs included.
"""

import tempfile
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F

from outsize.integrations.lightning import OutsizeCallback

BUDGET = "2.6 MB"


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1))]
        self.net = nn.Sequential(*layers, nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log_dict({"accuracy": (logits.argmax(1) == y).float().mean()})
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("validation", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer, pl_module):
        self.rows += [float(value) for value in trainer.callback_metrics.values()]


def batches(count: int, seed: int) -> torch.utils.data.DataLoader:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 64, generator=generator), torch.randint(10, (count,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=512)


def train(
    folder: Path, budget: str | None = None, *, resume: bool = False, module: str | None = None, **more
):
    """The losses and metrics of the run, and the callback."""
    pl.seed_everything(0, verbose=False)
    losses = Losses()
    planned = OutsizeCallback(budget, module=module) if budget else None
    saves = pl.callbacks.ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")
    trainer = pl.Trainer(
        **{"max_epochs": 3, "accumulate_grad_batches": 2, "gradient_clip_val": 0.5} | more,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses, saves, planned] if planned else [losses, saves],
    )
    checkpoint = folder / "epoch=0.ckpt" if resume else None
    trainer.fit(Classifier(), batches(2048, seed=0), batches(512, seed=1), ckpt_path=checkpoint)
    return losses.rows, planned


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, _ = train(Path(folder) / "plain")
        losses, planned = train(Path(folder) / "planned", BUDGET)
        assert losses == plain, "losses and metrics are the plain run's, to the bit"
        plain, _ = train(Path(folder) / "plain", resume=True)
        losses, planned = train(Path(folder) / "planned", BUDGET, resume=True)
        assert losses == plain, "resumed from a checkpoint as well"
    for phase, peak in planned.peaks.phases.items():
        print(f"{phase:>10}: {peak:9,} bytes at most, of a budget of {planned.peaks.budget_bytes:,}")


if __name__ == "__main__":
    main()
