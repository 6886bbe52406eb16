"""What an observed module's steps do in Python, counted: nothing at operators where a plan has nothing to do there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import outsize
from outsize.replay.call import Replayed, _Mode
from outsize.runtime.keeper import Keeper
from outsize.session import observed

from .models import WIDTH, Stack, residual

BLOCKS = 4


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often what costs time in each step is called."""
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, called)

    for owner, name in [
        (_Mode, "__torch_dispatch__"),
        (Replayed, "operator"),
        (Replayed, "packed"),
        (Keeper, "_handle"),
        (observed, "named_bytes"),
    ]:
        count(owner, name)
    return calls


def steps_of(
    budget: int | str, counted: Counter[str], **options: Any
) -> tuple[Counter[str], outsize.values.RunRecord]:
    """The calls of one planned step."""
    torch.manual_seed(0)
    module = outsize.compile(Stack(residual, BLOCKS), budget, door="observed", **options)
    for _ in range(4):
        counted.clear()
        module(torch.randn(16, 64, WIDTH)).square().mean().backward()
        module.zero_grad()
    return Counter(counted), outsize.report(module, timelines=False)


def middle() -> int:
    free = steps_of("1 GiB", Counter())[1]
    return (free.plain_peak_bytes + free.resident_bytes) // 2


def test_a_step_that_fits_is_plain_but_for_what_autograd_saves(counted: Counter[str]) -> None:
    calls, record = steps_of("1 GiB", counted)
    assert not record.decisions
    assert calls == {"named_bytes": 1}


def test_a_plan_that_runs_nothing_again_sees_no_operator(counted: Counter[str]) -> None:
    calls, record = steps_of(middle(), counted, actions=("swap",))
    assert record.decisions
    assert calls["__torch_dispatch__"] == 0
    assert 0 < calls["packed"] <= 6 * BLOCKS
    assert record.measured_peak_bytes <= record.budget_bytes


def test_operators_without_anything_to_do_are_passed_on_at_once(counted: Counter[str]) -> None:
    calls, record = steps_of(middle(), counted, actions=("recompute",))
    assert record.decisions
    # GELUs run again, and each reads what an addmm has made; views, transposes and sums are passed on.
    assert calls["operator"] < calls["__torch_dispatch__"] / 2
