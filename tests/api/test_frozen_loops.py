"""Frozen parameters at rest in other loops than the usual one: held by somebody, called twice, shared, given back."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import nn

import outsize

from .test_frozen_parameters import FROZEN, WIDTH, Pair, least, weight

__all__ = ["least"]


def test_bytes_that_somebody_else_holds_stay() -> None:
    pair = Pair(FROZEN + 100_000)
    pair.step(0)
    name = pair.away[0]
    held = [dict(m.named_parameters())[name].data for m in pair.both]
    pair.step(1)
    assert name not in pair.away
    for values in held:
        values.mul_(0.5)
    pair.step(2)
    del held, values
    pair.step(3)
    assert pair.away


def test_bytes_that_somebody_else_holds_are_not_counted_as_gone(least: int) -> None:
    pair = Pair(least)
    pair.step(0)
    held = pair.planned.state_dict()
    with pytest.raises(outsize.BudgetError, match="holds its bytes"):
        pair.planned(torch.randn(8, WIDTH))
    del held
    pair.step(1)


def test_two_backwards_of_one_forward(least: int) -> None:
    pair = Pair(least + 200_000)
    results = []
    for model in pair.both:
        torch.manual_seed(0)
        loss = model(torch.randn(8, WIDTH)).square().mean()
        loss.backward(retain_graph=True)
        loss.backward()
        results.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert pair.away


def test_several_calls_before_a_backward_keep_them() -> None:
    pair = Pair(FROZEN + 2**20)
    pair.optimizers = [torch.optim.SGD(m.parameters(), lr=0.0) for m in pair.both]
    for _ in range(2):
        results = []
        for model in pair.both:
            torch.manual_seed(0)
            first = model(torch.randn(8, WIDTH))
            second = model(torch.randn(8, WIDTH))
            (first.sum() + second.square().mean()).backward()
            results.append((first.detach(), second.detach()))
        assert all(torch.equal(a, b) for a, b in zip(*results))
        assert not pair.away


def test_one_that_is_trained_after_all() -> None:
    pair = Pair(FROZEN)
    pair.step(0)
    name = pair.away[0]
    for model in pair.both:
        dict(model.named_parameters())[name].requires_grad_(True)
    pair.optimizers = [Pair.optimizer(m) for m in pair.both]
    pair.compile(2 * FROZEN)
    pair.step(1)
    assert name not in pair.away


def test_given_back_in_the_middle_of_a_step(least: int) -> None:
    pair = Pair(least)
    pair.step(0)
    for model, optimizer in zip(pair.both, pair.optimizers):
        torch.manual_seed(1)
        optimizer.zero_grad()
        loss = model(torch.randn(8, WIDTH)).square().mean()
        outsize.release(model)
        loss.backward()
    assert not pair.away
    grads = [[p.grad for p in m.parameters() if p.requires_grad] for m in pair.both]
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_it_outlives_its_module(least: int) -> None:
    pair = Pair(least)
    pair.step(0)
    parameter, wanted = weight(pair), pair.plain.base[1].weight
    assert hasattr(parameter, "is_away")
    del pair
    gc.collect()
    assert type(parameter) is nn.Parameter
    assert torch.equal(parameter, wanted)


class Tied(nn.Module):
    """A frozen embedding that is the head as well, read as it is and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 64)
        self.inner = nn.Linear(64, 64)
        self.head = nn.Linear(64, 300, bias=False)
        self.head.weight = self.embedding.weight
        self.embedding.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(torch.relu(self.inner(self.embedding(x))))
        return result


def test_a_tied_one_comes_for_each_of_its_uses() -> None:
    torch.manual_seed(0)
    plain = Tied()
    planned = copy.deepcopy(plain)
    tokens = torch.randint(0, 300, (2, 4))
    outsize.compile(planned, 1, residents="frozen", actions=("swap",))
    with pytest.raises(outsize.BudgetError) as refused:
        planned(tokens)
    outsize.compile(planned, refused.value.smallest_feasible_bytes, residents="frozen", actions=("swap",))
    for _ in range(2):
        for model in (plain, planned):
            model.zero_grad()
            model(tokens).square().mean().backward()
        assert torch.equal(plain.inner.weight.grad, planned.inner.weight.grad)
        assert hasattr(planned.head.weight, "is_away")
    uses = [d for d in outsize.report(planned).decisions if "nobody trains" in d.reason]
    assert len(uses) >= 2
    assert torch.equal(planned.head.weight, plain.head.weight)


def test_a_frozen_module_shared_by_two() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    wanted = copy.deepcopy(shared)
    models = [nn.Sequential(nn.Linear(WIDTH, WIDTH), shared, nn.ReLU()) for _ in range(2)]
    plain = [nn.Sequential(copy.deepcopy(m[0]), wanted, nn.ReLU()) for m in models]
    for model in models:
        outsize.compile(model, 700_000, residents="frozen", actions=("swap",))
    x = torch.randn(4, WIDTH)
    for _ in range(2):
        for model, other in zip(models, plain):
            results = [m(x).square().mean() for m in (model, other)]
            for loss in results:
                loss.backward()
            assert torch.equal(*results)
            assert torch.equal(model[0].weight.grad, other[0].weight.grad)
    first, second = (m(x).sum() for m in models)
    first.backward()
    second.backward()
    for other in plain:
        other(x).sum().backward()
    for model, other in zip(models, plain):
        assert torch.equal(model[0].weight.grad, other[0].weight.grad)
    assert torch.equal(shared.weight, wanted.weight)
