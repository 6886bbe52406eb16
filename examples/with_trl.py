"""trl's SFTTrainer under a budget: the callback of transformers' Trainer, from which it is derived.

    python examples/with_trl.py

trl puts a fused head of its own on the model, which computes the loss in pieces that cannot be captured: `compute_loss`
goes back to the Trainer's. To keep trl's, plan the part before it: `OutsizeCallback(budget, module="transformer")`.
"""

from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Trainer, set_seed
from trl import SFTConfig, SFTTrainer
from with_trainer import Tokens, compare, losses_of, model

from outsize.integrations.transformers import OutsizeCallback

BUDGET = "5.5 MB"


def tokenizer() -> PreTrainedTokenizerFast:
    """Numbers as words; nothing is downloaded."""
    words = {str(i): i for i in range(64)}
    made = Tokenizer(WordLevel(words, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="0", eos_token="1", unk_token="0")


def rows(count: int, seed: int) -> Dataset:
    return Dataset.from_dict({"input_ids": Tokens(count, seed).rows.tolist()})


class WholeLoss(SFTTrainer):
    def compute_loss(self, *args, **kwargs):
        return Trainer.compute_loss(self, *args, **kwargs)


def train(folder: Path, budget: str | None = None, *, resume: bool = False):
    """The losses that the trainer logged, and the callback."""
    set_seed(0)
    planned = OutsizeCallback(budget) if budget else None
    trainer = WholeLoss(
        model(),
        SFTConfig(
            output_dir=str(folder),
            num_train_epochs=3,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            gradient_checkpointing=False,
            max_grad_norm=0.5,
            max_length=64,
            eval_strategy="epoch",
            save_steps=2,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows(48, seed=0),
        eval_dataset=rows(16, seed=1),
        processing_class=tokenizer(),
        callbacks=[planned] if planned else [],
    )
    return losses_of(trainer, folder, resume=resume), planned


if __name__ == "__main__":
    compare(train, BUDGET)
