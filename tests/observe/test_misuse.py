"""What may go wrong around an observed step: plain errors, or clear ones of ours, and the next step works."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import outsize
from outsize.errors import BudgetError, MutationError

from .models import WIDTH, Stack, residual


def step(module: nn.Module, rows: int = 8) -> Tensor:
    loss: Tensor = module(torch.randn(rows, 32, WIDTH)).square().mean()
    loss.backward()
    return loss.detach()


def planned(budget: int | str = "1 GiB", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    module = outsize.compile(Stack(residual), budget, door="observed", **options)
    for _ in range(3):
        step(module)
        module.zero_grad()
    return module


class Spoiled(Stack):
    """Changes what autograd has saved, where it is told to."""

    spoils = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.sigmoid(super().forward(x))
        if self.spoils:
            hidden.detach().mul_(2.0)
        return hidden


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_saved_tensor_that_is_changed_in_place_is_autograds_error(steps: int) -> None:
    module = outsize.compile(Spoiled(residual), "1 GiB", door="observed")
    for _ in range(steps):
        step(module)
    module.spoils = True
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
        step(module)
    assert isinstance(caught.value, MutationError)
    module.spoils = False
    step(module)


class Interrupted(Stack):
    """Raises in the middle of a forward or of a backward, where it is told to."""

    where = ""

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        if self.where == "forward":
            raise KeyboardInterrupt
        if self.where == "backward":
            result.register_hook(self._raise)
        return result

    @staticmethod
    def _raise(_: Tensor) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_interrupt_leaves_the_next_step_as_it_should_be(where: str, steps: int) -> None:
    torch.manual_seed(0)
    plain = Stack(residual)
    torch.manual_seed(0)
    module = outsize.compile(Interrupted(residual), "1 GiB", door="observed")
    for _ in range(steps):
        step(module)
    module.where = where
    with pytest.raises(KeyboardInterrupt):
        step(module)
    module.where = ""
    for net in (plain, module):
        net.zero_grad()
        torch.manual_seed(5)
        step(net)
        step(net)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), module.parameters()))


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_of_the_users_sees_the_step() -> None:
    plain = Counting()
    with plain:
        Stack(residual)(torch.randn(8, 32, WIDTH))
    module = outsize.compile(Stack(residual), "1 GiB", door="observed")
    for _ in range(2):
        mine = Counting()
        with mine:
            module(torch.randn(8, 32, WIDTH)).sum()
        assert [f for f in plain.seen if "addmm" in str(f)] == [f for f in mine.seen if "addmm" in str(f)]


def test_a_second_derivative() -> None:
    def gradients(module: nn.Module) -> list[Tensor]:
        torch.manual_seed(3)
        x = torch.randn(8, 32, WIDTH, requires_grad=True)
        (first,) = torch.autograd.grad(module(x).tanh().sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), list(module.parameters()), allow_unused=True))

    torch.manual_seed(0)
    plain = gradients(Stack(residual))
    torch.manual_seed(0)
    module = outsize.compile(Stack(residual), "1 GiB", door="observed")
    for _ in range(3):
        found = gradients(module)
        assert all(a is b or torch.equal(a, b) for a, b in zip(plain, found))


def test_a_budget_below_all_plans_names_one_that_works() -> None:
    with pytest.raises(BudgetError) as caught:
        planned("300 KiB", actions=("recompute",))
    assert planned(2 * caught.value.smallest_feasible_bytes, actions=("recompute",)) is not None


def test_a_door_that_is_none_is_refused() -> None:
    with pytest.raises(outsize.OutsizeError, match="'auto', 'captured', 'observed'"):
        outsize.compile(nn.Linear(2, 2), "1 GiB", door="back")


def test_nothing_stays_when_the_module_is_released() -> None:
    module = planned()
    outsize.release(module)
    assert step(module).isfinite()
    assert "_compiled_call_impl" not in vars(module)
