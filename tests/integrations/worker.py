"""One of two processes under torchrun: the libraries' own DDP around modules under plan, beside the plain runs.

    torchrun --nproc-per-node 2 worker.py FOLDER

prints a line of JSON for each library.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


def say(library: str, *, equal: bool, peaks) -> None:
    line = {"library": library, "rank": os.environ["RANK"], "equal": equal}
    told = json.dumps(line | {"peak": peaks.peak_bytes, "budget": peaks.budget_bytes})
    os.write(1, f"{told}\n".encode())  # at once: another process writes to the same pipe


def sharded(folder: Path, budget: str | None = None):
    """The Trainer with `fsdp=`. accelerate takes it for DDP on a CPU, so it is told that it is set up for FSDP2."""
    import with_trainer
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, set_seed

    from outsize.integrations.transformers import OutsizeCallback

    class Sharded(Trainer):
        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            state = self.accelerator.state
            state.__dict__["distributed_type"] = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    set_seed(0)
    config = GPT2Config(
        vocab_size=64, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    planned = OutsizeCallback(budget) if budget else None
    wrap = {"version": 2, "transformer_layer_cls_to_wrap": ["GPT2Block"]}
    trainer = Sharded(
        GPT2LMHeadModel(config),
        with_trainer.arguments(folder, save_strategy="no", fsdp=True, fsdp_config=wrap),
        train_dataset=with_trainer.Tokens(96, seed=0),
        eval_dataset=with_trainer.Tokens(16, seed=1),
        callbacks=[planned] if planned else [],
    )
    trainer.train()
    assert type(trainer.model).__name__.startswith("FSDP"), type(trainer.model)
    keys = ("loss", "grad_norm", "eval_loss")
    return [row[key] for row in trainer.state.log_history for key in keys if key in row], planned


def main(folder: Path) -> None:
    import with_accelerate
    import with_lightning
    import with_trainer

    losses, planned = with_trainer.train(folder / "trainer", "6.5 MB")
    plain, _ = with_trainer.train(folder / "trainer-plain")
    say("transformers", equal=losses == plain, peaks=planned.peaks)

    losses, planned = sharded(folder / "sharded", "8 MB")
    plain, _ = sharded(folder / "sharded-plain")
    say("sharded", equal=losses == plain, peaks=planned.peaks)

    losses, peaks = with_accelerate.train(folder / "accelerate", "3.2 MB")
    plain, _ = with_accelerate.train(folder / "accelerate-plain")
    say("accelerate", equal=losses == plain, peaks=peaks)

    losses, planned = with_lightning.train(folder / "lightning", "3.2 MB", devices=2, strategy="ddp")
    plain, _ = with_lightning.train(folder / "lightning-plain", devices=2, strategy="ddp")
    say("lightning", equal=losses == plain, peaks=planned.peaks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
