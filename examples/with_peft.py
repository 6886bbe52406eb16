"""LoRA by PEFT, trained by transformers' Trainer under a budget.

    python examples/with_peft.py

The adapters are all that has gradients and optimizer state; the frozen model only has to fit. `examples/with_trainer.py`
has the data and the arguments.
"""

from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import Trainer, set_seed
from with_trainer import Tokens, arguments, compare, losses_of, model

from outsize.integrations.transformers import OutsizeCallback

BUDGET = "4.5 MB"


def train(folder: Path, budget: str | None = None, *, resume: bool = False):
    """The losses that the Trainer logged, and the callback."""
    set_seed(0)
    lora = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM"
    )
    planned = OutsizeCallback(budget) if budget else None
    trainer = Trainer(
        get_peft_model(model(), lora),
        arguments(folder, learning_rate=1e-2),
        train_dataset=Tokens(48, seed=0),
        eval_dataset=Tokens(16, seed=1),
        callbacks=[planned] if planned else [],
    )
    return losses_of(trainer, folder, resume=resume), planned


if __name__ == "__main__":
    compare(train, BUDGET)
