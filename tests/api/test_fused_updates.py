"""Updates in the backward: the bits of the plain loop, in the room of one gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import outsize

from .test_state import OPTIMIZERS, STEPS, accumulated, away, clipped, plain, same, tight, trained


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_in_the_backward(name: str) -> None:
    """The same training in the room of one gradient instead of all of them."""
    reference = trained(OPTIMIZERS[name], plain, None)
    whole = trained(OPTIMIZERS[name], plain, 2**40, residents="fuse")
    same(reference, whole, gradients=False)
    peaks = [outsize.report(made[0]).highest_peak_bytes for made in (reference, whole)]
    assert peaks[1] < peaks[0]
    with pytest.raises(outsize.BudgetError) as moved:
        trained(OPTIMIZERS[name], plain, 1)
    with pytest.raises(outsize.BudgetError) as fused:
        trained(OPTIMIZERS[name], plain, 1, residents="fuse")
    assert fused.value.smallest_feasible_bytes < moved.value.smallest_feasible_bytes - 192 * 192 * 4
    found = trained(OPTIMIZERS[name], plain, budget := fused.value.smallest_feasible_bytes, residents="fuse")
    assert away(found[1])
    assert outsize.report(found[0]).highest_peak_bytes <= budget
    same(reference, found, gradients=False)


def test_what_a_loop_may_not_do_then_is_an_error() -> None:
    make = OPTIMIZERS["adam"]
    with pytest.raises(outsize.OutsizeError, match="second before"):
        trained(make, accumulated, 2**40, residents="fuse")
    with pytest.raises(outsize.OutsizeError, match="a gradient that is gone"):
        trained(make, clipped, 2**40, residents="fuse")
    model, _, _ = trained(make, plain, 2**40, residents="fuse")
    spent = [p.grad for p in model.parameters() if getattr(p.grad, "is_away", False)]
    assert spent
    for touch in (torch.norm, torch.clone, lambda g: g.mul_(2), lambda g: g.detach(), lambda g: g[0]):
        with pytest.raises(outsize.OutsizeError, match="residents='move'"):
            touch(spent[0])
    assert "used" in repr(spent[0])

    def kept(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        loss: torch.Tensor = model(x).square().mean()
        loss.backward()
        return loss

    with pytest.raises(outsize.OutsizeError, match="has a gradient already"):
        trained(make, kept, 2**40, residents="fuse")


def test_a_parameter_with_a_hook_keeps_its_gradient() -> None:
    seen: list[torch.Tensor] = []

    def hooked(groups: Any) -> torch.optim.Optimizer:
        groups[0]["params"][0].register_hook(lambda g: seen.append(g.clone()))
        return OPTIMIZERS["adam"](groups)

    reference = trained(hooked, plain, None)
    first = list(seen)
    seen.clear()
    found = trained(hooked, plain, 2**40, residents="fuse")
    same(reference, found, gradients=False)
    assert len(first) == len(seen)
    assert all(map(torch.equal, first, seen))
    gradients = [next(made[0].parameters()).grad for made in (reference, found)]
    assert torch.equal(*gradients)


def test_a_state_that_is_loaded_between_fused_steps() -> None:
    def reload(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step < STEPS - 1:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    reference = trained(OPTIMIZERS["adamw fused"], plain, None, reload)
    found = trained(OPTIMIZERS["adamw fused"], plain, int(0.7 * tight(reference)), reload, residents="fuse")
    assert away(found[1])
    same(reference, found, gradients=False)


def test_the_plain_module_is_given_back() -> None:
    reference = trained(OPTIMIZERS["adam"], plain, None)
    found = trained(OPTIMIZERS["adam"], plain, 2**40, residents="fuse")
    for made in (reference, found):
        outsize.release(made[0])
        made[1].zero_grad()
        torch.manual_seed(3)
        plain(*made[:2], torch.randn(16, 192))
    same(reference, found)


def test_a_backward_that_would_come_after_another_forward() -> None:
    """Its updates would run under a plan for another shape: the second forward is an error, and nothing was updated."""
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(192, 192), nn.Tanh())))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    outsize.compile(model, 2**40, optimizer=optimizer, residents="fuse")
    for rows in (16, 8):
        optimizer.zero_grad()
        model(torch.randn(rows, 192)).square().mean().backward()
        optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    late = model(torch.randn(16, 192)).square().mean()
    optimizer.zero_grad()
    with pytest.raises(outsize.OutsizeError, match="several times before one"):
        model(torch.randn(8, 192))
    assert all(map(torch.equal, model.parameters(), before))
    del late
