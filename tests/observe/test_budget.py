"""Steps that nobody has planned stay under the budget too: they give way as they go, or are an error with `strict`."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize.errors import BudgetError, BudgetWarning

from .models import MODELS, WIDTH, Experts, Make, Stack, branched, left_out, mlp, residual
from .test_bits import same

STEPS, ROWS = 9, 16


def train(make: Make, budget: int | None, **options: Any) -> tuple[nn.Module, list[Any]]:
    """Steps of one size, the seventh smaller and the last larger than the others."""
    torch.manual_seed(0)
    module = make()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    if budget is not None:
        outsize.compile(module, budget, optimizer=optimizer, door="observed", **options)
    torch.manual_seed(1)
    left: list[Any] = []
    for number in range(STEPS):
        rows = {6: ROWS // 4, STEPS - 1: ROWS + 2}.get(number, ROWS)
        loss = module(torch.randn(rows, 64, WIDTH, requires_grad=True)).square().mean()
        loss.backward()
        left.append(loss.detach())
        del loss
        optimizer.step()
        optimizer.zero_grad()
    return module, [*left, *(p.detach().clone() for p in module.parameters())]


def range_of(make: Make) -> tuple[int, int]:
    record = outsize.report(train(make, 1 << 40)[0], timelines=False)
    return record.resident_bytes, record.plain_peak_bytes


CHANGING: dict[str, Make] = {
    "branches": lambda: Stack(branched, 3),
    "layers left out": lambda: Stack(left_out, 4),
    "experts": lambda: nn.Sequential(Experts(), Experts()),
}


#: The path that takes the most, where paths differ by that.
LARGEST: dict[str, Make] = {"layers left out": lambda: Stack(residual, 4)}


@pytest.mark.parametrize("actions", [("recompute",), ("swap", "recompute", "encode")])
@pytest.mark.parametrize("name", CHANGING)
def test_no_step_after_the_first_is_over_the_budget_whatever_its_path(name: str, actions: Any) -> None:
    make = CHANGING[name]
    _, plain = train(make, None)
    low, high = range_of(LARGEST.get(name, make))
    with warnings.catch_warnings():
        warnings.simplefilter("error", BudgetWarning)
        module, found = train(make, (low + high) // 2, actions=actions, strict=True)
    record = outsize.report(module, timelines=False)
    assert all(map(same, plain, found))
    assert record.measured_peak_bytes <= record.budget_bytes
    told = any("wrote" in note for note in record.notes)
    assert told == (actions == ("recompute",))


def test_rows_that_are_routed_elsewhere_follow_the_plan() -> None:
    make = CHANGING["experts"]
    low, high = range_of(make)
    module, _ = train(make, low + (high - low) * 7 // 10)
    record = outsize.report(module, timelines=False)
    counted = next(note for note in record.notes if "were observed" in note)
    # Two sightings, and one of the larger batch; no step strays though no two of them route alike.
    assert counted.startswith("3 steps were observed, 1 paths are known; 0 steps took another")
    assert record.decisions


def test_a_module_of_many_paths_remembers_some() -> None:
    module = outsize.compile(Stack(left_out, 8), "1 GiB", door="observed")
    for _ in range(60):
        module(torch.randn(2, 32, WIDTH, requires_grad=True)).sum().backward()
        module.zero_grad()
    counted = next(n for n in outsize.report(module).notes if "were observed" in n)
    observed, known = int(counted.split()[0]), int(counted.split("observed, ")[1].split()[0])
    assert known <= 32
    assert observed <= 32


class Hoard(nn.Module):
    """Keeps its hidden states itself, where it is told to: nothing that autograd lets go of is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.kept, self.hoards = mlp(), [], False

    def forward(self, x: Tensor) -> Tensor:
        self.kept: list[Tensor] = []
        for _ in range(32 if self.hoards else 6):
            x = x + self.block(x)
            if self.hoards:
                x = torch.tanh(x)
                self.kept.append(x)
        return x


HIDDEN = 16 * 64 * WIDTH * 4
BUDGET = 24 * HIDDEN


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("actions", [("recompute",), ("swap", "recompute")])
def test_strict_stops_before_more_is_allocated(steps: int, actions: Any) -> None:
    torch.manual_seed(0)
    module = Hoard()
    outsize.compile(module, BUDGET, door="observed", strict=True, actions=actions)

    def step() -> None:
        module.zero_grad()
        torch.manual_seed(2)
        module(torch.randn(16, 64, WIDTH)).square().mean().backward()

    for _ in range(steps):
        step()
    module.hoards = True
    with pytest.raises(BudgetError, match="over the budget") as caught:
        step()
    # The states up to the budget, the operators of a block, and not the rest of them.
    assert len(module.kept) < 32
    assert caught.value.smallest_feasible_bytes <= BUDGET + 9 * HIDDEN
    module.hoards, module.kept = False, []
    del caught
    step()
    found = [p.grad for p in module.parameters()]
    outsize.release(module)
    step()
    assert all(torch.equal(a, p.grad) for a, p in zip(found, module.parameters()))


def test_strict_lets_steps_be_that_stay_under_the_budget() -> None:
    make = MODELS["experts"]
    _, plain = train(make, None)
    _, found = train(make, 1 << 30, strict=True)
    assert all(map(same, plain, found))
