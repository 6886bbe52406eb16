"""A run's meter: what counts in which phase, what is said, and what is given back."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import outsize
from outsize.errors import BudgetWarning, OutsizeError, UnitError
from outsize.integrations import Run
from outsize.integrations.run import CHECKPOINT, EVALUATION, STEP, check_settings, submodule

MIB = 2**20


def begin(budget: str = "64 MiB") -> tuple[nn.Module, torch.optim.Optimizer, Run]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    optimizer = torch.optim.AdamW(module.parameters())
    return module, optimizer, Run(module, budget, optimizer=optimizer)


def step(module: nn.Module, optimizer: torch.optim.Optimizer, rows: int = 1024) -> None:
    module(torch.randn(rows, 64)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_each_phase_has_its_peak() -> None:
    module, optimizer, run = begin()
    step(module, optimizer)
    run.ends(STEP)
    torch.empty(16 * MIB, dtype=torch.uint8).fill_(1)
    run.ends(EVALUATION)
    torch.empty(8 * MIB, dtype=torch.uint8).fill_(1)
    run.ends(CHECKPOINT)
    phases = run.peaks.phases
    assert 16 * MIB <= phases[EVALUATION] == run.peaks.peak_bytes < 18 * MIB
    assert 8 * MIB <= phases[CHECKPOINT] < 10 * MIB
    assert 0 < phases[STEP] < 4 * MIB
    run.close()
    assert module(torch.randn(2, 64)).requires_grad  # the plain module
    with pytest.raises(OutsizeError, match="nothing to report"):
        outsize.report(module)
    run.close()
    run.ends(STEP)
    assert run.peaks.phases == phases


def test_an_evaluation_over_the_budget_is_said_once() -> None:
    module, optimizer, run = begin("8 MiB")
    step(module, optimizer)
    run.ends(STEP)
    for expected in (True, False):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.empty(16 * MIB, dtype=torch.uint8).fill_(1)
            run.ends(EVALUATION)
        said = [w.message for w in caught if isinstance(w.message, BudgetWarning)]
        assert bool(said) == expected
        for message in said:
            assert message.budget_bytes == 8 * MIB < message.peak_bytes
            assert "evaluate smaller batches" in str(message)
    run.close()


def test_plans_leave_room_for_what_the_loop_holds() -> None:
    """Batches that are fetched ahead lie beside the step, which nobody but the run's meter sees."""
    module, optimizer, run = begin("9 MiB")
    ahead = [torch.randn(1024, 64) for _ in range(8)]  # 2 MiB
    step(module, optimizer, 4096)
    run.ends(STEP)
    assert run.peaks.peak_bytes <= run.budget_bytes
    assert outsize.report(module).resident_bytes >= sum(t.nbytes for t in ahead)
    run.close()


def test_planning_counts_in_no_phase() -> None:
    module, optimizer, run = begin()
    step(module, optimizer)
    run.ends(STEP)
    before = run.peaks.peak_bytes
    step(module, optimizer, 1000)  # captured anew
    run.ends(STEP)
    assert run.peaks.peak_bytes < before + MIB
    run.close()


def test_many_steps_under_way_leave_the_meter_of_the_run_alone() -> None:
    module, optimizer, run = begin()
    others = [outsize.compile(nn.Linear(8, 8), "1 GiB") for _ in range(6)]
    waiting = [other(torch.randn(4, 8)) for other in others]
    step(module, optimizer)
    torch.empty(16 * MIB, dtype=torch.uint8).fill_(1)
    run.ends(EVALUATION)
    assert run.peaks.peak_bytes >= 16 * MIB
    del waiting
    run.close()


def test_arguments_are_held_against_compile() -> None:
    check_settings("60%", {"effort": 2, "actions": ("swap",)})
    with pytest.raises(OutsizeError, match=r"efort=: .* it has .*effort"):
        check_settings("1 GiB", {"efort": 2})
    with pytest.raises(OutsizeError, match="optimizer=: "):
        check_settings("1 GiB", {"optimizer": None})
    with pytest.raises(UnitError, match="one gig"):
        check_settings("one gig", {})


def test_a_submodule_that_is_not_there_names_those_that_are() -> None:
    module = nn.ModuleDict({"net": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert submodule(module, "net") is module["net"]
    with pytest.raises(OutsizeError, match=r"module='body': .* its own are net, head"):
        submodule(module, "body")
