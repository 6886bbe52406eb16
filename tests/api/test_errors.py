"""What is asked wrongly is refused with the numbers against it and what works instead."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import outsize
from outsize import api
from outsize.capture import call
from outsize.errors import BudgetError, CaptureError, OutsizeError, PlanError, TierError, UnitError

from .test_contract import BATCH, STORAGE, WIDTH, Stack


@pytest.mark.parametrize("budget", ["a lot", "", "-1 GiB", "1.5 GigaParsecs", "0", 0, -5, "0%", "150 %%"])
def test_unreadable_budgets(budget: object) -> None:
    with pytest.raises(UnitError):
        outsize.compile(nn.Linear(2, 2), budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (123456789, 123456789),
        ("1.5 GiB", 3 * 2**29),
        ("300 MB", 300_000_000),
        ("2GiB", 2**31),
        ("512 KiB", 2**19),
    ],
)
def test_budgets_as_they_are_written(budget: object, expected: int) -> None:
    assert api._budget(budget) == expected  # type: ignore[arg-type]


def test_shares_of_the_device_and_what_is_free() -> None:
    whole = outsize.device.memory.total_bytes()
    assert api._budget("50%") == pytest.approx(whole / 2, rel=1e-6)
    assert 0 < api._budget(None) <= whole


def test_a_budget_that_is_too_small_names_the_one_that_works() -> None:
    module = outsize.compile(Stack(3), "8 MiB")
    x = torch.randn(BATCH, WIDTH)
    with pytest.raises(BudgetError) as caught:
        module(x)
    error = caught.value
    assert isinstance(error, OutsizeError)
    assert error.smallest_feasible_bytes > 8 * 2**20
    assert len(error.dominating) == 5
    sizes = [size for _, size in error.dominating]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == STORAGE
    assert str(error.smallest_feasible_bytes) in str(error)
    assert error.dominating[0][0] in str(error)
    outsize.compile(module, error.smallest_feasible_bytes)(x).backward()
    assert outsize.report(module).decisions
    with pytest.raises(BudgetError) as again:
        outsize.plan(Stack(3), (x,), budget=error.smallest_feasible_bytes - 2**20)
    assert again.value.smallest_feasible_bytes == error.smallest_feasible_bytes


def test_an_unknown_planner_lists_those_there_are() -> None:
    with pytest.raises(PlanError, match="slack"):
        outsize.compile(Stack(1), "1 GiB", planner="magic")(torch.randn(8, WIDTH))


def test_a_missing_or_read_only_directory(tmp_path: Path) -> None:
    with pytest.raises(TierError, match="nowhere"):
        outsize.compile(Stack(1), "1 GiB", disk=tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TierError, match="file"):
        outsize.compile(Stack(1), "1 GiB", disk=file)


def test_nothing_to_report() -> None:
    with pytest.raises(OutsizeError, match=r"outsize\.compile"):
        outsize.report(nn.Linear(2, 2))
    with pytest.raises(OutsizeError, match="run a step"):
        outsize.report(outsize.compile(nn.Linear(2, 2), "1 GiB"))


def test_a_forward_without_gradients_is_evaluated_not_planned() -> None:
    module = outsize.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "1 GiB")
    with torch.no_grad():
        assert module(torch.randn(2, 4)).shape == (2, 4)
    with pytest.raises(OutsizeError):
        outsize.report(module)


def test_hooks_of_autograd_that_change_a_saved_tensor_are_not_silent() -> None:
    module = outsize.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "1 GiB")
    result = module(torch.randn(2, 4))
    with torch.no_grad():
        result.mul_(2)  # saved for the backward of tanh
    with pytest.raises((OutsizeError, RuntimeError), match=r"in place|inplace|version"):
        result.sum().backward()


def test_too_many_shapes_is_said_of_one_module_not_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "MOST_SHAPES", 3)
    for _ in range(2):
        module = outsize.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "1 GiB")
        for rows in (2, 3, 4):
            module(torch.randn(rows, 4))
    with pytest.raises(CaptureError, match="more than 3 different shapes"):
        module(torch.randn(5, 4))


@pytest.mark.parametrize("first", ["outsize.compile", "import outsize.plan.make, outsize.report"])
def test_the_public_calls_are_calls_whatever_was_imported(first: str) -> None:
    code = (
        f"import outsize; {first}; outsize.compile; import outsize.report.text, outsize.plan.make; "
        + "; ".join(
            f"assert callable(outsize.{name}), {name!r}" for name in ("compile", "meter", "plan", "report")
        )
    )
    subprocess.run([sys.executable, "-c", code], check=True)
