"""What happens outside the module in its step: the loss, and other modules that are planned meanwhile."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import outsize
from outsize.errors import BudgetError
from outsize.session.meter import StepMeter, pause_all, resume

MIB = 2**20


class Words(nn.Module):
    """Few parameters, large results: what the loss takes is most of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(2000, 32), nn.Linear(32, 2000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(x).relu())


def steps(budget: int, count: int = 3) -> tuple[nn.Module, list[int]]:
    torch.manual_seed(0)
    module = Words()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    outsize.compile(module, budget, optimizer=optimizer)
    peaks = []
    for _ in range(count):
        x = torch.randint(0, 2000, (16, 64))
        optimizer.zero_grad()
        F.cross_entropy(module(x).flatten(0, 1), x.flatten()).backward()
        optimizer.step()
        peaks.append(outsize.report(module, timelines=False).measured_peak_bytes)
    return module, peaks


def test_a_budget_that_the_loss_fits_is_not_refused_for_a_guess() -> None:
    """A cross-entropy takes less than is kept free before it was seen, and the budget has no room for the guess."""
    free, peaks = steps(2**40)
    guess, known = (
        r.predicted_peak_bytes
        for r in (outsize.plan(Words(), (torch.zeros(16, 64, dtype=torch.long),)), outsize.report(free))
    )
    assert known < 0.75 * guess
    assert abs(known - peaks[-1]) <= 0.03 * peaks[-1], (
        "with the loss seen, the prediction is the measured one"
    )
    budget = int(1.02 * known)
    kept, tight = steps(budget)
    assert max(tight) <= budget
    for one, other in zip(free.parameters(), kept.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_does_not_fit_is_an_error_in_its_first_step() -> None:
    _, peaks = steps(2**40)
    with pytest.raises(BudgetError, match="kept for the loss") as caught:
        steps(int(0.9 * peaks[-1]), count=1)
    needed = caught.value.smallest_feasible_bytes
    assert 0.95 * peaks[-1] < needed < 1.1 * peaks[-1]
    assert max(steps(needed)[1]) <= needed


def deep(budget: int, count: int) -> list[int]:
    """Peaks of the steps until each; their loss takes three times what is kept free for it before it was seen."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Sequential(nn.Linear(128, 128), nn.Tanh()) for _ in range(10)))
    x, peaks = torch.randn(4096, 128), []
    outsize.compile(module, budget, actions=("recompute",))
    for _ in range(count):
        (module(x) * torch.ones(2, 1, 1)).square().mean().backward()
        module.zero_grad()
        peaks.append(outsize.report(module, timelines=False).measured_peak_bytes)
    return peaks


def test_a_loss_far_beyond_the_guess_is_planned_with_once_seen() -> None:
    with pytest.warns(outsize.errors.BudgetWarning, match="in its loss") as caught:
        first, *later = deep(27 * MIB, 4)
    (warning,) = (w.message for w in caught)
    assert isinstance(warning, outsize.errors.BudgetWarning)
    assert warning.peak_bytes == first > warning.budget_bytes == 27 * MIB
    assert max(later) <= 27 * MIB


def test_the_smallest_budget_for_such_a_loss_is_what_it_takes() -> None:
    with pytest.raises(BudgetError) as caught:
        deep(22 * MIB, 1)
    needed = caught.value.smallest_feasible_bytes
    assert 22 * MIB < needed < 27 * MIB
    assert max(deep(needed, 4)) <= needed, "what a refused step showed is known to the next try"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # Dynamo looks at it on every input
def test_planning_another_module_counts_in_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second module is captured and measured while the first one's step is under way."""
    torch.manual_seed(0)
    first, second = (
        nn.Linear(64, 64),
        nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 1)),
    )
    held: list[torch.Tensor] = []

    def measured(*args, **kwargs):
        held.append(torch.ones(64 * MIB, dtype=torch.uint8))
        torch.ones(128 * MIB, dtype=torch.uint8)
        return measure_ops(*args, **kwargs)

    measure_ops = outsize.decide.measure_ops
    outsize.compile(first, 2**40)
    outsize.compile(second, 2**40)
    out = first(torch.randn(16, 64))
    monkeypatch.setattr(outsize.decide, "measure_ops", measured)
    second(out.view(16, 1, 8, 8)).sum().backward()
    assert len(held) == 1
    peak = outsize.report(first).measured_peak_bytes
    both = peak + outsize.report(second).measured_peak_bytes
    assert 0.2 * MIB < peak < both < 8 * MIB


def test_a_paused_meter_forgets_what_was_allocated_meanwhile() -> None:
    meter = StepMeter(0)
    paused = pause_all()
    assert meter in paused
    other = StepMeter(0)
    assert other not in paused
    kept = torch.ones(32 * MIB, dtype=torch.uint8)
    resume(paused)
    more = torch.ones(8 * MIB, dtype=torch.uint8)
    assert 8 * MIB <= meter.end() < 12 * MIB
    assert other.end() > 0.99 * (kept.nbytes + more.nbytes)
    meter.stop()
    other.stop()
