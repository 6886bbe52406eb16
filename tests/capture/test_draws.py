"""Numbers drawn into a tensor that exists: in eager's order, whatever its strides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import outsize

BOTH = (
    lambda: torch.randn(12, 20),
    lambda: torch.randn(20, 12).t(),
    lambda: torch.randn(20, 24).t()[::2],
)


class Draws(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.draw = nn.Parameter(torch.linspace(0.5, 1, 12)[:, None].clone()), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.draw(x * self.weight) * torch.rand(12, 1)


def part(y: Tensor) -> Tensor:
    y = y.clone()
    y[:, ::2].normal_(1, 0.5)
    return y


def mask_of_part(y: Tensor) -> Tensor:
    y = y.clone()
    y[1:, :7].bernoulli_(0.3)
    return y


def unread(y: Tensor) -> Tensor:
    y.detach().clone().normal_()
    torch.empty_like(y).bernoulli_(0.5)
    return y


def after_itself(y: Tensor) -> Tensor:
    noise = torch.empty_like(y).normal_()
    noise.bernoulli_(0.5).mul_(2)
    return y * noise


@pytest.mark.parametrize("made", BOTH, ids=("contiguous", "transposed", "strided"))
@pytest.mark.parametrize(
    "draw",
    [
        lambda y: F.dropout(y * 1.1, 0.5, inplace=True),
        lambda y: F.alpha_dropout(y * 1.1, 0.3, training=True, inplace=True),
        lambda y: y * torch.empty_like(y).bernoulli_(0.3),
        lambda y: y * y.detach().clone().normal_(1, 2),
        part, mask_of_part, unread, after_itself,
    ],
    ids=["dropout", "alpha", "mask", "noise", "part", "mask of part", "unread", "after itself"],
)  # fmt: skip
def test_the_order_is_eagers(draw: Callable[[Tensor], Tensor], made: Callable[[], Tensor]) -> None:
    x, seen = made(), []
    for planned in (False, True):
        module = Draws(draw)
        if planned:
            outsize.compile(module, "1 GiB", door="captured")
        torch.manual_seed(1)
        result = module(x)
        result.square().sum().backward()
        seen.append((result.detach(), module.weight.grad, torch.get_rng_state()))
        assert result.stride() == (x * 1.0).stride()
    assert all(map(torch.equal, *seen))


class Heads(nn.Module):
    """Results of which one is a view, as a `linear` over a batch of sequences gives."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [head(x) for head in self.heads]


@pytest.mark.parametrize("shape", [(4, 8), (1, 4, 8)])
def test_hooks_of_a_result_run_where_it_has_a_gradient(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)

    def step(planned: bool) -> tuple[list[int], list[Tensor | None]]:
        torch.manual_seed(1)
        module, called = Heads(), []
        if planned:
            outsize.compile(module, "1 GiB", door="captured")
        results = module(x)
        for i in (0, 1):
            results[i].register_hook(lambda g, i=i: called.append(i) or g * (i + 2))
        assert [r._version for r in results] == [0, 0, 0]
        results[2].mul_(3)
        (results[0].sum() + results[2].square().sum()).backward()
        return called, [*(r.detach() for r in results), *(p.grad for p in module.parameters())]

    (called, expected), (ours, found) = step(False), step(True)
    assert called == ours == [0]
    assert [v is None for v in expected] == [v is None for v in found]
    assert all(torch.equal(a, b) for a, b in zip(expected, found) if a is not None)
