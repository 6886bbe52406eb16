"""What is asked wrongly is refused with the numbers against it and what works instead."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import outsize
from outsize import asked
from outsize.errors import BudgetError, OutsizeError, TierError, UnitError

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
    assert asked.bytes_of(budget) == expected  # type: ignore[arg-type]


def test_shares_of_the_device_and_what_is_free() -> None:
    whole = outsize.device.memory.total_bytes()
    assert asked.bytes_of("50%") == pytest.approx(whole / 2, rel=1e-6)
    assert 0 < asked.bytes_of(None) <= whole


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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"planner": "serach"}, "slack"),
        ({"planner": None}, "search"),
        ({"actions": ("swap", "recompte")}, "recompute"),
        ({"actions": "swap"}, "tuple"),
        ({"actions": ()}, r"outsize\.meter"),
        ({"actions": None}, "tuple"),
        ({"lossy": {"int4": 0.1}}, "bf16"),
        ({"lossy": {"bf16": 2**-12}}, "error is up to"),
        ({"lossy": {"bf16": "much"}}, "number"),
        ({"lossy": {"bf16": float("nan")}}, "number"),
        ({"lossy": ["bf16"]}, "dict"),
        ({"effort": 0}, "1"),
        ({"effort": True}, "whole number"),
        ({"effort": 1.5}, "whole number"),
        ({"budget": 1.5e9}, "cannot read"),
        ({"budget": -1}, "positive"),
        ({"budget": True}, "cannot read"),
        ({"optimizer": "AdamW"}, "holds one"),
        ({"optimizer": torch.optim.AdamW}, "holds one"),
    ],
)
@pytest.mark.parametrize(
    "call", [outsize.compile, lambda module, **given: outsize.plan(module, (torch.randn(2, 2),), **given)]
)
def test_what_is_asked_wrongly_is_refused_at_the_call(
    call: Callable[..., Any], asked: dict[str, Any], said: str
) -> None:
    module, given = nn.Linear(2, 2), {"budget": "1 GiB"} | asked
    with pytest.raises(OutsizeError, match=said):
        call(module, **given)
    assert "_compiled_call_impl" not in vars(module)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"inner": "indctor"}, "aten"),
        ({"disk": 5}, "directory"),
        ({"host_budget": "-1 GiB"}, "host_budget"),
        ({"disk_budget": 0}, "disk_budget"),
        ({"disk_budget": "50%"}, "disk_budget"),
    ],
)
def test_what_only_compile_is_asked(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(OutsizeError, match=said):
        outsize.compile(nn.Linear(2, 2), "1 GiB", **asked)


@pytest.mark.parametrize(
    ("module", "said"),
    [(nn.Linear, "class"), (5, r"torch\.nn\.Module"), (lambda x: x, r"torch\.nn\.Module")],
    ids=["class", "number", "function"],
)
@pytest.mark.parametrize("call", [outsize.compile, outsize.meter, lambda m: outsize.plan(m, ())])
def test_what_is_no_module_is_refused(call: Callable[[Any], Any], module: Any, said: str) -> None:
    with pytest.raises(OutsizeError, match=said):
        call(module)


def test_a_module_under_torch_compile_is_to_be_given_itself() -> None:
    wrapped = torch.compile(nn.Linear(2, 2), backend="eager")
    with pytest.raises(OutsizeError, match="module that it was made from"):
        outsize.compile(wrapped, "1 GiB")  # type: ignore[arg-type]


def test_arguments_and_hardware_of_a_plan() -> None:
    with pytest.raises(OutsizeError, match="tuple"):
        outsize.plan(nn.Linear(2, 2), torch.randn(2, 2), budget="1 GiB")  # type: ignore[arg-type]
    with pytest.raises(OutsizeError, match="hardware"):
        outsize.plan(nn.Linear(2, 2), (torch.randn(2, 2),), hardware=5)  # type: ignore[arg-type]
    with pytest.raises(OutsizeError, match="holds one"):
        outsize.meter(nn.Linear(2, 2), optimizer=nn.Linear(2, 2))  # type: ignore[arg-type]


def test_the_public_names_are_listed() -> None:
    code = "import outsize, sys; assert 'torch' not in sys.modules; print(*dir(outsize))"
    names = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"compile", "meter", "plan", "record", "release", "report", "codecs", "OutsizeError"} <= set(names)
    assert not [name for name in names if name.startswith("_") and name != "__version__"]


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


@pytest.mark.parametrize("first", ["outsize.compile", "import outsize.plan.make, outsize.report"])
def test_the_public_calls_are_calls_whatever_was_imported(first: str) -> None:
    code = (
        f"import outsize; {first}; outsize.compile; import outsize.report.text, outsize.plan.make; "
        + "; ".join(
            f"assert callable(outsize.{name}), {name!r}" for name in ("compile", "meter", "plan", "report")
        )
    )
    subprocess.run([sys.executable, "-c", code], check=True)
