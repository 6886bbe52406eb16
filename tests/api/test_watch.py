"""A module that is trained past its plan says so, once; one that is not, never."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).mean()


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def compiled_again(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


Ways = dict[str, Callable[[Any], Callable[[Tensor], Tensor]]]
PAST: Ways = {
    "forward": lambda m: m.forward,
    "child": lambda m: lambda x: m.second(m.first(x)).mean(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "saved": saved,
    "shallow copy": copy.copy,
    "in a copied parent": lambda m: copy.deepcopy(nn.Sequential(m)),
    "compile()": compiled_again,
    "a compiled function": lambda m: torch.compile(lambda x: m(x) * 2, backend="eager"),
    "functional": lambda m: (
        lambda x: torch.func.functional_call(m.first, dict(m.first.named_parameters()), x).mean()
    ),
}
UNDER_PLAN: Ways = {
    "module": lambda m: m,
    "parent": lambda m: nn.Sequential(m),
    "data parallel": nn.DataParallel,
    "torch.compile": lambda m: torch.compile(m, backend="eager"),
}


def messages(run: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [w for w in caught if w.category is RuntimeWarning]


def train(call: Any, optimizer: torch.optim.Optimizer, steps: int = 3, *, to_none: bool = True) -> None:
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=to_none)
        call(torch.randn(4, 16)).backward()
        optimizer.step()


def parameters(call: Any, module: nn.Module) -> Any:
    return call.parameters() if isinstance(call, nn.Module) else module.parameters()


@pytest.mark.parametrize("way", PAST)
@pytest.mark.parametrize("steps", [1, 3])
def test_training_past_the_plan_is_said_once(way: str, steps: int) -> None:
    module = outsize.compile(Net(), "1 GiB")
    call = PAST[way](module)
    optimizer = torch.optim.SGD(parameters(call, module), lr=0.1)
    said = messages(lambda: train(call, optimizer, steps))
    assert len(said) == 1
    assert "no step of it was planned" in str(said[0].message)
    assert said[0].filename == __file__
    copied = "cop" in way or way in ("pickle", "saved")
    assert ("is a copy" in str(said[0].message)) == (copied and way != "shallow copy")
    assert ("replaced" in str(said[0].message)) == (way == "compile()")


@pytest.mark.parametrize("way", UNDER_PLAN)
@pytest.mark.parametrize("to_none", [False, True])
def test_training_under_the_plan_is_silent(way: str, to_none: bool) -> None:
    module = outsize.compile(Net(), "1 GiB")
    call = UNDER_PLAN[way](module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    assert not messages(lambda: train(call, optimizer, to_none=to_none))
    assert outsize.report(module).steps == 3


@pytest.mark.parametrize("to_none", [False, True])
def test_it_is_said_as_soon_as_steps_are_not_planned_any_more(to_none: bool) -> None:
    module = outsize.compile(Net(), "1 GiB")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    assert not messages(lambda: train(module, optimizer, to_none=to_none))
    assert len(messages(lambda: train(module.forward, optimizer, 1, to_none=to_none))) == 1
    assert not messages(lambda: train(module.forward, optimizer, to_none=to_none))


def test_updates_that_train_something_else_are_silent() -> None:
    module, head = outsize.compile(Net(), "1 GiB"), nn.Linear(16, 1)
    both = torch.optim.Adam([*module.parameters(), *head.parameters()])
    one, two = (torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (module.first, module.second))

    def run() -> None:
        for to_none in (True, False):  # a loss that the module has no part in
            train(lambda x: head(x).mean(), both, to_none=to_none)
            train(module, both, to_none=to_none)
        module(torch.randn(4, 16)).backward()
        one.step()
        nn.utils.clip_grad_norm_(module.parameters(), 1e-3)  # in place, between two updates
        two.step()
        two.step()  # again with the same gradients
        with torch.no_grad():
            module.forward(torch.randn(4, 16))

    assert not messages(run)


def test_gradients_of_before_are_not_held_against_it() -> None:
    module = Net()
    module(torch.randn(4, 16)).backward()
    outsize.compile(module, "1 GiB")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    assert not messages(optimizer.step)


def test_a_copy_that_is_compiled_is_planned() -> None:
    module = outsize.compile(Net(), "1 GiB")
    twin = outsize.compile(copy.deepcopy(module), "1 GiB")
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    assert not messages(lambda: train(twin, optimizer))
    assert outsize.report(twin).steps == 3
    with pytest.raises(outsize.OutsizeError):
        outsize.report(module)


def test_an_update_under_torch_compile_counts() -> None:
    module = outsize.compile(Net(), "1 GiB")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    update = torch.compile(lambda: optimizer.step(), backend="eager")

    def run() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            module(torch.randn(4, 16)).backward()
            update()

    assert not messages(run)
    assert outsize.report(module).steps == 2
