"""transformers' Trainer under a budget: one callback, and everything else as it was.

    python examples/with_trainer.py

trains a small GPT-2 for three epochs twice, without a plan and with one, accumulating, clipping, evaluating and saving,
and shows that the losses are the same to the bit and that no moment of the run went over the budget.
"""

import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from outsize.integrations.transformers import OutsizeCallback

BUDGET = "5.5 MB"


class Tokens(torch.utils.data.Dataset):
    """Random sequences, of which a model learns at least how often each token comes."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = torch.randint(64, (count, 64), generator=generator).clamp(max=40)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def model() -> torch.nn.Module:
    config = GPT2Config(
        vocab_size=64, n_positions=64, n_embd=64, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


def arguments(folder: Path, **more) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        eval_strategy="epoch",
        save_steps=2,
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **more,
    )


def losses_of(trainer: Trainer, folder: Path, *, resume: bool) -> list[float]:
    """Train, from a checkpoint of an earlier run if asked for. What the Trainer logged."""
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
    keys = ("loss", "grad_norm", "eval_loss")
    return [row[key] for row in trainer.state.log_history for key in keys if key in row]


def compare(train, budget: str):
    """Train without a plan and with one; the losses are the same to the bit. The callback of the planned run."""
    with tempfile.TemporaryDirectory() as folder:
        plain, _ = train(Path(folder) / "plain")
        losses, planned = train(Path(folder) / "planned", budget)
        assert losses == plain, "the losses are the plain run's, to the bit"
        losses, planned = train(Path(folder) / "planned", budget, resume=True)
        assert losses == plain, "resumed from a checkpoint as well"
    assert planned.peaks.peak_bytes <= planned.peaks.budget_bytes < planned.record.plain_peak_bytes
    for phase, peak in planned.peaks.phases.items():
        print(f"{phase:>10}: {peak:9,} bytes at most, of a budget of {planned.peaks.budget_bytes:,}")
    print(f"     plain: {planned.record.plain_peak_bytes:9,} bytes in a step")


def train(folder: Path, budget: str | None = None, *, resume: bool = False):
    """The losses that the Trainer logged, and the callback."""
    set_seed(0)
    planned = OutsizeCallback(budget) if budget else None
    trainer = Trainer(
        model(),
        arguments(folder),
        train_dataset=Tokens(48, seed=0),
        eval_dataset=Tokens(16, seed=1),
        callbacks=[planned] if planned else [],
    )
    return losses_of(trainer, folder, resume=resume), planned


if __name__ == "__main__":
    compare(train, BUDGET)
