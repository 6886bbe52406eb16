"""Does any model that trains in PyTorch train under a budget?

Architectures of transformers (`architectures.py`) are trained some steps in plain PyTorch, and then under a budget in the
middle of what is feasible. A line tells the door that was taken, whether all that is left behind has the plain steps'
bits, the measured peak over the budget, and the time of a step over the plain one's.

    python benchmarks/any-model/run.py [name ...] [--door auto|observed|captured]
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import architectures
import torch
import transformers
from torch import nn

import outsize
from outsize.errors import BudgetError

STEPS = 6
#: Budgets taken from errors before a model counts as refused.
MOST_NAMED = 5


@dataclass
class Run:
    """What some steps left behind."""

    module: nn.Module
    left: list[Any]
    seconds: float


def build(kind: str, auto: str, more: dict[str, Any]) -> nn.Module:
    """The model with small sizes, as far as its configuration has them."""
    settings = {k: v for k, v in architectures.SMALL.items() if k not in more} | more
    config = transformers.AutoConfig.for_model(kind)
    known = {k: v for k, v in settings.items() if hasattr(config, k) or k in more}
    config = transformers.AutoConfig.for_model(kind, **known)
    model: nn.Module = getattr(transformers, auto).from_config(config)
    return model.train()


def loss_of(output: Any) -> torch.Tensor:
    if getattr(output, "loss", None) is not None:
        loss: torch.Tensor = output.loss
        return loss
    first = next(v for v in output.values() if isinstance(v, torch.Tensor) and v.is_floating_point())
    return first.float().square().mean()


def train(
    architecture: tuple[str, str, dict[str, Any], Any], budget: int | None, steps: int = STEPS, **options: Any
) -> Run:
    kind, auto, more, inputs = architecture
    torch.manual_seed(0)
    module = build(kind, auto, more)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    if budget is not None:
        outsize.compile(module, budget, optimizer=optimizer, **options)
    torch.manual_seed(1)
    given, left, took = inputs(), [], []
    for _ in range(steps):
        begin = time.perf_counter()
        loss = loss_of(module(**given))
        loss.backward()
        left.append(loss.detach())
        del loss
        optimizer.step()
        optimizer.zero_grad()
        took.append(time.perf_counter() - begin)
    left += [p.detach().clone() for p in module.state_dict().values()] + [torch.get_rng_state()]
    return Run(module, left, min(took))


def compare(architecture: tuple[str, str, dict[str, Any], Any], door: str) -> str:
    """A line of the table."""
    try:
        plain = train(architecture, None)
    except Exception as error:
        return f"does not train in plain PyTorch: {type(error).__name__}: {str(error)[:80]}"
    free = train(architecture, 1 << 40, 2, door="observed")
    record = outsize.report(free.module, timelines=False)
    low, high = record.resident_bytes, record.plain_peak_bytes
    del free
    try:
        train(architecture, low, 3, door="observed")
    except BudgetError as error:
        low = error.smallest_feasible_bytes
    budget = (low + high) // 2
    for _ in range(MOST_NAMED):
        try:
            run = train(architecture, budget, door=door)
        except BudgetError as error:
            budget = error.smallest_feasible_bytes
            continue
        break
    else:
        return "refused again and again"
    record = outsize.report(run.module, timelines=False)
    same = len(plain.left) == len(run.left) and all(map(torch.equal, plain.left, run.left))
    taken = "observed" if any("door: observed" in note for note in record.notes) else "captured"
    return (
        f"{taken} | {'equal' if same else 'DIFFERENT'} | {budget / high:.2f} | {len(record.decisions)} | "
        f"{record.measured_peak_bytes / budget:.3f} | {run.seconds / plain.seconds:.2f} | {record.planning_seconds:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--door", default="auto")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        "| model | door | bits | budget ÷ plain peak | decisions | peak ÷ budget | step ÷ plain | planning s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for architecture in architectures.ARCHITECTURES:
        if asked.names and architecture[0] not in asked.names:
            continue
        try:
            line = compare(architecture, asked.door)
        except Exception as error:
            traceback.print_exc(limit=-3)
            line = f"FAILED {type(error).__name__}: {str(error)[:120]}"
        print(f"| {architecture[0]} | {line} |", flush=True)


if __name__ == "__main__":
    main()
