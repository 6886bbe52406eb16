"""Without gradients the module runs as it is; what is captured too often says so, and trains on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize import api
from outsize.capture import call
from outsize.capture.caches import failed_guards
from outsize.session import recaptures


class Net(nn.Module):
    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.2)
        self.kind, self.steps, self.seen = kind, 0, list[float]()

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if self.kind == "counter":
            self.steps += 1
            x = x * min(1.0, self.steps / 100)
        if self.kind == "list":
            self.seen.append(1.0)
        return (self.drop(self.norm(self.layer(x))) * scale).square().mean()


def step(module: nn.Module, optimizer: torch.optim.Optimizer, *args: Any) -> Tensor:
    optimizer.zero_grad()
    loss: Tensor = module(*args)
    loss.backward()
    optimizer.step()
    return loss.detach()


def pair(kind: str = "") -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
    """The eager module and one under plan, from the same seed."""
    for compiled in (False, True):
        torch.manual_seed(0)
        module = Net(kind)
        optimizer = torch.optim.AdamW(module.parameters())
        yield (
            outsize.compile(module, "1 GiB", optimizer=optimizer, door="captured") if compiled else module,
            optimizer,
        )


def captures(module: nn.Module) -> int:
    return int(vars(module)["_outsize_watch"].installed._backend.graphs)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_is_not_captured(mode: Callable[[], Any]) -> None:
    module = outsize.compile(Net().eval(), "1 GiB")
    with mode():
        for rows in range(2, 22):
            assert not module(torch.randn(rows, 16)).requires_grad
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module(torch.randn(3, 16))  # nothing needs a gradient
    assert captures(module) == 0


def test_an_input_that_needs_a_gradient_is_trained_through_a_frozen_module() -> None:
    results = []
    for module, _ in pair():
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        x = torch.randn(4, 16, requires_grad=True)
        module(x).backward()
        results.append(x.grad)
    assert torch.equal(*results)
    assert outsize.report(module).steps == 1


def test_evaluations_between_steps_leave_bits_and_budget_alone() -> None:
    results = []
    for module, optimizer in pair():
        found = []
        for _ in range(3):
            found.append(step(module, optimizer, torch.randn(8, 16)))
            module.eval()
            with torch.no_grad():
                found += [module(torch.randn(rows, 16)) for rows in (2, 5)]
            module.train()
            loss = module(torch.randn(8, 16))
            with torch.no_grad():
                found.append(module(torch.randn(6, 16)))  # between a forward and its backward
            loss.backward()
        results.append([*found, *module.parameters(), *module.buffers()])
    assert all(map(torch.equal, *results))
    report = outsize.report(module, timelines=False)
    assert report.steps == 6
    assert report.measured_peak_bytes < 2**20


def test_parameters_that_are_not_the_modules_are_planned_from_the_second_call_on() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [torch.ones(4, 4, requires_grad=True)]

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weights[0]).sum()

    module = outsize.compile(Hidden(), "1 GiB")
    with pytest.warns(RuntimeWarning, match="Register"):
        module(torch.randn(2, 4)).backward()
    module(torch.randn(2, 4)).backward()
    assert outsize.report(module).steps == 1


@pytest.mark.parametrize(
    ("kind", "args", "guard"),
    [
        ("counter", lambda i: (torch.ones(4, 16),), "self.steps == 2"),
        ("list", lambda i: (torch.ones(4, 16),), "len(self.seen) == 2"),
        ("", lambda i: (torch.ones(4, 16), 1 - i / 100), "== 0.98"),
    ],
    ids=["counter", "list", "number"],
)
def test_a_python_value_that_changes_is_named_after_three_captures(
    kind: str, args: Callable[[int], tuple[Any, ...]], guard: str
) -> None:
    results, said = [], []
    for module, optimizer in pair(kind):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append([step(module, optimizer, *args(i)) for i in range(5)])
        said = [w for w in caught if w.category is RuntimeWarning]
    assert all(map(torch.equal, *results))
    assert len(said) == 1
    assert guard in str(said[0].message)
    assert "tensor" in str(said[0].message)
    assert "test_evaluation.py" in str(said[0].message)
    assert said[0].filename == __file__


def test_shapes_are_said_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recaptures, "SHAPES", 2)
    module = outsize.compile(Net(), "1 GiB")
    module(torch.randn(2, 16))
    module(torch.randn(3, 16))
    with pytest.warns(RuntimeWarning, match="expected 3, actual 4"):
        module(torch.randn(4, 16))
    module(torch.randn(5, 16))


def test_beyond_the_limit_the_module_trains_unplanned_under_the_meter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call, "MOST_SHAPES", 2)
    results, said = [], []
    for module, optimizer in pair():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = [step(module, optimizer, torch.randn(rows, 16)) for rows in (2, 3, 4, 5, 2, 6)]
        said = [str(w.message) for w in caught if w.category is RuntimeWarning]
        results.append([*found, *module.parameters(), *module.buffers()])
    assert all(map(torch.equal, *results))
    assert len(said) == 1
    assert "unplanned" in said[0]
    assert captures(module) == 2
    assert outsize.report(module).steps == 3  # those with 2, 3 and 2 rows
    session = api._SESSIONS[module]
    session.measured.peak = 0
    step(module, optimizer, torch.randn(4000, 16))
    assert outsize.report(module).measured_peak_bytes > 2 * 4000 * 16 * 4


def test_beyond_the_limit_a_step_over_its_budget_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "MOST_SHAPES", 1)
    module = Net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    outsize.compile(module, "1 MiB", optimizer=optimizer, door="captured")
    step(module, optimizer, torch.randn(2, 16))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            step(module, optimizer, torch.randn(8000, 16))
    said = [str(w.message) for w in caught if w.category is RuntimeWarning]
    assert len(said) == 2
    assert "1048576" in said[1]


def test_each_module_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "MOST_SHAPES", 2)
    for _ in range(2):
        module = outsize.compile(Net(), "1 GiB")
        for rows in (2, 3):
            module(torch.randn(rows, 16))
        assert failed_guards(vars(module)["_outsize_watch"].installed._backend) == ()
