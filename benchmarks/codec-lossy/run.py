"""Training with lossy saved tensors against plain training, three seeds; see README.md."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

import outsize.codecs as codecs
from outsize.zoo.recipes import load

STEPS, SEEDS = 120, (0, 1, 2)


def train(seed: int, lossy: str | None) -> tuple[float, float]:
    """Mean loss of the last 20 steps, and saved bytes over dense."""
    torch.manual_seed(seed)
    work = load("resnet50", tiny=True, seed=seed, batch=16)
    module, batches = work.module.train(), work.batches()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    losses, ratio = [], 1.0
    for _ in range(STEPS):
        batch = next(batches)
        saved: Any = contextlib.nullcontext()
        if lossy:
            policy = codecs.Policy(min_bytes=1024, lossy=None if lossy == "lossless" else lossy)
            saved = codecs.saved_tensors_hooks(module, policy=policy)
        with saved:
            loss = work.loss_fn(module(*batch.args), batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        ratio = saved.ratio if lossy else 1.0
    return sum(losses[-20:]) / 20, ratio


def main() -> None:
    torch.set_num_threads(1)
    result: dict[str, Any] = {"network": "resnet50, tiny, digits", "steps": STEPS, "seeds": SEEDS}
    plain = [train(seed, None)[0] for seed in SEEDS]
    result["plain"] = {"loss": plain}
    for codec in ("lossless", "bf16", "fp8", "int8"):
        runs = [train(seed, codec) for seed in SEEDS]
        result[codec] = {
            "loss": [loss for loss, _ in runs],
            "loss_minus_plain": [loss - base for (loss, _), base in zip(runs, plain, strict=True)],
            "saved_bytes_ratio": runs[0][1],
        }
    Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
