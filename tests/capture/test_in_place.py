"""Writing in place into a tensor that is not contiguous: the result lies in memory as in eager, and has its bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize.capture.in_place import fold_copies

BACK = torch.arange(16).flip(0)
Formula = Callable[[Tensor], Tensor]


def put(y: Tensor) -> Tensor:
    z = y * 1
    z[:, BACK] = y.clone()
    z[:, 2:5] = 0
    return z


def through_a_view(y: Tensor) -> Tensor:
    z = y * 1
    part = z[:, ::2]
    part.add_(torch.ones(part.shape))
    return z


def in_turn(y: Tensor) -> Tensor:
    """One after the other, and the first result is read in between."""
    z = (y * 1).masked_fill_(y > 0.5, 0.25)
    w = z * 2
    return w + z.cumsum_(1)


FORMULAS: dict[str, Formula] = {
    "scatter": lambda y: torch.zeros_like(y).scatter_(-1, y.argsort(-1), y),
    "scatter_add": lambda y: torch.zeros_like(y).scatter_add_(1, BACK.view(1, 16, 1).expand(y.shape), y),
    "index_add": lambda y: (y * 1).index_add_(1, BACK, y),
    "index_copy": lambda y: (y * 1).index_copy_(1, BACK, y),
    "masked_fill": lambda y: (y * 1).masked_fill_(y > 0.5, 0.25),
    "masked_fill broadcast": lambda y: (y * 1).masked_fill_(
        torch.ones(1, 1, y.shape[-1]).tril().bool(), 0.25
    ),
    "masked_scatter": lambda y: (y * 1).masked_scatter_(y > 0.5, y.clone()),
    "add": lambda y: (y * 1).add_(torch.ones(y.shape)),
    "mul broadcast": lambda y: (y * 1).mul_(torch.ones(y.shape[-1]) * 1.5),
    "cumsum": lambda y: (y * 1).cumsum_(1),
    "cumprod": lambda y: (y * 1).cumprod_(1),
    "tril": lambda y: (y * 1).tril_(),
    "baddbmm": lambda y: (y * 1).baddbmm_(y.new_ones(*y.shape[:2], 3), y.new_ones(y.shape[0], 3, y.shape[2])),
    "clamp": lambda y: (y * 1).clamp_(min=torch.zeros(y.shape)),
    "relu": lambda y: torch.relu_(y * 1),
    "compared": lambda y: (y * 1).lt_(0.1) * y,
    "put": put,
    "through a view": through_a_view,
    "in turn": in_turn,
}


class Written(nn.Module):
    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self.layer, self.formula = nn.Linear(16, 16), formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(self.layer(x).transpose(1, 2))


@pytest.mark.parametrize("name", FORMULAS)
def test_a_result_lies_as_in_eager(name: str) -> None:
    torch.manual_seed(0)
    module, x = Written(FORMULAS[name]), torch.randn(5, 24, 16)

    def step() -> tuple[tuple[int, ...], list[Tensor]]:
        module.zero_grad()
        result = module(x)
        loss = result.square().mean() + result.sin().sum()
        loss.backward()
        return result.stride(), [result, loss, *(p.grad.clone() for p in module.parameters())]

    strides, plain = step()
    assert not torch.empty(0).set_(plain[0].untyped_storage(), 0, plain[0].shape, strides).is_contiguous()
    outsize.compile(module, 2**40, door="captured")
    planned_strides, planned = step()
    assert planned_strides == strides
    assert all(torch.equal(a, b) for a, b in zip(plain, planned, strict=True))


def test_views_of_a_copy_that_is_folded_share_the_result_it_stood_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Autograd saves a detached view of what `relu_` wrote."""
    seen: list[tuple[int, int]] = []

    def folded(graph: torch.fx.GraphModule) -> None:
        fold_copies(graph)
        views = [n for n in graph.graph.nodes if n.target is torch.ops.aten.detach.default]
        seen.extend(
            tuple(n.meta["val"].untyped_storage()._cdata for n in (v, v.all_input_nodes[0])) for v in views
        )

    monkeypatch.setattr("outsize.capture.aot.fold_copies", folded)
    module = outsize.compile(Written(FORMULAS["relu"]), 2**40, door="captured")
    module(torch.randn(5, 24, 16)).sum().backward()
    assert seen
    assert all(view == base for view, base in seen)
