"""Observed and replayed steps have the bits of the plain ones, whatever the network does and however it is trained."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize import BudgetError

from .models import MODELS, WIDTH, Make, Stack, loss_of, residual

STEPS = 7


def train(make: Make, mode: str = "plain", budget: int | str | None = None, **options: Any) -> list[Any]:
    """All that a few steps leave behind; the last but one has half a batch. The module comes first."""
    torch.manual_seed(0)
    module = make()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    if budget is not None:
        outsize.compile(module, budget, optimizer=optimizer, **options)
    torch.manual_seed(1)
    left: list[Any] = []
    for number in range(STEPS):
        x = torch.randn(4 if number == STEPS - 2 else 8, 32, WIDTH, requires_grad=mode == "inputs")
        if mode == "evaluation" and number % 2:
            module.eval()
            with torch.no_grad():
                left.append(loss_of(module(x)))
            module.train()
        loss = loss_of(module(x))
        if mode == "two forwards":
            loss = loss + loss_of(module(torch.randn(8, 32, WIDTH)))
        loss.backward(retain_graph=mode == "retained")
        if mode == "retained":
            loss.backward()
        left += [loss.detach(), x.grad]
        del loss
        if mode != "accumulated" or number % 2:
            optimizer.step()
            optimizer.zero_grad()
    return [module, *left, *(p.detach().clone() for p in module.state_dict().values()), torch.get_rng_state()]


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one is other


def smallest(make: Make, mode: str, **options: Any) -> tuple[int, int]:
    """The smallest budget that an error names, and the plain peak."""
    record = outsize.report(train(make, mode, 1 << 40, door="observed")[0], timelines=False)
    budget = record.resident_bytes
    try:
        train(make, mode, budget, door="observed", **options)
    except BudgetError as error:
        budget = error.smallest_feasible_bytes
    return budget, record.plain_peak_bytes


def trained_under(make: Make, budget: int, mode: str, **options: Any) -> tuple[nn.Module, list[Any]]:
    """Under the budget, or under the next one that an error names."""
    for _ in range(6):
        try:
            module, *left = train(make, mode, budget, door="observed", **options)
            return module, left
        except BudgetError as error:
            budget = error.smallest_feasible_bytes
    raise AssertionError("the errors name budgets that are refused again and again")


@pytest.mark.filterwarnings("ignore::outsize.errors.BudgetWarning")
@pytest.mark.parametrize("name", MODELS)
def test_recomputed_steps_have_eagers_bits(name: str) -> None:
    _, *plain = train(MODELS[name])
    low, high = smallest(MODELS[name], "plain", actions=("recompute",))
    module, found = trained_under(MODELS[name], (low + high) // 2, "plain", actions=("recompute",))
    assert all(map(same, plain, found))
    assert outsize.report(module, timelines=False).steps == STEPS


@pytest.mark.filterwarnings("ignore::outsize.errors.BudgetWarning")
@pytest.mark.parametrize("mode", ["inputs", "evaluation", "two forwards", "retained", "accumulated"])
def test_other_loops_have_eagers_bits(mode: str) -> None:
    make = MODELS["dropout"]
    _, *plain = train(make, mode)
    low, high = smallest(make, mode, actions=("recompute",))
    _, found = trained_under(make, (low + high) // 2, mode, actions=("recompute",))
    assert all(map(same, plain, found))


@pytest.mark.parametrize("name", ["residual", "dropout", "views"])
def test_swapped_and_encoded_steps_stay_under_the_budget(name: str) -> None:
    # One alone leaves little between what the smallest plan needs and the plain step.
    def make() -> nn.Module:
        return nn.Sequential(MODELS[name](), MODELS[name]())

    _, *plain = train(make)
    low, high = smallest(make, "plain")
    budget = (low + high) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", outsize.errors.BudgetWarning)
        module, found = trained_under(make, budget, "plain", actions=("swap", "encode"))
    record = outsize.report(module, timelines=False)
    assert all(map(same, plain, found))
    assert record.decisions
    assert record.swapped_in_bytes > 0
    assert record.measured_peak_bytes <= record.budget_bytes


def test_the_door_is_taken_where_capture_fails_and_the_report_says_why() -> None:
    make = MODELS["branches on data"]
    _, *plain = train(make)
    module, *found = train(make, "plain", "1 GiB")
    assert all(map(same, plain, found))
    note = outsize.report(module, timelines=False).notes[0]
    assert "door: observed" in note
    assert "x.flatten()[0].item()" in note


def test_what_can_be_captured_is_captured() -> None:
    module = outsize.compile(Stack(residual), "1 GiB")
    module(torch.randn(8, 32, WIDTH)).sum().backward()
    assert not any("observed" in note for note in outsize.report(module).notes)
