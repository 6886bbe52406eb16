"""Results that the loss does not use: no gradient where plain PyTorch has none, and no room kept for one."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import outsize
from outsize import decide
from outsize.errors import BudgetError, BudgetWarning

from .eager import differing, run

ROWS, WIDTH = 512, 32
#: Dynamo instantiates a user's autograd function while it traces it.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


class Heads(nn.Module):
    """A trunk and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 4) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.trunk(x)
        return [head(h) for head in self.heads]


class _SinCos(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return a * x.cos() - b * x.sin()


class Branches(nn.Module):
    """Branchings of every kind: chunks, views, a recurrent layer, a function of two results, sums of gradients."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.1)) for _ in range(4))
        self.layers = nn.ModuleList(layers)
        self.norm, self.gru = nn.BatchNorm1d(WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head, self.scale = nn.Linear(WIDTH, 4), nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        inner = []
        for layer in self.layers:
            x = x + layer(x)
            inner.append(x)
        left, right = x.chunk(2, -1)
        sin, cos = _SinCos.apply(inner[1])
        out, hidden = self.gru(inner[2].unsqueeze(1))
        logits = self.head(x)
        return (
            logits, self.norm(inner[0]), inner[2] * self.scale, left, right.square(), sin, cos, out, hidden, x.t(),
            x.view(-1), logits.logsumexp(-1).mean(), inner[3],
        )  # fmt: skip


def _compile(
    budget: int, actions: tuple[str, ...], module: nn.Module, optimizer: torch.optim.Optimizer
) -> nn.Module:
    return outsize.compile(module, budget, optimizer=optimizer, actions=actions)


def _smallest(make: Any, call: Any) -> int:
    module = make()
    outsize.compile(module, 1, optimizer=torch.optim.AdamW(module.parameters()))
    with pytest.raises(BudgetError) as caught:
        call(module)
    return caught.value.smallest_feasible_bytes


@functools.cache
def _smallest_of_branches() -> int:
    return _smallest(Branches, lambda module: module(torch.randn(ROWS, WIDTH)))


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_heads_that_are_trained_by_turns(kind: str) -> None:
    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        if kind == "adam":
            return torch.optim.AdamW(module.parameters(), 1e-2)
        return torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.1)

    def step(module: nn.Module, number: int) -> Tensor:
        loss: Tensor = module(torch.randn(ROWS, WIDTH))[number % 3].square().mean()
        return loss

    plain = run(Heads, step, steps=5, optimizer=optimizer)
    assert plain["gradient 0 heads.1.weight"] is None
    metered = run(Heads, step, lambda m, o: outsize.meter(m, optimizer=o), steps=5, optimizer=optimizer)
    assert differing(plain, metered) == []


@pytest.mark.filterwarnings(
    "ignore:the gradient of a result of shape"
)  # of another order, with the same bits here
@pytest.mark.parametrize(
    ("actions", "used"),
    [
        (("swap",), ((5,), (8, 12, 3), (1,))),
        (("recompute",), ((11,), (6, 2), (10, 4))),
        (("swap", "recompute", "encode"), ((9, 0), (7,), (11, 5))),
    ],
)
def test_any_results_under_a_plan(actions: tuple[str, ...], used: tuple[tuple[int, ...], ...]) -> None:
    def step(module: nn.Module, number: int) -> Tensor:
        results = module(torch.randn(ROWS, WIDTH))
        return sum((results[i].square().mean() for i in used[number]), torch.zeros(()))

    budget = int(1.1 * _smallest_of_branches())
    planned = run(Branches, step, functools.partial(_compile, budget, actions))
    assert differing(run(Branches, step), planned) == []


def test_backwards_over_one_graph_that_use_other_results_each() -> None:
    def step(module: nn.Module, number: int) -> None:
        results = module(torch.randn(ROWS, WIDTH))
        for place in (5, 8, 11):
            results[place].square().mean().backward(retain_graph=place != 11)

    planned = run(Branches, step, functools.partial(_compile, 2**30, ("swap", "recompute")))
    assert differing(run(Branches, step), planned) == []


def test_hooks_of_parameters_without_a_gradient_do_not_run() -> None:
    def step(called: list[str], module: nn.Module, number: int) -> Tensor:
        if number == 0:
            for name, parameter in module.named_parameters():
                parameter.register_hook(lambda g, name=name: called.append(f"{name} {g.shape}"))
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: called.append(f"{name} after")
                )
        loss: Tensor = module(torch.randn(ROWS, WIDTH))[number].square().mean()
        return loss

    plain, metered = list[str](), list[str]()
    expected = run(Heads, functools.partial(step, plain))
    seen = run(Heads, functools.partial(step, metered), lambda m, o: outsize.meter(m, optimizer=o))
    assert differing(expected, seen) == []
    assert sorted(metered) == sorted(plain)


class Language(nn.Module):
    """Logits beside the loss that is made of them, as a language model returns them."""

    def __init__(self, *, logits: bool) -> None:
        super().__init__()
        self.embed, self.head, self.logits = nn.Embedding(512, 8), nn.Linear(8, 512), logits

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = self.head(self.embed(ids).tanh())
        return nn.functional.cross_entropy(logits, ids), logits if self.logits else None


def test_logits_beside_a_loss_cost_their_own_bytes_and_no_more() -> None:
    ids = torch.arange(1024) % 512
    alone, beside = (
        _smallest(lambda logits=logits: Language(logits=logits), lambda m: m(ids)) for logits in (False, True)
    )
    assert beside - alone <= 1024 * 512 * 4 + 2**12


def test_a_gradient_that_was_not_expected_is_computed_all_the_same() -> None:
    ids = torch.arange(1024) % 512

    def step(module: nn.Module, number: int) -> Tensor:
        loss, logits = module(ids)
        return loss + logits.square().mean() if number else loss

    def make() -> nn.Module:
        return Language(logits=True)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        budget = _smallest(make, lambda m: m(ids)) + 2**16
        planned = run(make, step, functools.partial(_compile, budget, ("swap", "recompute")))
    assert any("results that the loss uses" in str(w.message) for w in said)
    assert any(isinstance(w.message, BudgetWarning) for w in said)
    assert differing(run(make, step), planned) == []


def test_making_the_backward_for_what_did_not_arrive_counts_in_no_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first backward with a missing gradient makes its graph in the middle of the step."""
    made, taken = decide.without_missing, 2**26

    def makes(*args: Any) -> Any:
        torch.empty(taken, dtype=torch.uint8).fill_(1)
        return made(*args)

    monkeypatch.setattr(decide, "without_missing", makes)
    module = outsize.compile(Heads(), "64 MiB")
    with warnings.catch_warnings():
        warnings.simplefilter("error", BudgetWarning)
        module(torch.randn(ROWS, WIDTH))[0].square().mean().backward()
    assert outsize.report(module).measured_peak_bytes < taken
