"""An accelerate loop under a budget: `prepare` with a budget in place of `accelerator.prepare`.

python examples/with_accelerate.py
"""

import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.nn import functional as F

from outsize.integrations.accelerate import peaks, prepare, release

BUDGET = "2.6 MB"
EPOCHS, ACCUMULATE = 3, 2


def batches(count: int, seed: int) -> torch.utils.data.DataLoader:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 64, generator=generator), torch.randint(10, (count,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=512)


def train(folder: Path, budget: str | None = None, *, resume: bool = False):
    """The losses and norms of the run, and what it reached."""
    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1))]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    rows, checks = batches(2048, seed=0), batches(512, seed=1)
    if budget:
        model, optimizer, rows, schedule = prepare(
            accelerator, model, optimizer, rows, schedule, budget=budget
        )
    else:
        model, optimizer, rows, schedule = accelerator.prepare(model, optimizer, rows, schedule)
    if resume:
        accelerator.load_state(folder / "epoch-0")
    losses = []
    for epoch in range(int(resume), EPOCHS):
        model.train()
        for x, y in rows:
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    losses.append(float(accelerator.clip_grad_norm_(model.parameters(), 0.5)))
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            losses += [float(F.cross_entropy(model(x), y)) for x, y in checks]
        accelerator.save_state(folder / f"epoch-{epoch}")
    reached = peaks(model) if budget else None
    release(model)
    return losses, reached


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, _ = train(Path(folder) / "plain")
        losses, reached = train(Path(folder) / "planned", BUDGET)
        assert losses == plain, "the losses are the plain run's, to the bit"
        resumed, _ = train(Path(folder) / "planned", BUDGET, resume=True)
        assert resumed == plain[-len(resumed) :], "resumed from a checkpoint as well"
    print(f"{reached.peak_bytes:,} bytes at most in the whole run, of a budget of {reached.budget_bytes:,}")


if __name__ == "__main__":
    main()
