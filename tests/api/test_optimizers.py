"""Whoever updates the module counts: given or not, one or several, wrapped or not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize import api

from ..measure.test_optimizer import Lookahead, Sam

WIDTH = 512
X = torch.randn(256, WIDTH, generator=torch.Generator().manual_seed(0))
#: Bytes of one layer's parameters.
LAYER = 4 * (WIDTH * WIDTH + WIDTH)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])


def adam(module: nn.Sequential) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(module.parameters())]


def two(module: nn.Sequential) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW(module[:4].parameters()),
        torch.optim.SGD(module[4:].parameters(), lr=0.1, momentum=0.9),
    ]


def train(module: nn.Module, optimizers: list[Any], steps: int = 3) -> list[int]:
    """Measured peaks after each step."""
    peaks = []
    for _ in range(steps):
        module(X).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        peaks.append(outsize.report(module, timelines=False).measured_peak_bytes)
        for optimizer in optimizers:
            optimizer.zero_grad()
    return peaks


@pytest.mark.parametrize(("make", "state"), [(adam, 8 * LAYER), (two, 6 * LAYER)])
def test_an_optimizer_that_was_not_given_counts_from_its_first_step_on(
    make: Callable[..., Any], state: int
) -> None:
    module = outsize.compile(net(), "1 GiB")
    optimizers = make(module)
    peaks = train(module, optimizers)
    report = outsize.report(module, timelines=False)
    assert report.resident_bytes >= 4 * LAYER + X.nbytes + state
    assert peaks[0] >= 8 * LAYER + state  # its first update was measured, not only the step before
    assert [n.split()[0] for n in report.notes] == [type(o).__name__ for o in optimizers]
    given = outsize.compile(net(), "1 GiB", optimizer=make(net())[0])
    assert not outsize.api._SESSIONS[given].notes


@pytest.mark.parametrize("share", [0.8, 1.02], ids=["update over", "plan over"])
def test_where_it_does_not_fit_that_is_said_once(share: float) -> None:
    module = outsize.meter(net())
    optimizers = adam(module)
    first = train(module, optimizers, 1)[0]
    module = outsize.compile(net(), int(share * first))
    with pytest.warns(RuntimeWarning, match="not given to outsize") as caught:
        train(module, adam(module), 4)
    assert len([w for w in caught if w.category is RuntimeWarning]) == 1
    if share < 1:
        assert caught[0].filename == __file__
    assert "optimizer=" in outsize.report(module).notes[-1]


def test_it_is_planned_for_where_a_plan_has_room() -> None:
    wide = X.repeat(8, 1)
    states = []
    for given in (True, False):
        module = net()
        optimizer = torch.optim.AdamW(module.parameters())
        budget = 44 * 2**20
        outsize.compile(module, budget, optimizer=optimizer if given else None, planner="slack")
        for _ in range(3):
            module(wide).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        report = outsize.report(module, timelines=False)
        assert report.decisions
        assert report.measured_peak_bytes <= budget
        states.append((report.resident_bytes, [p.detach().clone() for p in module.parameters()]))
    assert states[0][0] == states[1][0]
    assert all(map(torch.equal, states[0][1], states[1][1]))


def sam(module: nn.Module) -> Any:
    return Sam(module.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("make", "state"),
    [(sam, 2 * 4 * LAYER), (lambda m: Lookahead(torch.optim.SGD(m.parameters(), 0.1, 0.9)), 2 * 4 * LAYER)],
    ids=["SAM", "Lookahead"],
)
def test_a_wrapper_counts_with_what_it_wraps_and_computes_the_same(make: Any, state: int) -> None:
    plain = net()
    theirs = make(plain)
    for _ in range(3):
        plain(X).square().mean().backward()
        theirs.step()
        theirs.zero_grad()
    module = net()
    optimizer = make(module)
    before = [p.detach().clone() for p in module.parameters()]
    outsize.compile(module, "1 GiB", optimizer=optimizer)
    assert all(map(torch.equal, before, module.parameters()))
    peaks = train(module, [optimizer])
    assert all(map(torch.equal, plain.parameters(), module.parameters()))
    assert outsize.report(module, timelines=False).resident_bytes >= 4 * LAYER + X.nbytes + state
    assert peaks[-1] >= 8 * LAYER + state


def test_a_closure_runs_steps_within_the_update() -> None:
    plain, module = net(), net()
    report = []
    for one in (plain, module):
        optimizer = torch.optim.LBFGS(one.parameters(), history_size=2, max_iter=2)
        if one is module:
            outsize.compile(one, "1 GiB", optimizer=optimizer)

        def closure(one: nn.Module = one, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = one(X).square().mean()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
    report = outsize.report(module, timelines=False)
    assert all(map(torch.equal, plain.parameters(), module.parameters()))
    assert report.resident_bytes >= 4 * LAYER + X.nbytes + 6 * 4 * LAYER + 3 * 4 * LAYER


def test_several_optimizers_end_the_step_together() -> None:
    module = net()
    first, second = two(module)
    outsize.compile(module, "1 GiB", optimizer=first)
    train(module, [first, second])  # the second is found
    session = api._SESSIONS[module]
    module(X).square().mean().backward()
    first.step()
    assert session.stepping
    second.step()
    assert not session.stepping
    module.zero_grad()


def test_an_optimizer_of_other_parameters_is_left_alone() -> None:
    module, other = outsize.compile(net(), "1 GiB"), net()
    module(X).square().mean().backward()
    other(X).square().mean().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.optim.AdamW(other.parameters()).step()
    assert not outsize.report(module, timelines=False).notes


def test_a_wrapper_of_the_given_one_is_no_other_optimizer() -> None:
    module = net()
    optimizer = sam(module)
    outsize.compile(module, "1 GiB", optimizer=optimizer.base_optimizer)
    train(module, [optimizer])
    report = outsize.report(module, timelines=False)
    assert not report.notes
    assert 3 * 4 * LAYER <= report.resident_bytes - X.nbytes < 4 * 4 * LAYER
