"""Optimizer state and workspace are known before the first step, to the byte."""

import gc

import pytest
import torch
from torch import nn

from outsize.errors import CaptureError
from outsize.measure.optimizer import UpdateBytes, update_bytes

WEIGHT, BIAS = 30 * 20 * 4, 30 * 4
ALL = WEIGHT + BIAS


def parameters() -> list[nn.Parameter]:
    return list(nn.Linear(20, 30).parameters())


@pytest.mark.parametrize(
    ("make", "state", "workspace"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0, 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), ALL, 0),
        (lambda p: torch.optim.Adam(p), 2 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.AdamW(p), 2 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 3 * ALL + 2 * 4, 2 * WEIGHT),
        (lambda p: torch.optim.AdamW(p, foreach=True), 2 * ALL + 2 * 4, ALL),
        (lambda p: torch.optim.Adagrad(p), ALL + 2 * 4, None),
    ],
    ids=["SGD", "momentum", "Adam", "AdamW", "amsgrad", "foreach", "Adagrad"],
)
def test_bytes_before_and_after_the_first_step(make, state: int, workspace: int | None) -> None:
    tensors = parameters()
    optimizer = make(tensors)
    promised = update_bytes(optimizer)
    assert promised.state == state
    if workspace is not None:
        assert promised.workspace == workspace
    assert all(p.grad is None for p in tensors)
    for p in tensors:
        p.grad = torch.ones_like(p)
    optimizer.step()
    held = {id(v): v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)}
    assert sum(t.untyped_storage().nbytes() for t in held.values()) == state
    assert update_bytes(optimizer) == promised


def test_frozen_parameters_have_no_state() -> None:
    tensors = parameters()
    tensors[0].requires_grad_(False)
    assert update_bytes(torch.optim.Adam(tensors)).state == 2 * BIAS + 4


def test_the_optimizer_itself_takes_no_step() -> None:
    optimizer = torch.optim.Adam(parameters())
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    update_bytes(optimizer)
    gc.collect()
    assert not optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.param_groups[0]["params"]))


class Reads(torch.optim.Optimizer):
    """Looks at a gradient's value, which a twin does not have."""

    def __init__(self, params) -> None:
        super().__init__(params, {})

    def step(self, closure=None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if float(parameter.grad.abs().max()) > 0:
                self.state[parameter]["seen"] = torch.ones_like(parameter)


def test_an_optimizer_that_cannot_be_sized_says_what_helps() -> None:
    optimizer = Reads(parameters())
    with pytest.raises(CaptureError, match="take one optimizer step before"):
        update_bytes(optimizer)
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert update_bytes(optimizer) == UpdateBytes(state=ALL)


def test_on_a_gpu_torch_updates_all_parameters_at_once() -> None:
    """Its own choice there, which it does not make for fake tensors."""
    with torch._subclasses.FakeTensorMode():
        parameters = [nn.Parameter(torch.empty(1000, 1000, device="cuda:0")) for _ in range(5)]
    one = 4_000_000
    assert update_bytes(torch.optim.AdamW(parameters)).workspace >= 5 * one
    assert update_bytes(torch.optim.AdamW(parameters, foreach=False)).workspace < 5 * one
